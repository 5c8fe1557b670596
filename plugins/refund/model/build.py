"""Builds model units: MobileNetV2's Keras weights become a float32 and, calibrated, an int8 LiteRT artefact.

TensorFlow is imported only by the child process that `refund.model.conversion` starts, whose environment holds no
secret. Photographs reach it as a ``.npy`` file of pixels.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from refund.errors import ConfigurationError, LabelMismatchError, ModelArtefactError, WeightsDownloadError
from refund.model import fallback
from refund.model.agreement import PASSED, Agreement
from refund.model.calibration import CalibrationSet
from refund.model.card import CARD_FILE, ModelCard, check_name
from refund.model.conversion import WEIGHTS_FIX, check_weights_file, convert
from refund.model.convert import Job
from refund.model.labels import Labels, load_labels
from refund.model.load import load_model
from refund.model.measure import accuracy, latency_ms, machine, predict_holdout
from refund.model.network import NAME, Network, named_network
from refund.model.taxonomy import Taxonomy, load_taxonomy

ARTEFACT_FILE = "model.tflite"
MAX_DIFFERENCE = 1e-4  # of any probability between Keras and the float32 artefact made from it
FLOAT32, INT8 = "float32", "int8"  # also the names of the units' folders


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What a build left: the units' cards, and which of them is served."""

    float32: ModelCard | None  # None: the packaged network, which is int8 only
    int8: ModelCard | None  # None: there were no photographs to calibrate with

    @property
    def cards(self) -> tuple[ModelCard, ...]:
        """Those that were built; each lies in the folder named as its precision."""
        return tuple(card for card in (self.float32, self.int8) if card is not None)

    @property
    def served(self) -> ModelCard:
        """int8 where it agrees with float32, or where it is all there is; else float32."""
        int8_may_be = self.int8 is not None and (self.int8.agreement is None or self.int8.agreement.state == PASSED)
        return self.int8 if self.int8 is not None and int8_may_be else self.cards[0]

    @property
    def reason(self) -> str:
        """Why that one is served, in a sentence."""
        if self.float32 is None:
            return "the packaged network is int8 as it comes"
        if self.int8 is None or self.int8.agreement is None:
            return "without photographs to calibrate with (--calibrate) no int8 form is built"
        return f"{self.int8.agreement.sentence}: {self.int8.agreement.state.replace('_', ' ')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    weights: Path | None
    network: Network
    calibration: CalibrationSet | None
    allow_download: bool
    allow_fallback: bool
    name: str | None
    version: str | None
    labels: Labels
    taxonomy: Taxonomy | None
    created_at: datetime
    tell: Callable[[str], None]

    def __post_init__(self) -> None:
        given = {key: value for key, value in (("name", self.name), ("version", self.version)) if value is not None}
        try:
            check_name(**given)
        except ValueError as exc:
            msg = f"the model cannot be named so: {exc}; choose another name or version"
            raise ConfigurationError(msg) from exc
        if self.weights is not None:
            check_weights_file(self.weights, self.network)
        elif not self.allow_download and not self.allow_fallback:
            msg = f"no weights were given and neither download nor packaged network is allowed; {WEIGHTS_FIX}"
            raise ConfigurationError(msg)
        elif self.allow_download and not self.network.is_published:
            msg = (
                f"Keras publishes no weights of alpha {self.network.alpha} at {self.network.input_px} px, only at 224; "
                f"give --input-px 224, or a file of your own: --weights FILE.h5"
            )
            raise ConfigurationError(msg)


def build_model(
    target: Path,
    *,
    weights: Path | None,
    allow_download: bool = True,
    allow_fallback: bool,
    alpha: float = 1.0,
    input_px: int = 224,
    name: str | None = None,
    version: str | None = None,
    labels: Labels | None = None,
    created_at: datetime | None = None,
    progress: Callable[[str], None] | None = None,
) -> ModelCard:
    """Build one float32 unit into the folder ``target``, which must not exist or be empty; it appears whole or not.

    ``weights`` (a Keras ``.h5`` file) is used if given, and if it is wrong nothing else is tried. Without it Keras's
    own download is tried, then, only where ``allow_fallback`` says so, the packaged network (`refund.model.fallback`).
    ``name`` and ``version`` are by default the network's name and a version that ends in the artefact's SHA-256;
    ``labels`` are the project's class list. ``progress`` is told every step in a sentence.

    Raises:
        ModelArtefactError: the weights are missing, unreadable or of another network.
        SettingsError: there is no MobileNetV2 of this ``alpha`` and ``input_px``.
        ConfigurationError: the target is taken, TensorFlow is not installed, or no source of weights was left.
        LabelMismatchError: network and labels differ in number.
    """
    request = _Request(
        weights=weights,
        network=named_network(alpha=alpha, input_px=input_px),
        calibration=None,
        allow_download=allow_download,
        allow_fallback=allow_fallback,
        name=name,
        version=version,
        labels=labels or load_labels(),
        taxonomy=None,
        created_at=created_at or datetime.now(UTC),
        tell=progress or (lambda _: None),
    )
    with _whole(target) as work:
        (card,) = _build(work, request).cards
        _publish(work / card.precision, target)
    return card


