"""Runs the network over a pack block by block, and over smaller blocks where memory runs out all the same."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar

from refund.errors import MemoryShortageError
from refund.night.room import InferenceRoom, ran_out_note

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from refund.model.load import Model, Predicted

Judged = TypeVar("Judged")


def in_blocks(
    model: Model,
    pixels: NDArray[np.uint8],
    slots: NDArray[np.intp],
    *,
    room: InferenceRoom,
    judge: Callable[[NDArray[np.intp], Predicted], Judged],
    say: Callable[[str], None],
) -> Generator[Judged, None, None]:
    """Predict the rows ``slots`` of ``pixels`` and give what ``judge`` makes of each block, in order, each row once.

    Where memory runs out, in the network or in ``judge``, what was not given yet is tried again in blocks of half as
    many photos, and ``say`` gets a note of it. Close it where it is not read to its end.

    Raises:
        MemoryShortageError: memory runs out over a single photo.
    """
    block_photos, done = room.block_photos, 0
    while done < len(slots):
        blocks = [slots[start : start + block_photos] for start in range(done, len(slots), block_photos)]
        batch_size = min(room.batch_size, block_photos)
        try:
            with closing(model.predict_blocks(pixels, blocks, batch_size=batch_size)) as predicted:
                for block, found in zip(blocks, predicted, strict=True):
                    judged = judge(block, found)
                    done += len(block)
                    yield judged
        except MemoryError as exc:
            if block_photos == 1:
                msg = (
                    f"memory ran out over a single photo ({exc}). The task is tried again; where that does not help, "
                    f"give the worker more memory or fewer tasks at once, then clear the task"
                )
                raise MemoryShortageError(msg) from exc
            say(ran_out_note(block_photos))
            block_photos //= 2
