"""The child process of `refund.model.build`: the one place, with the Keras runtime, that imports TensorFlow.

It prints progress as sentences and, last, one line of JSON: ``failure`` and ``detail``, or what the card needs.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
from hashlib import sha256
from pathlib import Path
from typing import Any

_DOWNLOAD_TIMEOUT_S = 180.0  # for all of it
_ANSWER_TIMEOUT_S = 10.0  # for the server to answer, or for the next piece
_WEIGHTS_NAME = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5"


class _ConversionFailure(Exception):  # noqa: N818  # never leaves this process
    def __init__(self, *, kind: str, detail: object, **more: str) -> None:
        super().__init__(kind)
        self.report = {"failure": kind, "detail": " ".join(str(detail).split())[:600], **more}


def run(artefact: str, source: str) -> None:
    """Convert ``source`` (an ``.h5`` file, or ``--download``) into ``artefact``."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever libraries print is not progress

    def say(line: str) -> None:
        print(line, file=stream, flush=True)  # this is the protocol with the parent

    try:
        result = _convert(Path(artefact), source, say)
    except _ConversionFailure as failure:
        result = failure.report
    say(json.dumps(result))
    stream.close()


def _convert(artefact: Path, source: str, say: Any) -> dict[str, Any]:
    say("starting TensorFlow")
    try:
        import keras
        import numpy as np
        import tensorflow as tf
    except ImportError as exc:
        raise _ConversionFailure(kind="no_tensorflow", detail=exc) from exc
    weights = _download(say) if source == "--download" else Path(source)
    say(f"reading {weights.name}")
    network = keras.applications.MobileNetV2(weights=None)
    _load(network, weights)
    say("converting to LiteRT float32")
    with contextlib.redirect_stdout(sys.stderr):
        body: bytes = tf.lite.TFLiteConverter.from_keras_model(network).convert()
    artefact.write_bytes(body)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 224, 224, 3)).astype(np.float32) / 127.5 - 1.0
    wanted = np.asarray(network(pixels, training=False))
    return {
        "class_count": int(network.output_shape[-1]),
        "source_sha256": sha256(weights.read_bytes()).hexdigest(),
        "built_with": {"keras": keras.__version__, "tensorflow": tf.__version__},
        "max_probability_difference": float(np.abs(wanted - _run_artefact(body, pixels)).max()),
    }


def _download(say: Any) -> Path:
    """Keras's own download into its own cache (``~/.keras``), bounded in time."""
    import keras
    from keras.src.applications.mobilenet_v2 import BASE_WEIGHT_PATH  # what weights="imagenet" uses

    say("downloading Keras's own weights (14 MB)")
    socket.setdefaulttimeout(_ANSWER_TIMEOUT_S)
    done = threading.Event()
    outcome: list[Path | Exception] = []

    def fetch() -> None:
        try:
            outcome.append(
                Path(keras.utils.get_file(_WEIGHTS_NAME, BASE_WEIGHT_PATH + _WEIGHTS_NAME, cache_subdir="models"))
            )
        except Exception as exc:  # noqa: BLE001  # get_file raises bare Exception
            outcome.append(exc)
        done.set()

    threading.Thread(target=fetch, daemon=True).start()
    if not done.wait(_DOWNLOAD_TIMEOUT_S):
        raise _ConversionFailure(kind="download", detail=f"not finished after {_DOWNLOAD_TIMEOUT_S:.0f} s")
    if isinstance(outcome[0], Exception):
        raise _ConversionFailure(kind="download", detail=outcome[0]) from outcome[0]
    return outcome[0]


def _load(network: Any, weights: Path) -> None:
    import h5py
    import numpy as np

    try:
        with h5py.File(weights, "r"):
            pass
    except OSError as exc:
        raise _ConversionFailure(kind="corrupt", detail=exc, path=str(weights)) from exc
    try:
        network.load_weights(str(weights))
    except (ValueError, KeyError, TypeError, AttributeError) as exc:  # Keras has no error of its own for this
        raise _ConversionFailure(kind="mismatch", detail=exc) from exc
    except OSError as exc:
        raise _ConversionFailure(kind="corrupt", detail=exc, path=str(weights)) from exc
    if not all(np.isfinite(value).all() for value in network.get_weights()):
        raise _ConversionFailure(kind="mismatch", detail="some weights are not finite numbers")


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
