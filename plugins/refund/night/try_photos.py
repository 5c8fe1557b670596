"""Classify a handful of files outside a night, by the very same steps: decode in isolation, predict, decide."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from refund.night.decoding import decode_bodies, read_file
from refund.params import NightParams
from refund.records import PhotoFacts
from refund.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from refund.model.decide import ScoredPhoto
    from refund.model.load import Model
    from refund.model.taxonomy import Taxonomy

_BLOCK = 256  # photos held in memory at once: 40 MB of pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class TriedPrediction:
    """One class and the category that the taxonomy files it under."""

    class_id: str
    class_name: str
    confidence: float  # ratio, 0 to 1
    category: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TriedPhoto:
    """The verdict on one file; ``reason`` is set where it is rejected, everything below it where not."""

    path: str
    status: str  # classified | rejected
    reason: str | None = None
    predictions: tuple[TriedPrediction, ...] = ()
    category: str | None = None
    category_score: float | None = None
    decision: str | None = None
    model: str | None = None


def try_photos(paths: Sequence[Path], *, model_folder: Path, settings: Settings, top_k: int) -> list[TriedPhoto]:
    """Classify files; the answer has one entry per path, in order, whatever the path is.

    Raises:
        ModelArtefactError: the model cannot be used.
        DecoderPoolError: the isolated interpreter cannot run.
    """
    from refund.imaging.pack import PIXELS_FILE, open_pixels
    from refund.model.labels import load_labels
    from refund.model.load import load_model
    from refund.model.taxonomy import load_taxonomy

    labels = load_labels()
    taxonomy = load_taxonomy(labels=labels)
    with load_model(model_folder, threads=1) as model, tempfile.TemporaryDirectory(prefix="refund-") as folder:
        pixels_path = Path(folder) / PIXELS_FILE
        facts = decode_bodies(
            ((slot, read_file(path, max_bytes=settings.max_bytes)) for slot, path in enumerate(paths)),
            count=len(paths),
            pixels_path=pixels_path,
            settings=settings,
            size=(model.card.input_width, model.card.input_height),
        )
        pixels = open_pixels(pixels_path)
        scored = score_photos(pixels, facts, model=model, taxonomy=taxonomy, params=NightParams(top_k=top_k))
        model_key = model.card.key
    tried = []
    for slot, path in enumerate(paths):
        fact = facts[slot]
        if fact.reason is not None:
            tried.append(TriedPhoto(path=str(path), status="rejected", reason=f"{fact.reason.value}: {fact.detail}"))
            continue
        photo = scored[slot]
        tried.append(
            TriedPhoto(
                path=str(path),
                status="classified",
                predictions=tuple(
                    TriedPrediction(
                        class_id=score.class_id,
                        class_name=score.class_name,
                        confidence=score.confidence,
                        category=taxonomy.category_of(score.class_id),
                    )
                    for score in photo.top
                ),
                category=photo.decision.category,
                category_score=photo.decision.score,
                decision=photo.decision.kind.value,
                model=model_key,
            )
        )
    return tried


def score_photos(
    pixels: NDArray[np.uint8], facts: Sequence[PhotoFacts], *, model: Model, taxonomy: Taxonomy, params: NightParams
) -> dict[int, ScoredPhoto]:
    """Predict and judge the photos of ``pixels`` (``(N, H, W, 3)``) that ``facts`` calls good; by slot.

    Raises:
        FatalRunError: the network failed, or its scores are no probabilities.
    """
    from refund.model.decide import decide

    good = [fact.slot for fact in facts if fact.ok]
    scored: dict[int, ScoredPhoto] = {}
    for start in range(0, len(good), _BLOCK):
        block = good[start : start + _BLOCK]
        judged = decide(
            model.predict(pixels[block], batch_size=params.batch_size),
            labels=model.labels,
            taxonomy=taxonomy,
            top_k=params.top_k,
            threshold=params.review_threshold,
            declared=[None] * len(block),
            model=model.card.key,
        )
        scored.update(zip(block, judged, strict=True))
    return scored
