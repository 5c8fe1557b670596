"""Builds the model units that benchmarks run, as `refund model build` does; the weights are those of the rivals."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.photographs import PHOTOGRAPHS, SHARED
from refund.model.card import CARD_FILE


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """The served form, and the float32 one that its accuracy is compared with."""

    served: Path
    float32: Path | None  # None where there is none


def weights_file() -> Path | None:
    """``REFUND_WEIGHTS`` where it is a file here, else the weights beside the checkout, else none."""
    named = [Path(text) for text in (os.environ.get("REFUND_WEIGHTS"),) if text]
    return next((path for path in (*named, *sorted((SHARED / "models").glob("*.h5"))) if path.is_file()), None)


def find_units(model: Path | None, scratch: Path, *, progress: Callable[[str], None]) -> Units:
    """The unit in the folder ``model`` and the float32 one beside it; without ``model`` both are built."""
    if model is not None:
        beside = model.resolve().parent / "float32"
        return Units(served=model, float32=beside if (beside / CARD_FILE).is_file() else None)
    progress("building the model (a minute; --model FOLDER takes one that is built)")
    return build_units(scratch, weights=weights_file(), photographs=PHOTOGRAPHS, progress=progress)


def build_units(target: Path, *, weights: Path | None, photographs: Path, progress: Callable[[str], None]) -> Units:
    """A build below ``target``: int8 is served, calibrated on these photographs where they are enough for that."""
    from refund.lifecycle.build import calibration_set
    from refund.model.build import build_models
    from refund.night.services import open_services
    from refund.settings import DatabaseAccess, S3Access, Settings

    with (
        tempfile.TemporaryDirectory(prefix="refund-bench-") as folder,
        open_services(  # files of this machine need neither store
            settings=Settings(), s3=S3Access(bucket="none"), database=DatabaseAccess(host="127.0.0.1")
        ) as services,
    ):
        calibration = None
        if photographs.is_dir():
            calibration = calibration_set(
                str(photographs), side_px=224, services=services, folder=Path(folder), tell=progress
            )
        built = build_models(target, weights=weights, calibration=calibration, allow_fallback=True, progress=progress)
    return Units(served=target / built.served.precision, float32=target / "float32" if built.float32 else None)
