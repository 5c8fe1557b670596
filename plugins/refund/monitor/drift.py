"""Says whether a night differs from the nights before it by more than chance and by enough to matter.

Four measures: the category shares as a whole, the largest move of one category, the number of photos, and the share of
them that was rejected. A measure is drift exactly where its distance exceeds its threshold, the larger of a floor (what
matters, set by an operator) and of what chance alone exceeds at the measure's part of the stated false-alarm rate.
Chance includes how much the nights of the window differ by nature, and how uncertain that estimate is: docs/drift.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from refund.monitor.dispersion import KnownDispersion

CATEGORY_SHARES = "category_shares"  # Jensen-Shannon distance (base 2) of the shares, rare categories folded: 0 to 1
LARGEST_MOVE = "largest_move"  # largest absolute change of one category's share: 0 to 1
VOLUME = "volume"  # photos, classified and rejected: 1 - smaller / larger of tonight and usual, 0 to 1
REJECTION_RATE = "rejection_rate"  # absolute change of the share of photos that was rejected: 0 to 1
MEASURES = (CATEGORY_SHARES, LARGEST_MOVE, VOLUME, REJECTION_RATE)

SAME_WEEKDAY = "same_weekday"
ALL_NIGHTS = "all_nights"

DRAWS = 9_999


class DriftStatus(StrEnum):
    """The verdict on one night."""

    OK = "ok"
    DRIFT = "drift"
    INSUFFICIENT_DATA = "insufficient_data"  # tonight or the reference has too few photos to tell
    NO_REFERENCE = "no_reference"  # no earlier night to compare with


@dataclass(frozen=True, slots=True, kw_only=True)
class NightCounts:
    """What one night is judged by."""

    run_date: date
    categories: Mapping[str, int]  # classified photos by category
    rejected: int  # photos

    def __post_init__(self) -> None:
        for name, count in self.categories.items():
            _check_count(count, f"{self.run_date}: photos of {name!r}")
        _check_count(self.rejected, f"{self.run_date}: rejected photos")

    @property
    def classified(self) -> int:
        """Photos with a category."""
        return int(sum(self.categories.values()))

    @property
    def photos(self) -> int:
        """Photos with a category and rejected ones."""
        return self.classified + int(self.rejected)


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftLimits:
    """What an operator sets: when a change matters, and how often a false alarm may happen."""

    alpha: float = 0.02  # false alarms of the whole family of measures, per night without drift
    distance_floor: float = 0.1  # of category_shares
    move_floor: float = 0.03  # of largest_move: three points
    volume_floor: float = 0.3  # of volume: 30 % fewer photos, or usual being 30 % fewer than tonight (43 % more)
    rejection_floor: float = 0.02  # of rejection_rate: two points
    min_photos: int = 100  # fewer tonight, or in the whole reference: insufficient_data

    def __post_init__(self) -> None:
        if not 0.0 < self.alpha < 1.0:
            msg = f"alpha must lie between 0 and 1, got {self.alpha!r}"
            raise ValueError(msg)
        for name in ("distance_floor", "move_floor", "volume_floor", "rejection_floor"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                msg = f"{name} must lie in 0..1, got {getattr(self, name)!r}"
                raise ValueError(msg)
        if not self.min_photos >= 1:
            msg = f"min_photos must be at least 1, got {self.min_photos!r}"
            raise ValueError(msg)

    def floor(self, measure: str) -> float:
        """The distance up to which the measure is never drift."""
        return {
            CATEGORY_SHARES: self.distance_floor,
            LARGEST_MOVE: self.move_floor,
            VOLUME: self.volume_floor,
            REJECTION_RATE: self.rejection_floor,
        }[measure]


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryMove:
    """How one category's share changed; shares are ratios, 0 to 1."""

    category: str
    tonight_share: float
    reference_share: float

    @property
    def change(self) -> float:
        """Tonight's share minus the reference's, -1 to 1."""
        return self.tonight_share - self.reference_share


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftResult:
    """One measure: the verdict, the figures behind it and the threshold that was applied.

    ``status`` is ``drift`` exactly where ``distance > threshold``, and ``threshold`` is the larger of ``floor`` and
    ``chance``. Where there is nothing to judge, these figures are None and there are no moves.
    """

    measure: str  # one of MEASURES
    status: DriftStatus
    distance: float | None  # 0 to 1; what it measures: MEASURES
    threshold: float | None
    p_value: float | None  # probability of at least this distance without drift, for this measure alone
    tonight_photos: int  # classified; with the rejected ones where the measure speaks of them
    reference_photos: int  # the same, of the nights compared with
    reference_nights: int  # nights compared with
    floor: float | None = None  # distance up to which a change never matters
    alpha: float | None = None  # stated rate of false alarms of the night's whole family of measures
    overdispersion: float | None = None  # between the window's nights beyond chance, 0: none; None: not estimated
    total_variation: float | None = None  # half the sum of absolute moves, not folded: share of photos that moved
    folded: tuple[str, ...] = ()  # categories that were too rare to be compared one by one
    moves: tuple[CategoryMove, ...] = ()  # category_shares: all, largest first; largest_move: that one
    tonight_value: float | None = None  # photos (volume), ratio (rejection_rate) or the moved category's share
    reference_value: float | None = None  # the same of the nights compared with; volume: geometric mean
    chance: float | None = None  # distance that chance alone exceeds at the rate alpha_part
    alpha_part: float | None = None  # of alpha, what this measure may spend
    nights: tuple[str, ...] = ()  # dates compared with, oldest first, as 2026-11-21
    basis: str | None = None  # same_weekday or all_nights
    overdispersion_assumed: float | None = None  # used because one night alone cannot show how nights differ

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The result whose `dataclasses.asdict` went through JSON; fields that an older release lacked are absent."""
        known = {name: value for name, value in values.items() if name in cls.__dataclass_fields__}
        return cls(
            **known
            | {
                "status": DriftStatus(values["status"]),
                "folded": tuple(values["folded"]),
                "moves": tuple(CategoryMove(**move) for move in values["moves"]),
                "nights": tuple(values.get("nights", ())),
            }
        )

    def details(self) -> dict[str, Any]:
        """What the column ``refund.drift.details`` keeps beside the columns of its own, as JSON values."""
        return {
            "total_variation": self.total_variation,
            "folded": list(self.folded),
            "moves": [asdict(move) for move in self.moves],
            "tonight_value": self.tonight_value,
            "reference_value": self.reference_value,
            "chance": self.chance,
            "alpha_part": self.alpha_part,
            "nights": list(self.nights),
            "basis": self.basis,
            "overdispersion_assumed": self.overdispersion_assumed,
        }


def judge_night(
    tonight: NightCounts,
    window: Sequence[NightCounts],
    *,
    limits: DriftLimits,
    known: KnownDispersion | None = None,
    draws: int = DRAWS,
) -> tuple[DriftResult, ...]:
    """Every measure of one night against the nights of the window, in the order of `MEASURES`.

    Args:
        tonight: the night.
        window: earlier nights of the same model and taxonomy, in any order; those without photos are left out.
        limits: what an operator set.
        known: overdispersion, where a simulation knows it; None, the rule: estimated from the window.
        draws: bootstrap draws.

    Raises:
        ValueError: a night of the window is not earlier than tonight or is there twice, or there are too few draws.
    """
    from refund.monitor.drift_family import compare_night

    return compare_night(tonight, window, min_photos=limits.min_photos, known=known, draws=draws).judge(limits)


def compare_shares(
    tonight: Mapping[str, int],
    reference: Sequence[Mapping[str, int]],
    *,
    distance_floor: float,
    min_photos: int,
    alpha: float = 0.02,
    draws: int = DRAWS,
) -> DriftResult:
    """Compare category shares of nights without dates: the first result of `judge_night`, with consecutive dates.

    ``alpha`` is the rate of the whole family, as there; the shares' part of it is in ``alpha_part``.
    """
    first = date(2000, 1, 1)
    nights = [
        NightCounts(run_date=first + timedelta(days=number), categories=counts, rejected=0)
        for number, counts in enumerate((*reference, tonight))
    ]
    limits = DriftLimits(alpha=alpha, distance_floor=distance_floor, min_photos=min_photos)
    return judge_night(nights[-1], nights[:-1], limits=limits, draws=draws)[0]


def _check_count(count: int, where: str) -> None:
    # `not >= 0` also refuses NaN; floats from a data frame are taken where they are whole
    if not count >= 0 or math.isinf(count) or count != count // 1:
        msg = f"{where} must be a whole number from 0 up, got {count!r}"
        raise ValueError(msg)
