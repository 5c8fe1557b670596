"""Plans what a heavy task takes in memory: the usual where there is enough, smaller batches where there is not.

Nothing here looks at the machine: `refund.night.free_memory` does. The figures are peaks that were measured
(docs/performance.md, "Memory"), above what the task's process holds when it begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from refund.errors import MemoryShortageError, NotEnoughMemoryError, RefundError
from refund.night.free_memory import PROCESS, FreeMemory
from refund.records import ImageLimits
from refund.settings import Settings

HEAVY_TASKS_AT_ONCE = 2  # validate and classify of other shards, on one worker: slots of the pool refund_inference
BLOCK_PHOTOS = 256  # photos held at once while they are classified: 40 MB of pixels at 224 × 224
AHEAD_BYTES = 64 * 1024 * 1024  # bodies downloaded ahead of decoding
ARENA_BYTES = 32 * 1024 * 1024  # bodies shared with the decoders: two of the largest that are taken by default

_MB = 1_000_000
_SPARE_RATIO = 0.1  # of what is free: what others come to need while the task runs
_TASK_BYTES = 80 * _MB  # libraries that the task loads, buffers of its connections
_PHOTO_ROW_BYTES = 6_000  # what is known of one photo, held until its shard is written
_BODY_COPIES = 2  # a body that arrives lies in the connection's buffers, too
_INTERPRETER_BYTES = 60 * _MB
_CHILD_CODE_BYTES = 200 * _MB  # address space that a child has mapped before its first photo
_PICTURE_BYTES_PER_PIXEL = 30  # the most of any picture that is taken: lossless WebP with transparency, 28
_LEAST_PICTURE_BYTES = 64 * _MB  # enough for every ordinary photo; a phone's 12 megapixels need 20
_SCORED_BYTES = 24_000  # scores and decision of one photo of a block
_BLOCKS_HELD = 2  # one in the network, one being decided
_LEAST_BLOCK_PHOTOS = 16  # below that, threads go before photos


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskMemory:
    """How much one task may take, and how that was found, as notes and errors say it."""

    room_bytes: int
    found: str
    most_bytes: int | None = None  # that another try can ever find; None: not known
    undivided: TaskMemory | None = None  # what there is without a share for a second task; None: this is not a share

    @classmethod
    def of(cls, free: FreeMemory, *, most_bytes: int) -> TaskMemory:
        """This task's share of what is free, at most ``most_bytes`` where that is not 0.

        Where the operator has said how much a task may take, tasks side by side are thought of already.
        """
        spared = int(free.free_bytes * (1 - _SPARE_RATIO))
        seen = f"{_mb(free.free_bytes)} that {free.held_by} leaves free"
        most = min((most for most in (most_bytes, free.most_bytes) if most), default=None)
        if 0 < most_bytes <= spared:
            return cls(room_bytes=most_bytes, found="the setting task_memory_bytes", most_bytes=most)
        whole = cls(room_bytes=spared, found=seen, most_bytes=most)
        if most_bytes or free.held_by == PROCESS:
            return whole
        share = f"one of {HEAVY_TASKS_AT_ONCE} tasks' shares of {seen}"
        return cls(room_bytes=spared // HEAVY_TASKS_AT_ONCE, found=share, most_bytes=most, undivided=whole)

    def shortage(self, message: str, *, needed_bytes: int) -> RefundError:
        """The error of a task that needs more: one that is tried again, unless a limit says that no try finds it."""
        if self.most_bytes is not None and self.most_bytes < needed_bytes:
            return NotEnoughMemoryError(f"{message}; then clear the task")
        return MemoryShortageError(f"{message}. The task is tried again; where that does not help, clear it then")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodingRoom:
    """What `validate` takes."""

    children: int
    child_bytes: int  # address space of one
    ahead_bytes: int
    arena_bytes: int
    every_photo: bool  # whether a child can decode every photo that the limits allow; if not, none is rejected for it
    lasting: bool  # whether a limit says that no other try can find room for every photo
    note: str | None  # what to say of it; None: nothing is out of the ordinary


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceRoom:
    """What `classify` takes."""

    threads: int
    block_photos: int
    batch_size: int
    note: str | None


def plan_decoding(
    memory: TaskMemory, *, children: int, child_bytes: int, limits: ImageLimits, photos: int
) -> DecodingRoom:
    """Room for decoding ``photos`` photos with at most so many children of so much address space.

    First less is read ahead, then there are fewer children, then the last child may take less than the largest photo
    that ``limits`` allow can need: see docs/decisions/0021-too-little-memory.md. Where a task's share is less than the
    least, it takes what the other task would have.

    Raises:
        MemoryShortageError: less than the least is free.
        NotEnoughMemoryError: a limit leaves less than the least.
    """
    children = max(1, min(children, photos))
    picture_bytes = min(child_bytes, _PICTURE_BYTES_PER_PIXEL * limits.max_side_px**2 + limits.max_bytes)
    fixed_bytes = _TASK_BYTES + _INTERPRETER_BYTES + _PHOTO_ROW_BYTES * photos

    def arena_bytes(ahead_bytes: int) -> int:
        return max(ARENA_BYTES * ahead_bytes // AHEAD_BYTES, limits.max_bytes)

    def needed(count: int, ahead_bytes: int) -> int:
        return fixed_bytes + _BODY_COPIES * ahead_bytes + arena_bytes(ahead_bytes) + count * picture_bytes

    aheads = _halves(AHEAD_BYTES, least=limits.max_bytes)
    ladder = [(children, ahead) for ahead in aheads] + [(count, aheads[-1]) for count in range(children - 1, 0, -1)]
    usual_bytes = needed(*ladder[0])
    least_picture_bytes = min(picture_bytes, _LEAST_PICTURE_BYTES)
    least_bytes = needed(0, aheads[-1]) + least_picture_bytes
    memory, changes = _at_least(least_bytes, memory, task="validate", usual_bytes=usual_bytes)
    taken = next((step for step in ladder if needed(*step) <= memory.room_bytes), ladder[-1])
    count, ahead_bytes = taken
    left_bytes = (memory.room_bytes - needed(0, ahead_bytes)) // count
    every_photo = left_bytes >= picture_bytes
    changes += _change(count, children, "decoding child", "decoding children")
    changes += _change(ahead_bytes >> 20, aheads[0] >> 20, "MB read ahead")
    if not every_photo:
        changes.append(f"{_mb(left_bytes)} for one picture instead of {_mb(picture_bytes)}")
    return DecodingRoom(
        children=count,
        child_bytes=min(child_bytes, _CHILD_CODE_BYTES + left_bytes),
        ahead_bytes=ahead_bytes,
        arena_bytes=arena_bytes(ahead_bytes),
        every_photo=every_photo,
        lasting=memory.most_bytes is not None and memory.most_bytes < needed(1, aheads[-1]),
        note=_note("validate", memory, usual_bytes=usual_bytes, changes=changes),
    )


def usual_decoding(settings: Settings, *, photos: int) -> DecodingRoom:
    """The usual, whatever there is: for photos that people hand in one by one, or a few at a time."""
    return DecodingRoom(
        children=max(1, min(settings.decode_workers or settings.cores, photos)),
        child_bytes=settings.decode_memory_bytes,
        ahead_bytes=AHEAD_BYTES,
        arena_bytes=ARENA_BYTES,
        every_photo=True,
        lasting=False,
        note=None,
    )


def plan_inference(
    memory: TaskMemory, *, threads: int, artefact_bytes: int, pixel_bytes: int, batch_size: int, photos: int
) -> InferenceRoom:
    """Room for classifying ``photos`` photos of ``pixel_bytes`` each with at most so many interpreters.

    First blocks get smaller, then there are fewer threads, then blocks of a single photo. Where a task's share is less
    than the least, it takes what the other task would have.

    Raises:
        MemoryShortageError: less than the least is free.
        NotEnoughMemoryError: a limit leaves less than the least.
    """

    def needed(count: int, block_photos: int) -> int:
        interpreters = artefact_bytes + count * (2 * artefact_bytes + 8 * _MB)
        rows = _TASK_BYTES + _PHOTO_ROW_BYTES * photos
        return rows + interpreters + _BLOCKS_HELD * block_photos * (pixel_bytes + _SCORED_BYTES)

    usual = (threads, BLOCK_PHOTOS)
    ladder = [(threads, block) for block in _halves(BLOCK_PHOTOS, least=_LEAST_BLOCK_PHOTOS)]
    ladder += [(count, _LEAST_BLOCK_PHOTOS) for count in range(threads - 1, 0, -1)]
    ladder += [(1, block) for block in _halves(_LEAST_BLOCK_PHOTOS // 2, least=1)]
    usual_bytes = needed(*usual)
    memory, changes = _at_least(needed(1, 1), memory, task="classify", usual_bytes=usual_bytes)
    taken = next(step for step in ladder if needed(*step) <= memory.room_bytes)
    changes += _change(taken[1], BLOCK_PHOTOS, "photo at once", "photos at once")
    changes += _change(taken[0], threads, "thread", "threads")
    note = _note("classify", memory, usual_bytes=usual_bytes, changes=changes)
    return InferenceRoom(threads=taken[0], block_photos=taken[1], batch_size=min(batch_size, taken[1]), note=note)


def ran_out_note(block_photos: int) -> str:
    """What to say where memory ran out in the middle of `classify`."""
    return (
        f"{_opening('classify')}it ran out over {block_photos} photos at once. It goes on with {block_photos // 2}: no "
        f"verdict changes, it takes longer. {_REMEDY}"
    )


def note_is_new(note: str, notes: Sequence[str]) -> bool:
    """Whether a run does not say this of the same task yet: one shard's figures are enough."""
    return not any(known.startswith(_opening(note.partition(" ")[0])) for known in notes)


