"""Says whether a night differs from the nights before it by more than chance and by enough to matter.

Four measures: the category shares as a whole, the largest move of one category, the number of photos, and the share of
them that was rejected. A measure is drift exactly where its distance exceeds its threshold, the larger of a floor (what
matters, set by an operator) and of what chance alone exceeds at the measure's part of the stated false-alarm rate.
Chance includes how much the nights of the window differ by nature, and how uncertain that estimate is: docs/drift.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CATEGORY_SHARES = "category_shares"  # Jensen-Shannon distance (base 2) of the shares, rare categories folded: 0 to 1
LARGEST_MOVE = "largest_move"  # largest absolute change of one category's share: 0 to 1
VOLUME = "volume"  # photos, classified and rejected: 1 - smaller / larger of tonight and usual, 0 to 1
REJECTION_RATE = "rejection_rate"  # absolute change of the share of photos that was rejected: 0 to 1
MEASURES = (CATEGORY_SHARES, LARGEST_MOVE, VOLUME, REJECTION_RATE)

SAME_WEEKDAY = "same_weekday"
ALL_NIGHTS = "all_nights"

RARE_COUNT = 5  # a category expected fewer times than this in the smaller sample, by either's shares, is folded
_DRAWS = 9_999
_SEED = 20_031_858  # any fixed number: the same figures must give the same verdict


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

    alpha: float = 0.01  # false alarms of the whole family of measures, per night without drift
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


def judge_night(tonight: NightCounts, window: Sequence[NightCounts], *, limits: DriftLimits) -> tuple[DriftResult, ...]:
    """Every measure of one night against the nights of the window, category shares first."""
    shares = compare_shares(
        tonight.categories,
        [night.categories for night in window],
        distance_floor=limits.distance_floor,
        min_photos=limits.min_photos,
        alpha=limits.alpha,
    )
    return (replace(shares, floor=limits.distance_floor, alpha=limits.alpha),)


def compare_shares(
    tonight: Mapping[str, int],
    reference: Sequence[Mapping[str, int]],
    *,
    distance_floor: float,
    min_photos: int,
    alpha: float = 0.001,
    draws: int = _DRAWS,
) -> DriftResult:
    """Compare tonight's category shares with those of all reference nights together.

    Args:
        tonight: photos per category.
        reference: the same for each night of the reference window; every photo counts alike, whatever its night.
        distance_floor: a distance up to this is never called drift, however certain it is (0 to 1).
        min_photos: with fewer photos tonight, or in the whole reference, nothing is judged.
        alpha: probability of an alarm on a night without drift, under the model above and with a floor of 0.
        draws: bootstrap draws; ``alpha`` times ``draws + 1`` must be at least 1.

    Raises:
        ValueError: a count is negative or no whole number, or a limit is out of range.
    """
    _check_limits(distance_floor=distance_floor, min_photos=min_photos, alpha=alpha, draws=draws)
    _check_counts(tonight, "tonight")
    for number, night in enumerate(reference, start=1):
        _check_counts(night, f"reference night {number}")

    nights = [night for night in reference if sum(night.values()) > 0]
    categories = sorted({name for counts in (tonight, *nights) for name, count in counts.items() if count})
    ours = [int(tonight.get(name, 0)) for name in categories]
    theirs = [sum(int(night.get(name, 0)) for night in nights) for name in categories]
    verdict = DriftResult(
        measure=CATEGORY_SHARES,
        status=DriftStatus.OK,
        distance=None,
        threshold=None,
        p_value=None,
        tonight_photos=sum(ours),
        reference_photos=sum(theirs),
        reference_nights=len(nights),
    )
    if not nights:
        return replace(verdict, status=DriftStatus.NO_REFERENCE)
    if min(verdict.tonight_photos, verdict.reference_photos) < min_photos:
        return replace(verdict, status=DriftStatus.INSUFFICIENT_DATA)

    distance, p_value, chance = _judge(ours, theirs, alpha=alpha, draws=draws)
    threshold = max(distance_floor, chance)
    moves = _moves(categories, ours, theirs)
    return replace(
        verdict,
        status=DriftStatus.DRIFT if distance > threshold else DriftStatus.OK,
        distance=distance,
        threshold=threshold,
        p_value=p_value,
        total_variation=min(1.0, sum(abs(move.change) for move in moves) / 2),
        folded=_folded(categories, ours, theirs),
        moves=moves,
    )


def folded_distance(ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Jensen-Shannon distance (base 2) of each pair of rows, rare categories folded into one.

    ``ours`` and ``theirs`` are counts of shape ``(B, K)``, every row of one array with the same sum above 0. A category
    is rare in a row where neither sample's share would put `RARE_COUNT` photos into the smaller sample: symmetric in
    the samples, and a category that is new tonight in numbers is never folded away. Returns ``(B,)``, 0 to 1.
    """
    import numpy as np
    from scipy.spatial.distance import jensenshannon

    p, q = ours / ours.sum(axis=1, keepdims=True), theirs / theirs.sum(axis=1, keepdims=True)
    smaller = min(int(ours[0].sum()), int(theirs[0].sum()))
    rare = np.maximum(p, q) * smaller < RARE_COUNT
    p, q = (
        np.concatenate([np.where(rare, 0.0, share), np.where(rare, share, 0.0).sum(axis=1, keepdims=True)], axis=1)
        for share in (p, q)
    )
    with np.errstate(invalid="ignore"):  # for almost equal shares rounding can leave a divergence of -1e-17
        distance = np.nan_to_num(jensenshannon(p, q, base=2, axis=1), nan=0.0)
    clipped: NDArray[np.float64] = np.clip(distance, 0.0, 1.0)
    return clipped


