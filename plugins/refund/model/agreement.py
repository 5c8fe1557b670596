"""How far an int8 artefact agrees with the float32 one it was made from: the gate before it may be served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

REQUIRED_RATIO = 0.95  # of the holdout's photographs must get the same top class
REQUIRED_PHOTOS = 100  # in the holdout; a ratio of fewer says too little
PASSED, FAILED, NOT_ASSESSED = "passed", "failed", "not_assessed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """On how many holdout photographs two artefacts name the same top class, and what follows.

    ``state`` follows from the figures: ``not_assessed`` below ``required_photos``, else ``passed`` or ``failed``.

    Raises:
        ValueError: a figure is malformed, or the state is not what the figures say.
    """

    state: str  # passed, failed, not_assessed
    reference: str  # name@version of the float32 model
    photos: int  # in the holdout
    top1_ratio: float | None  # None where the holdout is empty
    required_ratio: float = REQUIRED_RATIO
    required_photos: int = REQUIRED_PHOTOS

    def __post_init__(self) -> None:
        ratio = self.top1_ratio
        if not isinstance(self.photos, int) or self.photos < 0:
            msg = f"photos of an agreement must be 0 or more, got {self.photos!r}"
            raise ValueError(msg)
        if (ratio is None) != (self.photos == 0):
            msg = f"top1_ratio of an agreement must be None exactly where photos is 0, got {ratio!r} of {self.photos}"
            raise ValueError(msg)
        if ratio is not None and not 0.0 <= ratio <= 1.0:  # also refuses NaN
            msg = f"top1_ratio of an agreement must lie in 0..1, got {ratio!r}"
            raise ValueError(msg)
        if self.state != (expected := _state(self.photos, ratio, self.required_photos, self.required_ratio)):
            msg = f"state of an agreement must be {expected}, as its figures say, got {self.state!r}"
            raise ValueError(msg)

    @classmethod
    def of(cls, *, reference: str, photos: int, agreeing: int) -> Self:
        """The agreement of a holdout of ``photos``, of which ``agreeing`` got the same top class."""
        ratio = agreeing / photos if photos else None
        state = _state(photos, ratio, REQUIRED_PHOTOS, REQUIRED_RATIO)
        return cls(state=state, reference=reference, photos=photos, top1_ratio=ratio)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Read what a card holds.

        Raises:
            ValueError: a field is missing, unknown or malformed.
        """
        names = {spec.name for spec in fields(cls)}
        if names != set(values):
            msg = f"agreement must have the fields {', '.join(sorted(names))}, got {', '.join(sorted(values))}"
            raise ValueError(msg)
        try:
            return cls(**values)
        except TypeError as exc:  # a text where a number belongs
            msg = f"agreement must hold numbers, got {dict(values)}"
            raise ValueError(msg) from exc

    @property
    def convinces(self) -> bool:
        """Whether it passed by what is required here; a card from outside may say that less was required."""
        asked = self.required_ratio >= REQUIRED_RATIO and self.required_photos >= REQUIRED_PHOTOS
        return self.state == PASSED and asked

    @property
    def sentence(self) -> str:
        """What was found, for people."""
        if self.top1_ratio is None:
            return "no photographs were left to compare int8 with float32"
        seen = (
            f"int8 names the same top class as float32 on {round(self.top1_ratio * self.photos)} of {self.photos} "
            f"photographs ({self.top1_ratio:.1%})"
        )
        return f"{seen}; required are {REQUIRED_RATIO:.0%} of at least {REQUIRED_PHOTOS}"


def _state(photos: int, ratio: float | None, required_photos: int, required_ratio: float) -> str:
    if ratio is None or photos < required_photos:
        return NOT_ASSESSED
    return PASSED if ratio >= required_ratio else FAILED