def _halves(usual: int, *, least: int) -> list[int]:
    """``usual`` and its halves down to ``least``, which may be more than usual."""
    found = [max(usual, least)]
    while found[-1] > least:
        found.append(max(found[-1] // 2, least))
    return found


def _change(taken: int, usual: int, one: str, many: str | None = None) -> list[str]:
    if taken == usual:
        return []
    return [f"{taken} {one if taken == 1 else many or one} instead of {usual}"]


def _opening(task: str) -> str:
    return f"{task} met little memory: "


def _at_least(least_bytes: int, memory: TaskMemory, *, task: str, usual_bytes: int) -> tuple[TaskMemory, list[str]]:
    """The memory to plan with, and what a note says where that is not the task's share.

    A task that began a moment earlier has taken its share of what is free already; the next one would halve the rest.
    """
    if memory.room_bytes >= least_bytes:
        return memory, []
    whole = memory.undivided or memory
    if whole.room_bytes >= least_bytes:
        return whole, ["all of it instead of a share"]
    msg = (
        f"{task} may take {_mb(whole.room_bytes)} of memory ({whole.found}), it needs at least {_mb(least_bytes)} "
        f"and usually {_mb(usual_bytes)}. {_REMEDY}"
    )
    raise whole.shortage(msg, needed_bytes=least_bytes)


def _note(task: str, memory: TaskMemory, *, usual_bytes: int, changes: list[str]) -> str | None:
    if not changes:
        return None
    return (
        f"{_opening(task)}{_mb(memory.room_bytes)} ({memory.found}), usual are {_mb(usual_bytes)}. It took "
        f"{', '.join(changes)}: no verdict changes, it takes longer. {_REMEDY}"
    )


_REMEDY = (
    "Give the worker more memory or fewer tasks at once, or say by REFUND_TASK_MEMORY_BYTES how much one task may take"
)


def _mb(amount_bytes: int) -> str:
    return f"{amount_bytes / _MB:,.0f} MB"