def build_models(
    target: Path,
    *,
    weights: Path | None,
    alpha: float = 1.0,
    input_px: int = 224,
    calibration: CalibrationSet | None,
    allow_download: bool = True,
    allow_fallback: bool = False,
    name: str | None = None,
    version: str | None = None,
    labels: Labels | None = None,
    taxonomy: Taxonomy | None = None,
    created_at: datetime | None = None,
    progress: Callable[[str], None] | None = None,
) -> Built:
    """Build the float32 unit and, with photographs to calibrate on, the int8 one, as ``target/float32`` and ``/int8``.

    Other arguments and errors are those of `build_model`; ``target`` appears whole or not at all. A ``version`` gets
    the precision appended, as ``7-int8``. The int8 card tells how far it agrees with float32 on the holdout; accuracy
    is measured where the photographs carry labels.
    """
    labels = labels or load_labels()
    if calibration is not None and taxonomy is None:
        taxonomy = load_taxonomy(labels=labels)
    request = _Request(
        weights=weights,
        network=named_network(alpha=alpha, input_px=input_px),
        calibration=calibration,
        allow_download=allow_download,
        allow_fallback=allow_fallback,
        name=name,
        version=version,
        labels=labels,
        taxonomy=taxonomy,
        created_at=created_at or datetime.now(UTC),
        tell=progress or (lambda _: None),
    )
    with _whole(target) as work:
        built = _build(work, request, suffixed=True)
        _publish(work, target)
    return built


def write_card(folder: Path, card: ModelCard) -> None:
    """Write a unit's card."""
    (folder / CARD_FILE).write_text(card.to_json(), encoding="utf-8")


def _build(work: Path, request: _Request, *, suffixed: bool = False) -> Built:
    """Fill ``work`` with one folder per unit."""
    try:
        if request.weights is None and not request.allow_download:
            return Built(float32=None, int8=_packaged(work, request, suffixed=suffixed))
        return _converted(work, request, suffixed=suffixed)
    except WeightsDownloadError as exc:
        if not request.allow_fallback:
            raise
        request.tell(f"{exc} Using the packaged network {fallback.NAME} instead.")
    return Built(float32=None, int8=_packaged(work, request, suffixed=suffixed))


def _packaged(work: Path, request: _Request, *, suffixed: bool) -> ModelCard:
    (work / INT8).mkdir(mode=0o755)
    (work / INT8 / ARTEFACT_FILE).write_bytes(fallback.fetch_fallback(request.tell))
    if request.calibration is not None:
        request.tell("the packaged network comes quantised, so the photographs given are not used")
    card = _card(
        work,
        request,
        INT8,
        suffixed=suffixed,
        name=fallback.NAME,
        version_prefix=fallback.PACKAGE_VERSION,
        side_px=224,
        class_count=1000,
        source=fallback.SOURCE,
        source_sha256=fallback.ARCHIVE_SHA256,
    )
    return _measured(work, card, request)[0]


