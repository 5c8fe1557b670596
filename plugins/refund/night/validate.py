"""First half of a shard: download each photo once, decode it in isolation, leave a pack, quarantine the rejects."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from refund import keys
from refund.errors import AccessDeniedError, ReasonCode, RejectedPhotoError
from refund.monitor.latency import Latencies
from refund.night.decoding import decode_bodies
from refund.night.little_memory import check_room, decoding_room, memory_told, say_little_memory
from refund.night.services import NightRun, Services, ShardLayout, Stopwatch, dump
from refund.night.shard_model import model_in_force, rollback_note
from refund.night.staged import STAGE_FILE, manifest_photos, read_manifest
from refund.records import PhotoFacts, PhotoObject
from refund.store.parallel import in_order

if TYPE_CHECKING:
    from datetime import date
    from pathlib import Path

    from refund.night.room import DecodingRoom
    from refund.store.objects import ObjectStore

log = logging.getLogger(__name__)

_ENOUGH_TO_TELL = 3  # photos; with fewer, all refused may be chance
_DOWNLOADS_AT_ONCE = 16
# nothing of this version is left to quarantine, or the store does not let us
_NOT_THERE = frozenset({ReasonCode.VANISHED, ReasonCode.CHANGED, ReasonCode.UNREADABLE})
_TELLS_NO_RIGHTS = frozenset({ReasonCode.FILE_TOO_LARGE, ReasonCode.VANISHED})


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidatedShard:
    """What a shard's validation left behind."""

    shard_uri: str
    model: str  # name@version that the pack is made for
    photos: int
    rejected: int

    def as_xcom(self) -> dict[str, Any]:
        """Plain values for XCom."""
        return {"shard_uri": self.shard_uri, "model": self.model, "photos": self.photos, "rejected": self.rejected}


@memory_told("validate")
def validate_shard(shard_uri: str, *, run: NightRun, services: Services) -> ValidatedShard:
    """Make the pack of one shard: pixels of the good photos, a row of facts for every photo.

    This fixes the shard's model, see `refund.night.shard_model.model_in_force`: the pixels have the size that it takes,
    the pack names it, and classify uses that one, also when it is tried again.

    Raises:
        StagingMissingError: the manifest is gone.
        DecoderPoolError: the isolated interpreter cannot run.
        MemoryShortageError: less than the least is free, or less than one of the photos needs.
        NotEnoughMemoryError: the same, and a limit says that no other try finds more.
        RetriableRunError: S3 cannot be reached.
    """
    watch = Stopwatch()
    layout = ShardLayout(shard_uri)
    with services.staging.readable_folder(layout.manifest) as folder:
        photos = manifest_photos(read_manifest(folder))
    row = services.repository.require_run(run.run_id)
    model = model_in_force(row, services)
    room = decoding_room(services, photos=len(photos))
    say_little_memory(room.note, run.run_id, services)
    with services.staging.writable_folder(layout.pack) as folder:
        size = (model.card.input_width, model.card.input_height)
        facts, latencies = decode_photos(photos, folder, services, size=size, room=room)
        check_readable(facts, place=services.objects.access.place)
        check_room(photos, facts, room=room, settings=services.settings)
        quarantined: Sequence[str | None] = [None] * len(photos)
        if not run.params.dry_run:
            quarantined = quarantine(photos, facts, services.objects, run_date=run.run_date)
        rejected = sum(not fact.ok for fact in facts)
        _write_facts(folder, photos, facts, quarantined)
        stage = {"seconds": watch.seconds, "photos": len(photos), "rejected": rejected, "model": model.model}
        (folder / STAGE_FILE).write_bytes(dump(stage | {"latencies": latencies.to_json()}))
    if model.model != row.model:
        services.repository.add_notes(run.run_id, [rollback_note(row, model.model)])
    log.info("Validated %s photos for %s, rejected %s, in %.1f s", len(photos), model.model, rejected, watch.seconds)
    return ValidatedShard(shard_uri=shard_uri, model=model.model, photos=len(photos), rejected=rejected)


