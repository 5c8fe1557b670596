"""First half of a shard: download each photo once, decode it in isolation, leave a pack, quarantine the rejects."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from refund import keys
from refund.errors import AccessDeniedError, FatalRunError, ReasonCode, RejectedPhotoError
from refund.night.services import NightRun, Services, ShardLayout, Stopwatch, dump
from refund.night.staged import STAGE_FILE, manifest_photos, read_manifest
from refund.records import PhotoFacts, PhotoObject

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

_ENOUGH_TO_TELL = 3  # photos; with fewer, all refused may be chance
_IN_FLIGHT_BYTES = 64 * 1024 * 1024  # bodies downloaded ahead of decoding
_DOWNLOADS_AT_ONCE = 16
# nothing of this version is left to quarantine, or the store does not let us
_NOT_THERE = frozenset({ReasonCode.VANISHED, ReasonCode.CHANGED, ReasonCode.UNREADABLE})


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidatedShard:
    """What a shard's validation left behind."""

    shard_uri: str
    photos: int
    rejected: int

    def as_xcom(self) -> dict[str, Any]:
        """Plain values for XCom."""
        return {"shard_uri": self.shard_uri, "photos": self.photos, "rejected": self.rejected}


def validate_shard(shard_uri: str, *, run: NightRun, services: Services) -> ValidatedShard:
    """Make the pack of one shard: pixels of the good photos, a row of facts for every photo.

    Raises:
        StagingMissingError: the manifest is gone.
        DecoderPoolError: the isolated interpreter cannot run.
        RetriableRunError: S3 cannot be reached.
    """
    watch = Stopwatch()
    layout = ShardLayout(shard_uri)
    with services.staging.readable_folder(layout.manifest) as folder:
        photos = manifest_photos(read_manifest(folder))
    with services.staging.writable_folder(layout.pack) as folder:
        facts = decode_photos(photos, folder, services)
        check_readable(facts, place=services.objects.access.place)
        quarantined = [_quarantine(photo, fact, run, services) for photo, fact in zip(photos, facts, strict=True)]
        rejected = sum(not fact.ok for fact in facts)
        _write_facts(folder, photos, facts, quarantined)
        (folder / STAGE_FILE).write_bytes(dump({"seconds": watch.seconds, "photos": len(photos), "rejected": rejected}))
    log.info("Validated %s photos, rejected %s, in %.1f s", len(photos), rejected, watch.seconds)
    return ValidatedShard(shard_uri=shard_uri, photos=len(photos), rejected=rejected)


def decode_photos(photos: list[PhotoObject], folder: Path, services: Services) -> list[PhotoFacts]:
    """Download and decode; returns one `PhotoFacts` per photo, in order, and writes ``pixels.npy``."""
    from refund.imaging.pack import PIXELS_FILE, create_pixels
    from refund.imaging.pool import DecoderPool

    settings = services.settings
    facts: list[PhotoFacts | None] = [None] * len(photos)

    def bodies() -> Iterator[tuple[int, bytes]]:
        downloads = services.objects.get_many(
            photos,
            max_bytes=settings.max_bytes,
            max_in_flight_bytes=_IN_FLIGHT_BYTES,
            concurrency=_DOWNLOADS_AT_ONCE,
        )
        for slot, body in downloads:
            if isinstance(body, RejectedPhotoError):
                facts[slot] = PhotoFacts(slot=slot, reason=body.reason, detail=body.detail)
            else:
                yield slot, body

    create_pixels(folder / PIXELS_FILE, count=len(photos))
    with DecoderPool(
        folder / PIXELS_FILE,
        limits=settings.limits,
        workers=settings.decode_workers or settings.cores,
        memory_bytes=settings.decode_memory_bytes,
        timeout_s=settings.decode_timeout_s,
    ) as pool:
        for fact in pool.decode(bodies()):
            facts[fact.slot] = fact
    complete = [fact for fact in facts if fact is not None]
    if len(complete) != len(photos):
        missing = [photo.key for photo, fact in zip(photos, facts, strict=True) if fact is None]
        msg = f"{len(missing)} of {len(photos)} photos got no verdict, for example {missing[0]!r}; clear this task"
        raise FatalRunError(msg)
    return complete


def check_readable(facts: Sequence[PhotoFacts], *, place: str) -> None:
    """One photo that the store refuses is that photo's fault; all of a shard's are the fault of our rights.

    Raises:
        AccessDeniedError: every one of at least three photos was refused.
    """
    if len(facts) >= _ENOUGH_TO_TELL and all(fact.reason is ReasonCode.UNREADABLE for fact in facts):
        msg = (
            f"S3 at {place} refused every one of the shard's {len(facts)} photos, for example: "
            f"{facts[0].detail}. Give the user of the Airflow connection refund_s3 the right to read (s3:GetObject)"
        )
        raise AccessDeniedError(msg)


def _quarantine(photo: PhotoObject, fact: PhotoFacts, run: NightRun, services: Services) -> str | None:
    """Copy a rejected original aside; the one under ``incoming/`` stays where it is."""
    if fact.reason is None or fact.reason in _NOT_THERE or run.params.dry_run:
        return None
    target = keys.quarantine_key(photo.key, run_date=run.run_date, reason=fact.reason.value)
    try:
        services.objects.copy(photo.key, target)
    except RejectedPhotoError as exc:  # it vanished after the download; its verdict stands
        log.warning("Could not quarantine %r: %s", photo.key, exc)
        return None
    return target


def _write_facts(
    folder: Path, photos: list[PhotoObject], facts: list[PhotoFacts], quarantined: list[str | None]
) -> None:
    from refund.imaging.pack import PHOTOS_FILE, write_photos

    write_photos(folder / PHOTOS_FILE, facts, [str(photo.photo_id) for photo in photos], quarantined)
