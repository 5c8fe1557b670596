"""The photographs of a build: some calibrate the int8 artefact, the others, the holdout, measure it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from refund.errors import LabelledSetError
from refund.model.agreement import REQUIRED_PHOTOS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MIN_PHOTOS = 8  # all of them calibrate then, and nothing is left to measure with
MIN_CALIBRATION, MAX_CALIBRATION = 16, 64  # more showed no gain on 250 photographs (decision 12)
_CHUNK = 64  # photographs in memory at a time


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CalibrationSet:
    """Decoded photographs, each once, and what is known of them; item *i* of every tuple belongs to row *i*.

    Which photographs calibrate is decided by their SHA-256 alone: the smallest do, whatever their names and order.

    Raises:
        LabelledSetError: they are too few.
        ValueError: the tuples differ in length, or a digest occurs twice.
    """

    source: str  # where they lie, for people
    pixels: NDArray[np.uint8]  # (M, H, W, 3), possibly mapped from a file
    rows: tuple[int, ...]  # of `pixels`; others are rejected or duplicates
    sha256s: tuple[str, ...]  # of the files
    class_ids: tuple[str | None, ...]  # the truth, where it is known
    categories: tuple[str | None, ...]
    rejected: int = 0  # could not be decoded

    def __post_init__(self) -> None:
        if not len(self.rows) == len(self.sha256s) == len(self.class_ids) == len(self.categories):
            msg = f"rows, digests and labels differ in number: {len(self.rows)}, {len(self.sha256s)}, "
            msg += f"{len(self.class_ids)}, {len(self.categories)}"
            raise ValueError(msg)
        if len(set(self.sha256s)) != len(self.sha256s):
            msg = "a photograph occurs twice in a calibration set; give each once"
            raise ValueError(msg)
        if len(self.rows) < MIN_PHOTOS:
            msg = (
                f"{self.source} holds {len(self.rows)} different photographs that can be decoded ({self.rejected} "
                f"cannot); calibration needs at least {MIN_PHOTOS}, and to serve int8 {MIN_CALIBRATION} and "
                f"{REQUIRED_PHOTOS} to measure with. Give more, or build without --calibrate"
            )
            raise LabelledSetError(msg)

    @property
    def calibrating(self) -> tuple[int, ...]:
        """The items that calibrate, by rising SHA-256: what a holdout of 100 leaves, but 16 to 64."""
        spare = len(self.rows) - REQUIRED_PHOTOS
        return self._ordered[: min(max(spare, MIN_CALIBRATION), MAX_CALIBRATION)]

    @property
    def holdout(self) -> tuple[int, ...]:
        """The other items, by rising SHA-256."""
        return self._ordered[len(self.calibrating) :]

    @property
    def sha256(self) -> str:
        """Hex digest of the calibrating photographs' own, in order."""
        return sha256("".join(f"{self.sha256s[item]}\n" for item in self.calibrating).encode()).hexdigest()

    @property
    def facts(self) -> dict[str, Any]:
        """What the card says of them."""
        return {
            "photos": len(self.calibrating),
            "holdout_photos": len(self.holdout),
            "rejected_photos": self.rejected,
            "sha256": self.sha256,
            "source": self.source,
        }

    def pixels_of(self, items: Sequence[int]) -> NDArray[np.uint8]:
        """The pixels of some items, copied, ``(len(items), H, W, 3) uint8``."""
        return self.pixels[[self.rows[item] for item in items]]

    def chunks(self, items: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """The pixels of many items, a few at a time and in order."""
        for start in itertools.count(0, _CHUNK):
            if start >= len(items):
                return
            yield self.pixels_of(items[start : start + _CHUNK])

    @property
    def _ordered(self) -> tuple[int, ...]:
        return tuple(sorted(range(len(self.rows)), key=lambda item: self.sha256s[item]))
