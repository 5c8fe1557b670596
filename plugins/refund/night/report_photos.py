"""Fetches example photos of the categories that moved most, for the report's page; none of them can fail the night."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from refund.errors import ReasonCode, RejectedPhotoError
from refund.monitor.drift import DriftStatus
from refund.night.decoding import decode_bodies
from refund.night.services import Services
from refund.report.rows import ExampleRow

if TYPE_CHECKING:
    from refund.monitor.drift import DriftResult
    from refund.report.thumbnails import Thumbnail
    from refund.store.examples import ExamplePhoto
    from refund.store.records import RunRow

log = logging.getLogger(__name__)

CATEGORIES = 2
PHOTOS_PER_CATEGORY = 4
_UNREAD = "it could not be read; the log of generate_report says why"
_DECODED = (320, 320)  # width, height of the square that photos are squeezed into: a little above a thumbnail


def example_pictures(
    row: RunRow, drift: Sequence[DriftResult], services: Services
) -> tuple[tuple[ExampleRow, ...], dict[str, Thumbnail]]:
    """The surest photos of the categories that moved most, and their pictures by key; both empty on other nights.

    The originals are hostile: they are decoded in the isolated interpreter and encoded anew. A photo that cannot be
    shown keeps its row, with the reason.
    """
    moved = moved_categories(drift)
    if not moved:
        return (), {}
    photos: list[ExamplePhoto] = []
    try:
        photos = _choose(row, moved, services)
        pictures, missing = _pictures(photos, services)
    except Exception:  # pictures are an extra: whatever keeps them away, the report must be written
        log.warning("No example photos in the report of %s", row.run_id, exc_info=True)
        pictures, missing = {}, {photo.key: _UNREAD for photo in photos}
    rows = tuple(
        ExampleRow(category=photo.category, key=photo.key, score=photo.score, missing=missing.get(photo.key, ""))
        for photo in photos
    )
    return rows, pictures


def moved_categories(drift: Sequence[DriftResult]) -> list[str]:
    """The categories of tonight whose shares moved most, most first; none where no measure with moves is drift."""
    moves = [move for result in drift if result.status is DriftStatus.DRIFT for move in result.moves]
    here = [move.category for move in moves if move.tonight_share > 0 and move.change != 0]
    return list(dict.fromkeys(here))[:CATEGORIES]


def _choose(row: RunRow, categories: Sequence[str], services: Services) -> list[ExamplePhoto]:
    from refund.store.examples import example_photos

    return [
        photo
        for category in categories
        for photo in example_photos(
            services.database,
            run_date=row.run_date,
            category=category,
            count=PHOTOS_PER_CATEGORY,
            synthetic=row.synthetic,
        )
    ]


def _pictures(photos: Sequence[ExamplePhoto], services: Services) -> tuple[dict[str, Thumbnail], dict[str, str]]:
    """Pictures by key, and by key why there is none."""
    from refund.imaging.pack import PIXELS_FILE, open_pixels
    from refund.report.thumbnails import make_thumbnail

    pictures: dict[str, Thumbnail] = {}
    missing: dict[str, str] = {}
    bodies: list[tuple[ExamplePhoto, bytes]] = []
    for photo in photos:
        body = _body(photo, services)
        if isinstance(body, RejectedPhotoError):
            missing[photo.key] = _why(body.reason)
        else:
            bodies.append((photo, body))
    if not bodies:  # the isolated interpreter takes a second to start
        return pictures, missing
    with tempfile.TemporaryDirectory(prefix="refund-") as folder:
        path = Path(folder) / PIXELS_FILE
        facts = decode_bodies(
            ((slot, body) for slot, (_, body) in enumerate(bodies)),
            count=len(bodies),
            pixels_path=path,
            settings=services.settings,
            size=_DECODED,
        )
        pixels = open_pixels(path)
        for (photo, _), fact in zip(bodies, facts, strict=True):
            if fact.reason is not None or fact.width_px is None or fact.height_px is None:
                missing[photo.key] = _why(fact.reason or ReasonCode.CORRUPT)
            else:
                pictures[photo.key] = make_thumbnail(
                    pixels[fact.slot], width_px=fact.width_px, height_px=fact.height_px
                )
    return pictures, missing


def _body(photo: ExamplePhoto, services: Services) -> bytes | RejectedPhotoError:
    if photo.bucket != services.objects.bucket:  # made up, or the bucket was changed since
        return RejectedPhotoError(ReasonCode.VANISHED, f"it lies in bucket {photo.bucket}")
    if photo.size_bytes > services.settings.max_bytes:
        return RejectedPhotoError(ReasonCode.FILE_TOO_LARGE, f"{photo.size_bytes:,} bytes")
    try:
        return services.objects.get(photo.key, etag=photo.etag, size_bytes=photo.size_bytes)
    except RejectedPhotoError as exc:
        return exc


def _why(reason: ReasonCode) -> str:
    from refund.report.labels import reason_label

    return reason_label(reason).lower()
