"""The folder of a model unit: a card that says where its artefact comes from, written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from refund.errors import ConfigurationError
from refund.model.card import CARD_FILE, ModelCard
from refund.model.labels import Labels
from refund.model.measure import machine

ARTEFACT_FILE = "model.tflite"
FLOAT32, INT8 = "float32", "int8"  # also the names of the units' folders


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where the artefacts of one build come from: what their cards have in common."""

    name: str
    network: str  # begins the version
    side_px: int
    class_count: int
    source: str  # for people
    source_sha256: str
    alpha: float | None = None
    built_with: dict[str, str] = field(default_factory=dict)


def new_card(
    folder: Path,
    origin: Origin,
    *,
    labels: Labels,
    version: str | None,
    created_at: datetime,
    metrics: dict[str, float] | None = None,
    output: str = "probabilities",
    calibration: dict[str, Any] | None = None,
) -> ModelCard:
    """The card of the artefact in ``folder``, which is named as its precision; what decides its bytes is digested.

    ``version`` gets the precision appended, as ``7-int8``; by default it ends in the artefact's SHA-256.
    """
    precision = folder.name
    body = (folder / ARTEFACT_FILE).read_bytes()
    digest = sha256(body).hexdigest()
    inputs = {
        "name": origin.name,
        "network": origin.network,
        "precision": precision,
        "source_sha256": origin.source_sha256,
        "labels_sha256": labels.sha256,
        "calibration_sha256": (calibration or {}).get("sha256"),
    }
    as_float = precision == FLOAT32
    return ModelCard(
        name=origin.name,
        version=f"{version}-{precision}" if version else f"{origin.network}-{precision}-{digest[:8]}",
        runtime="litert",
        artefact_file=ARTEFACT_FILE,
        artefact_sha256=digest,
        input_height=origin.side_px,
        input_width=origin.side_px,
        input_scale=1.0 / 127.5 if as_float else 1.0,  # -1 to 1, as mobilenet_v2.preprocess_input in Keras
        input_offset=-1.0 if as_float else 0.0,  # int8 takes the pixels as they are
        output=output,
        class_count=origin.class_count,
        labels_sha256=labels.sha256,
        precision=precision,
        source=origin.source,
        source_sha256=origin.source_sha256,
        created_at=created_at.astimezone(UTC).isoformat(timespec="seconds"),
        built_with={**origin.built_with, "machine": machine(), "refund": _refund_version()},
        metrics={**(metrics or {}), "artefact_bytes": float(len(body))},
        alpha=origin.alpha,
        inputs_sha256=sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest(),
        calibration=calibration,
    )


def write_card(folder: Path, card: ModelCard) -> None:
    """Write a unit's card."""
    (folder / CARD_FILE).write_text(card.to_json(), encoding="utf-8")


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder to work in beside ``target``, which takes its place at the end; after an error nothing is left.

    Raises:
        ConfigurationError: ``target`` is taken, or cannot be written.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        msg = f"{target} exists and is not empty; a model is never overwritten: choose another folder or remove it"
        raise ConfigurationError(msg)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", suffix=".partial", dir=target.parent) as temporary:
        work = Path(temporary) / "units"
        work.mkdir(mode=0o755)
        yield work
        for path in work.rglob("*"):
            if path.is_file():
                with path.open("rb") as stream:
                    os.fsync(stream.fileno())
        try:
            work.replace(target)  # also takes the place of an empty folder
        except OSError as exc:
            msg = f"{target} could not be written: {exc.strerror}; choose another folder"
            raise ConfigurationError(msg) from exc


def _refund_version() -> str:
    try:
        return installed_version("refund")
    except PackageNotFoundError:  # mounted into plugins/, not installed
        return "not installed"
