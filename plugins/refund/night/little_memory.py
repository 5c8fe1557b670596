"""What the heavy tasks do before they begin: see what memory there is, plan with it, and say it where it is little."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from refund.errors import MemoryShortageError, NotEnoughMemoryError, ReasonCode
from refund.night.room import (
    DecodingRoom,
    InferenceRoom,
    TaskMemory,
    note_is_new,
    plan_decoding,
    plan_inference,
)
from refund.night.services import Services

if TYPE_CHECKING:
    from pathlib import Path

    from refund.records import PhotoFacts, PhotoObject
    from refund.settings import Settings

log = logging.getLogger(__name__)


def decoding_room(services: Services, *, photos: int) -> DecodingRoom:
    """What `validate` may take here for so many photos.

    Raises:
        MemoryShortageError: less than the least is free.
        NotEnoughMemoryError: a limit leaves less than the least.
    """
    settings = services.settings
    return plan_decoding(
        _memory(services),
        children=settings.decode_workers or settings.cores,
        child_bytes=settings.decode_memory_bytes,
        limits=settings.limits,
        photos=photos,
    )


def inference_room(services: Services, *, unit: Path, batch_size: int, photos: int) -> InferenceRoom:
    """What `classify` may take here for so many photos, with the model in the folder ``unit``.

    Raises:
        ModelArtefactError: there is no model in it.
        MemoryShortageError: less than the least is free.
        NotEnoughMemoryError: a limit leaves less than the least.
    """
    from refund.model.load import read_card

    card = read_card(unit)
    artefact = unit / card.artefact_file
    return plan_inference(
        _memory(services),
        threads=services.settings.inference_threads or services.settings.cores,
        artefact_bytes=artefact.stat().st_size if artefact.exists() else 0,  # gone: load_model says so
        pixel_bytes=card.input_height * card.input_width * 3,
        batch_size=batch_size,
        photos=photos,
    )


def check_room(
    photos: Sequence[PhotoObject], facts: Sequence[PhotoFacts], *, room: DecodingRoom, settings: Settings
) -> None:
    """No photo is rejected because this worker is small: with more memory it may be a good one.

    Raises:
        MemoryShortageError: some need more than ``room`` has for one, and are allowed it by ``decode_memory_bytes``.
        NotEnoughMemoryError: the same, and a limit says that no other try has more.
    """
    if room.every_photo:
        return
    swelled = [fact for fact in facts if fact.reason is ReasonCode.DECODE_MEMORY]
    if swelled:
        msg = (
            f"this worker has {room.child_bytes / 1e6:,.0f} MB for one decoder, decode_memory_bytes allows it "
            f"{settings.decode_memory_bytes / 1e6:,.0f} MB, and {len(swelled)} of {len(photos)} photos need more than "
            f"there is, for example {photos[swelled[0].slot].key!r}. Clear the task on a worker with more memory; or "
            f"set REFUND_DECODE_MEMORY_BYTES={room.child_bytes}, so that such photos are rejected"
        )
        raise NotEnoughMemoryError(msg) if room.lasting else MemoryShortageError(msg)


def say_little_memory(note: str | None, run_id: str, services: Services) -> None:
    """Log it, and note it on the run unless another shard of the same task has by now."""
    if note is None:
        return
    log.warning("%s", note)
    if note_is_new(note, services.repository.require_run(run_id).notes):
        services.repository.add_notes(run_id, [note])


@contextmanager
def memory_told(task: str) -> Iterator[None]:
    """Say it clearly where memory runs out in the task's own process, whatever it was doing.

    Raises:
        MemoryShortageError: it did.
    """
    try:
        yield
    except MemoryError as exc:
        msg = (
            f"{task} ran out of memory in its own process ({str(exc) or 'a small piece was refused'}). The task is "
            f"tried again; where that does not help, give the worker more memory or fewer tasks at once, then clear "
            f"the task"
        )
        raise MemoryShortageError(msg) from exc


def _memory(services: Services) -> TaskMemory:
    return TaskMemory.of(services.free_memory(), most_bytes=services.settings.task_memory_bytes)