def _converted(work: Path, request: _Request, *, suffixed: bool) -> Built:
    """Have the child convert the weights; raises `WeightsDownloadError` where only the download failed."""
    import numpy as np

    photographs = request.calibration
    for precision in (FLOAT32, INT8)[: 1 if photographs is None else 2]:
        (work / precision).mkdir(mode=0o755)
    with tempfile.TemporaryDirectory(prefix="refund-build-") as scratch:
        if photographs is not None:
            np.save(
                Path(scratch) / "calibration.npy", photographs.pixels_of(photographs.calibrating), allow_pickle=False
            )
        job = Job(
            weights=str(request.weights.resolve()) if request.weights else None,
            alpha=request.network.alpha,
            input_px=request.network.input_px,
            float32=str((work / FLOAT32 / ARTEFACT_FILE).resolve()),
            int8=str((work / INT8 / ARTEFACT_FILE).resolve()) if photographs is not None else None,
            calibration=str(Path(scratch) / "calibration.npy") if photographs is not None else None,
        )
        result = convert(job, request.tell, folder=Path(scratch))
    difference = float(result["max_probability_difference"])
    if not difference <= MAX_DIFFERENCE:  # also refuses NaN
        msg = (
            f"the converted network differs from Keras by {difference:.2g} in a probability, expected at most "
            f"{MAX_DIFFERENCE:g}; the installed TensorFlow and LiteRT do not fit together: reinstall from "
            f"requirements.txt"
        )
        raise ModelArtefactError(msg)
    file = f"file {request.weights.name}" if request.weights else 'weights="imagenet" by download'
    common = {
        "suffixed": suffixed,
        "name": NAME,
        "version_prefix": request.network.label,
        "side_px": request.network.input_px,
        "alpha": request.network.alpha,
        "class_count": int(result["class_count"]),
        "source": f"Keras MobileNetV2, {file}",
        "source_sha256": str(result["source_sha256"]),
        "built_with": result["built_with"],
    }
    metrics = {"max_probability_difference": difference}
    float32, reference = _measured(work, _card(work, request, FLOAT32, metrics=metrics, **common), request)
    if photographs is None:
        return Built(float32=float32, int8=None)
    common["built_with"] = {**result["built_with"], "pillow": installed_version("pillow")}  # which decoded them
    card = _card(
        work,
        request,
        INT8,
        metrics=result["int8_metrics"],
        output="logits",
        calibration=photographs.facts,
        **common,
    )
    int8, scores = _measured(work, card, request)
    agreeing = int((scores.argmax(axis=1) == reference.argmax(axis=1)).sum())
    agreement = Agreement.of(reference=float32.key, photos=len(scores), agreeing=agreeing)
    figures = dict(int8.metrics)
    if len(scores):
        figures["max_probability_difference"] = float(np.abs(scores - reference).max())
        figures["top1_agreement"] = agreeing / len(scores)
    int8 = replace(int8, agreement=agreement, metrics=figures)
    write_card(work / INT8, int8)
    return Built(float32=float32, int8=int8)


def _card(
    work: Path,
    request: _Request,
    precision: str,
    *,
    version_prefix: str,
    side_px: int,
    suffixed: bool,
    built_with: dict[str, str] | None = None,
    metrics: dict[str, float] | None = None,
    **given: Any,
) -> ModelCard:
    """The card of the artefact in ``work/precision``; what decides its bytes goes into ``inputs_sha256``."""
    body = (work / precision / ARTEFACT_FILE).read_bytes()
    digest = sha256(body).hexdigest()
    version = f"{version_prefix}-{precision}-{digest[:8]}"
    if request.version is not None:
        version = f"{request.version}-{precision}" if suffixed else request.version
    inputs = {
        "name": given["name"],
        "network": version_prefix,
        "precision": precision,
        "source_sha256": given["source_sha256"],
        "labels_sha256": request.labels.sha256,
        "calibration_sha256": (given.get("calibration") or {}).get("sha256"),
    }
    as_float = precision == FLOAT32
    return ModelCard(
        **{
            **given,
            "name": request.name or given["name"],
            "version": version,
            "runtime": "litert",
            "artefact_file": ARTEFACT_FILE,
            "artefact_sha256": digest,
            "input_height": side_px,
            "input_width": side_px,
            "input_scale": 1.0 / 127.5 if as_float else 1.0,  # -1 to 1, as mobilenet_v2.preprocess_input in Keras
            "input_offset": -1.0 if as_float else 0.0,  # int8 takes the pixels as they are
            "labels_sha256": request.labels.sha256,
            "precision": precision,
            "created_at": request.created_at.astimezone(UTC).isoformat(timespec="seconds"),
            "built_with": {**(built_with or {}), "machine": machine(), "refund": _refund_version()},
            "metrics": {**(metrics or {}), "artefact_bytes": float(len(body))},
            "inputs_sha256": sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest(),
        }
    )


def _measured(work: Path, card: ModelCard, request: _Request) -> tuple[ModelCard, Any]:
    """Load the unit, which checks it, and measure it; returns its card and the holdout's probabilities ``(N, C)``."""
    if card.class_count != len(request.labels):
        raise LabelMismatchError(model_key=card.key, output_count=card.class_count, label_count=len(request.labels))
    folder = work / card.precision
    write_card(folder, card)
    figures, scores = dict(card.metrics), None
    with load_model(folder, labels=request.labels) as model:
        request.tell(f"{card.key} loads")
        figures["latency_ms_per_photo"] = latency_ms(model)
        if request.calibration is not None and card.name != fallback.NAME and request.taxonomy is not None:
            scores = predict_holdout(model, request.calibration)
            figures |= accuracy(scores, request.calibration, labels=request.labels, taxonomy=request.taxonomy)
    card = replace(card, metrics=figures)
    write_card(folder, card)
    return card, scores


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """A folder to work in beside ``target``; what is not published from it by the end is gone."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        msg = f"{target} exists and is not empty; a model is never overwritten: choose another folder or remove it"
        raise ConfigurationError(msg)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", suffix=".partial", dir=target.parent) as temporary:
        work = Path(temporary) / "unit"
        work.mkdir(mode=0o755)
        yield work


def _publish(work: Path, target: Path) -> None:
    """Flush the files to disk and move the folder into place in one step."""
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
