"""The child process of a build: with `refund.model.quantise`, which it calls, and the Keras runtime all of TensorFlow.

It is started as ``python -m refund.model.convert_child JOB.json``. It prints progress as sentences and, last, one line
of JSON: ``failure`` and ``detail``, or what the cards need. What needs no TensorFlow to refuse is refused before it
starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

from refund.model.network import Network, alpha_of

_DOWNLOAD_TIMEOUT_S = 180.0  # for all of it
_ANSWER_TIMEOUT_S = 10.0  # for the server to answer, or for the next piece


class ConversionFailure(Exception):  # noqa: N818  # never leaves this process
    """What the parent turns into an error: a kind, what was seen, and where."""

    def __init__(self, *, kind: str, detail: object, **more: str) -> None:
        super().__init__(kind)
        self.report = {"failure": kind, "detail": " ".join(str(detail).split())[:600], **more}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the child is told, as JSON."""

    weights: str | None  # an .h5 file; None: Keras's download
    alpha: float
    input_px: int
    float32: str  # the artefact to write
    int8: str | None = None  # the artefact to write
    calibration: str | None = None  # pixels, a .npy of (N, H, W, 3) uint8

    @classmethod
    def read(cls, path: Path) -> Self:
        """The job in a file."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def run(job: Job) -> None:
    """Do the job, and report on standard output."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever libraries print is not progress

    def say(line: str) -> None:
        print(line, file=stream, flush=True)  # this is the protocol with the parent

    try:
        result = _convert(job, say)
    except ConversionFailure as failure:
        result = failure.report
    say(json.dumps(result))
    stream.close()


def _convert(job: Job, say: Callable[[str], None]) -> dict[str, Any]:
    from refund.model.quantise import quantise, read_pixels

    asked = Network(alpha=job.alpha, input_px=job.input_px)
    if job.weights:
        check_weights(Path(job.weights), asked)
    pixels = read_pixels(Path(job.calibration), input_px=job.input_px) if job.calibration else None
    say("starting TensorFlow")
    try:
        import keras
        import numpy as np
        import tensorflow as tf
    except ImportError as exc:
        raise ConversionFailure(kind="no_tensorflow", detail=exc) from exc
    weights = Path(job.weights) if job.weights else _download(asked, say)
    say(f"reading {weights.name}")
    shape = (job.input_px, job.input_px, 3)
    network = keras.applications.MobileNetV2(input_shape=shape, alpha=job.alpha, weights=None)
    _load(network, weights)
    say("converting to LiteRT float32")
    with contextlib.redirect_stdout(sys.stderr):
        body: bytes = tf.lite.TFLiteConverter.from_keras_model(network).convert()
    Path(job.float32).write_bytes(body)
    noise = np.random.default_rng(0).integers(0, 256, (4, *shape)).astype(np.float32) / 127.5 - 1.0
    wanted = np.asarray(network(noise, training=False))
    result = {
        "class_count": int(network.output_shape[-1]),
        "source_sha256": sha256(weights.read_bytes()).hexdigest(),
        "built_with": {"keras": keras.__version__, "numpy": np.__version__, "tensorflow": tf.__version__},
        "max_probability_difference": float(np.abs(wanted - _run_artefact(body, noise)).max()),
    }
    if job.int8 is not None and pixels is not None:
        say(f"converting to LiteRT int8, calibrated on {len(pixels)} photographs")
        body, result["int8_metrics"] = quantise(network, pixels, alpha=job.alpha)
        Path(job.int8).write_bytes(body)
    return result


def check_weights(weights: Path, asked: Network) -> None:
    """Refuse, within a second, what is no HDF5, no MobileNetV2, or one of another alpha."""
    try:
        import h5py
    except ImportError as exc:
        raise ConversionFailure(kind="no_tensorflow", detail=exc) from exc
    try:
        with h5py.File(weights, "r") as opened:
            root = opened.get("model_weights", opened)  # a whole model, saved as one file
            if "layer_names" not in root.attrs:
                return  # a later format of Keras's: loading it will tell
            missing = [name for name in ("Conv1", "block_1_project", "Conv_1") if name not in root]
            if missing:
                names = ", ".join(list(root)[:3]) or "none"
                detail = f"it has no layer {missing[0]}, so it is no MobileNetV2; its first layers: {names}"
                raise ConversionFailure(kind="mismatch", detail=detail)
            seen = alpha_of(first=_channels(root["Conv1"]), second=_channels(root["block_1_project"]))
    except (OSError, KeyError, RuntimeError, ValueError) as exc:  # what h5py raises on damaged files
        raise ConversionFailure(kind="corrupt", detail=exc, path=str(weights)) from exc
    if seen is not None and seen != asked.alpha:
        detail = f"these seem to be weights of alpha {seen}, asked was alpha {asked.alpha} (--alpha {seen} reads them)"
        raise ConversionFailure(kind="mismatch", detail=detail)


def _channels(layer: Any) -> int:
    """The output channels of a convolution; 0 where there is no kernel."""
    found: list[int] = []

    def note(name: str, item: Any) -> None:
        if name.rpartition("/")[2].startswith("kernel") and getattr(item, "shape", None):
            found.append(int(item.shape[-1]))

    layer.visititems(note)
    return found[0] if found else 0


def _download(asked: Network, say: Callable[[str], None]) -> Path:
    """Keras's own download into its own cache (``~/.keras``), bounded in time."""
    import keras
    from keras.src.applications.mobilenet_v2 import BASE_WEIGHT_PATH  # what weights="imagenet" uses

    say(f"downloading Keras's own weights ({asked.weights_file})")
    socket.setdefaulttimeout(_ANSWER_TIMEOUT_S)
    done = threading.Event()
    outcome: list[Path | Exception] = []

    def fetch() -> None:
        try:
            url = BASE_WEIGHT_PATH + asked.weights_file
            outcome.append(Path(keras.utils.get_file(asked.weights_file, url, cache_subdir="models")))
        except Exception as exc:  # noqa: BLE001  # get_file raises bare Exception
            outcome.append(exc)
        done.set()

    threading.Thread(target=fetch, daemon=True).start()
    if not done.wait(_DOWNLOAD_TIMEOUT_S):
        raise ConversionFailure(kind="download", detail=f"not finished after {_DOWNLOAD_TIMEOUT_S:.0f} s")
    if isinstance(outcome[0], Exception):
        raise ConversionFailure(kind="download", detail=outcome[0]) from outcome[0]
    return outcome[0]


def _load(network: Any, weights: Path) -> None:
    import numpy as np

    try:
        network.load_weights(str(weights))
    except (ValueError, KeyError, TypeError, AttributeError) as exc:  # Keras has no error of its own for this
        raise ConversionFailure(kind="mismatch", detail=exc) from exc
    except OSError as exc:
        raise ConversionFailure(kind="corrupt", detail=exc, path=str(weights)) from exc
    if not all(np.isfinite(value).all() for value in network.get_weights()):
        raise ConversionFailure(kind="mismatch", detail="some weights are not finite numbers")


def _run_artefact(body: bytes, pixels: Any) -> Any:
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=body, num_threads=1)
    interpreter.allocate_tensors()
    into, out = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    rows = []
    for row in range(len(pixels)):
        interpreter.set_tensor(into, pixels[row : row + 1])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(out)[0])
    return np.stack(rows)