def decode_photos(
    photos: list[PhotoObject], folder: Path, services: Services, *, size: tuple[int, int], room: DecodingRoom
) -> tuple[list[PhotoFacts], Latencies]:
    """Download and decode to ``size`` (width, height); return a `PhotoFacts` per photo, in order, and their latencies.

    The pixels go to ``pixels.npy`` in ``folder``. A photo's latency is its requests to S3 and its time in a decoding
    child, without what it waits between them: bodies are fetched ahead, so that wait says how deep the queue is. Photos
    that were never asked for have none.

    Raises:
        DecoderPoolError: the isolated interpreter cannot run.
    """
    from refund.imaging.pack import PIXELS_FILE

    settings = services.settings
    spent_s = [0.0] * len(photos)
    downloads = services.objects.get_many(
        photos,
        max_bytes=settings.max_bytes,
        max_in_flight_bytes=room.ahead_bytes,
        concurrency=_DOWNLOADS_AT_ONCE,
        spent_s=spent_s,
    )
    facts = decode_bodies(
        downloads, count=len(photos), pixels_path=folder / PIXELS_FILE, settings=settings, size=size, room=room
    )
    asked = [(fact, spent) for fact, spent in zip(facts, spent_s, strict=True) if spent]
    return facts, Latencies.of([spent * 1000 + (fact.decode_ms or 0.0) for fact, spent in asked])


def check_readable(facts: Sequence[PhotoFacts], *, place: str) -> None:
    """One photo that the store refuses is that photo's fault; all of a shard's are the fault of our rights.

    Photos that tell nothing of our rights do not count: those too large to be asked for, and those that are gone.

    Raises:
        AccessDeniedError: every one of at least three photos was refused.
    """
    asked = [fact for fact in facts if fact.reason not in _TELLS_NO_RIGHTS]
    if len(asked) >= _ENOUGH_TO_TELL and all(fact.reason is ReasonCode.UNREADABLE for fact in asked):
        msg = (
            f"S3 at {place} refused every one of the shard's {len(asked)} photos, for example: "
            f"{asked[0].detail}. Give the user of the Airflow connection refund_s3 the right to read (s3:GetObject)"
        )
        raise AccessDeniedError(msg)


def quarantine(
    photos: Sequence[PhotoObject], facts: Sequence[PhotoFacts], objects: ObjectStore, *, run_date: date
) -> list[str | None]:
    """Copy the rejected originals aside, the very versions that were judged; those under ``incoming/`` stay.

    Returns the key of each photo's copy, in order; None where it was accepted or there is nothing to copy.

    Raises:
        RetriableRunError: S3 does not answer. Some copies may lie there; another try writes them anew.
    """
    targets = [
        None
        if fact.reason is None or fact.reason in _NOT_THERE
        else keys.quarantine_key(photo.key, etag=photo.etag, run_date=run_date, reason=fact.reason.value)
        for photo, fact in zip(photos, facts, strict=True)
    ]

    def copy(wanted: tuple[PhotoObject, str]) -> str | None:
        photo, target = wanted
        try:
            objects.copy(photo.key, target, etag=photo.etag)
        except RejectedPhotoError as exc:  # gone or overwritten since the download; its verdict stands
            log.warning("Could not quarantine %r: %s", photo.key, exc)
            return None
        return target

    wanted = [(photo, target) for photo, target in zip(photos, targets, strict=True) if target is not None]
    copied = iter(list(in_order(copy, wanted, name="s3-copy")))
    return [None if target is None else next(copied) for target in targets]


def _write_facts(
    folder: Path, photos: list[PhotoObject], facts: list[PhotoFacts], quarantined: Sequence[str | None]
) -> None:
    from refund.imaging.pack import PHOTOS_FILE, write_photos

    write_photos(folder / PHOTOS_FILE, facts, [str(photo.photo_id) for photo in photos], quarantined)
