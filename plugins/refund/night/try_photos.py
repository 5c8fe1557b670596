"""Classify a handful of files outside a night, by the very same steps: decode in isolation, predict, decide."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from refund.errors import ReasonCode
from refund.params import NightParams
from refund.records import PhotoFacts
from refund.settings import Settings

if TYPE_CHECKING:
    from refund.model.decide import ScoredPhoto

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
    from refund.imaging.pack import PIXELS_FILE, create_pixels, open_pixels
    from refund.imaging.pool import DecoderPool
    from refund.model.decide import decide
    from refund.model.labels import load_labels
    from refund.model.load import load_model
    from refund.model.taxonomy import load_taxonomy

    params = NightParams(top_k=top_k)
    labels = load_labels()
    taxonomy = load_taxonomy(labels=labels)
    facts: dict[int, PhotoFacts] = {}
    scored: list[ScoredPhoto] = []

    def bodies() -> Iterator[tuple[int, bytes]]:
        for slot, path in enumerate(paths):
            body = _read(path, settings.max_bytes)
            if isinstance(body, bytes):
                yield slot, body
            else:
                facts[slot] = PhotoFacts(slot=slot, reason=body[0], detail=body[1])

    with tempfile.TemporaryDirectory(prefix="refund-") as folder:
        pixels_path = Path(folder) / PIXELS_FILE
        create_pixels(pixels_path, count=len(paths))
        with DecoderPool(
            pixels_path,
            limits=settings.limits,
            workers=min(settings.decode_workers or settings.cores, max(1, len(paths))),
            memory_bytes=settings.decode_memory_bytes,
            timeout_s=settings.decode_timeout_s,
        ) as pool:
            facts.update({fact.slot: fact for fact in pool.decode(bodies())})
        good = [slot for slot in range(len(paths)) if facts[slot].ok]
        with load_model(model_folder, threads=1) as model:
            pixels = open_pixels(pixels_path)
            for start in range(0, len(good), _BLOCK):
                block = good[start : start + _BLOCK]
                scored += decide(
                    model.predict(pixels[block], batch_size=params.batch_size),
                    labels=labels,
                    taxonomy=taxonomy,
                    top_k=top_k,
                    threshold=params.review_threshold,
                    declared=[None] * len(block),
                )
            model_key = model.card.key
    by_slot = dict(zip(good, scored, strict=True))
    tried = []
    for slot, path in enumerate(paths):
        fact = facts[slot]
        if fact.reason is not None:
            tried.append(TriedPhoto(path=str(path), status="rejected", reason=f"{fact.reason.value}: {fact.detail}"))
            continue
        photo = by_slot[slot]
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


def _read(path: Path, max_bytes: int) -> bytes | tuple[ReasonCode, str]:
    try:
        if path.exists() and not path.is_file():  # a pipe or a device would be read without end
            return ReasonCode.NOT_AN_IMAGE, "it is no regular file"
        size_bytes = path.stat().st_size
        if size_bytes > max_bytes:
            return ReasonCode.FILE_TOO_LARGE, f"{size_bytes:,} bytes, at most {max_bytes:,} are allowed"
        return path.read_bytes()
    except FileNotFoundError:
        return ReasonCode.VANISHED, "there is no such file"
    except OSError as exc:  # a folder, a socket, no permission
        return ReasonCode.NOT_AN_IMAGE, f"it cannot be read: {exc.strerror}"