def _judge(ours: list[int], theirs: list[int], *, alpha: float, draws: int) -> tuple[float, float, float]:
    """The distance, its p-value, and the distance beyond which the p-value is at most ``alpha``."""
    import numpy as np

    a, b = np.array([ours], dtype=np.int64), np.array([theirs], dtype=np.int64)
    distance = float(folded_distance(a, b)[0])
    shares = (a + b)[0] / (a + b).sum()
    random = np.random.default_rng(_SEED)
    by_chance = folded_distance(
        random.multinomial(int(a.sum()), shares, size=draws), random.multinomial(int(b.sum()), shares, size=draws)
    )
    p_value = (1 + int((by_chance >= distance).sum())) / (draws + 1)
    allowed = math.floor(alpha * (draws + 1) + 1e-9)  # p <= alpha: fewer than this many draws lie as far out
    return distance, p_value, float(np.sort(by_chance)[-allowed])


def _moves(categories: Sequence[str], ours: Sequence[int], theirs: Sequence[int]) -> tuple[CategoryMove, ...]:
    tonight, reference = sum(ours), sum(theirs)
    moves = (
        CategoryMove(category=name, tonight_share=a / tonight, reference_share=b / reference)
        for name, a, b in zip(categories, ours, theirs, strict=True)
    )
    return tuple(sorted(moves, key=lambda move: (-abs(move.change), move.category)))


def _folded(categories: Sequence[str], ours: Sequence[int], theirs: Sequence[int]) -> tuple[str, ...]:
    tonight, reference = sum(ours), sum(theirs)
    smaller = min(tonight, reference)
    return tuple(
        name
        for name, a, b in zip(categories, ours, theirs, strict=True)
        if max(a / tonight, b / reference) * smaller < RARE_COUNT
    )


def _check_counts(counts: Mapping[str, int], where: str) -> None:
    for name, count in counts.items():
        # `not >= 0` also refuses NaN; floats from a data frame are taken where they are whole
        if not count >= 0 or count != count // 1 or math.isinf(count):
            msg = f"{where}: photos of {name!r} must be a whole number from 0 up, got {count!r}"
            raise ValueError(msg)


def _check_limits(*, distance_floor: float, min_photos: int, alpha: float, draws: int) -> None:
    if not 0.0 <= distance_floor <= 1.0:
        msg = f"distance_floor must lie in 0..1, got {distance_floor!r}"
        raise ValueError(msg)
    if min_photos < 1:
        msg = f"min_photos must be at least 1, got {min_photos!r}"
        raise ValueError(msg)
    if not 0.0 < alpha < 1.0:
        msg = f"alpha must lie between 0 and 1, got {alpha!r}"
        raise ValueError(msg)
    if alpha * (draws + 1) < 1 - 1e-9:
        msg = f"alpha {alpha!r} needs at least {1 / alpha - 1:.0f} draws, got {draws!r}"
        raise ValueError(msg)


def _check_count(count: int, where: str) -> None:
    # `not >= 0` also refuses NaN; floats from a data frame are taken where they are whole
    if not count >= 0 or math.isinf(count) or count != count // 1:
        msg = f"{where} must be a whole number from 0 up, got {count!r}"
        raise ValueError(msg)
