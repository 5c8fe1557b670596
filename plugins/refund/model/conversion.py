"""The parent's side of a conversion: checks the weights file, runs the child process, and translates its failures."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from refund.errors import ConfigurationError, LabelledSetError, ModelArtefactError, WeightsDownloadError
from refund.model.child import child_environment, module_command
from refund.model.convert import Job
from refund.model.network import Network

CHILD_TIMEOUT_S = 900.0
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
WEIGHTS_FIX = "correct --weights or REFUND_WEIGHTS, or give neither to let Keras download its own"


def convert(job: Job, tell: Callable[[str], None], *, folder: Path) -> dict[str, Any]:
    """Run the conversion in a process of its own, with its job in ``folder``; returns what the cards need.

    Raises:
        WeightsDownloadError: Keras's download failed.
        ModelArtefactError: the weights are unreadable or of another network, or the process died.
        LabelledSetError: the calibration pixels are unreadable.
        ConfigurationError: TensorFlow is not installed.
    """
    path = folder / "job.json"
    path.write_text(json.dumps(asdict(job)), encoding="utf-8")
    result = run_child(path, tell)
    raise_failure(
        result,
        weights=Path(job.weights) if job.weights else None,
        network=Network(alpha=job.alpha, input_px=job.input_px),
    )
    return result


def run_child(job: Path, tell: Callable[[str], None]) -> dict[str, Any]:
    """The child's stdout is progress, one sentence a line, and its last line the result as JSON."""
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(
            module_command("refund.model.convert_child", str(job.resolve())),
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            encoding="utf-8",
        )
        watchdog = threading.Timer(CHILD_TIMEOUT_S, child.kill)
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


def raise_failure(result: dict[str, Any], *, weights: Path | None, network: Network) -> None:
    """Translate what the child reports into the error that tells the way out; nothing where it reports success."""
    failure, detail = result.get("failure"), result.get("detail")
    if failure is None:
        return
    place = weights or "the downloaded file"
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
        fix = WEIGHTS_FIX if weights else f"remove {where} and build again"
        msg = f"{where} cannot be read as HDF5: {detail}; {network.help}; {fix}"
        raise ModelArtefactError(msg)
    if failure == "mismatch":
        msg = f"{place} does not fit the network: {detail}; {network.help}; {WEIGHTS_FIX}"
        raise ModelArtefactError(msg)
    if failure == "calibration":
        msg = f"the pixels decoded for calibration cannot be read back: {detail}; free some disk space and build again"
        raise LabelledSetError(msg)
    if failure == "not_integer":
        msg = (
            f"the int8 artefact made from {place} is not full-integer, per channel, uint8 in, float32 out: {detail}; "
            f"reinstall TensorFlow from requirements.txt, or build without --calibrate"
        )
        raise ModelArtefactError(msg)
    msg = (
        f"the process that converts {place} ended early ({detail}); it needs about 1.4 GB of memory and up to "
        f"{CHILD_TIMEOUT_S:.0f} s. Free some and build again"
    )
    raise ModelArtefactError(msg)


def check_weights_file(weights: Path, network: Network) -> None:
    """Refuse what needs no child to refuse; pickles and other formats are never opened.

    Raises:
        ModelArtefactError: it is missing, or no HDF5 file.
    """
    if weights.suffix != ".h5":
        msg = f"{weights} is no .h5 file; {network.help}; {WEIGHTS_FIX}"
        raise ModelArtefactError(msg)
    try:
        with weights.open("rb") as stream:
            head = stream.read(len(_HDF5_SIGNATURE))
    except FileNotFoundError as exc:
        msg = f"{weights} is missing; {network.help}; {WEIGHTS_FIX}"
        raise ModelArtefactError(msg) from exc
    except OSError as exc:
        msg = f"{weights} cannot be read: {exc.strerror}; {network.help}; {WEIGHTS_FIX}"
        raise ModelArtefactError(msg) from exc
    if head != _HDF5_SIGNATURE:
        msg = f"{weights} begins with {head!r}, which is no HDF5; {network.help}; {WEIGHTS_FIX}"
        raise ModelArtefactError(msg)
