"""Compares a night by all measures and shares the stated false-alarm rate among them.

Three families of measures are independent of each other in what they look at; they share alpha by Bonferroni, which
holds under any dependence. The two measures of the mix look at the same counts, so they are judged together: their
thresholds are set on their joint bootstrap so that either exceeds its own with the family's probability (the min-p
method of Westfall & Young 1993, "Resampling-Based Multiple Testing"), weighted (Genovese, Roeder & Wasserman 2006,
"False discovery control with p-value weighting", Biometrika 93). No step-down (Holm 1979): thresholds of one measure
would then hang on what another found, and a row could not be read alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from refund.monitor.drift import (
    CATEGORY_SHARES,
    LARGEST_MOVE,
    REJECTION_RATE,
    VOLUME,
    DriftLimits,
    DriftResult,
    DriftStatus,
    NightCounts,
)
from refund.monitor.drift_counts import VolumeChance, compare_rejections, compare_volume
from refund.monitor.drift_shares import compare_mix

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from refund.monitor.dispersion import KnownDispersion

MIX_PART, VOLUME_PART, REJECTIONS_PART = 0.6, 0.2, 0.2  # of alpha
MIX_WEIGHTS = (1.0, 2.0)  # category shares, largest move: most drifts that matter are moves of one category


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A night compared by all measures, not yet judged."""

    results: tuple[DriftResult, ...]  # without thresholds, in the order of MEASURES
    mix: NDArray[np.float64] | None  # (draws, 2)
    volume: VolumeChance | None
    rejections: NDArray[np.float64] | None  # (draws,)

    def judge(self, limits: DriftLimits) -> tuple[DriftResult, ...]:
        """The results with thresholds and verdicts.

        Raises:
            ValueError: alpha is too small for the number of draws.
        """
        chances: dict[str, tuple[float, float]] = {}  # by measure: distance that chance exceeds, at which rate
        if self.mix is not None:
            chances |= _joint(self.mix, alpha=limits.alpha * MIX_PART)
        if self.volume is not None:
            part = limits.alpha * VOLUME_PART
            chances[VOLUME] = self.volume.exceeded_at(part), part
        if self.rejections is not None:
            allowed = _allowed(limits.alpha * REJECTIONS_PART, len(self.rejections))
            chances[REJECTION_RATE] = _exceeded_by(self.rejections, allowed), allowed / (len(self.rejections) + 1)
        return tuple(_judged(result, chances, limits) for result in self.results)


def compare_night(
    tonight: NightCounts,
    window: Sequence[NightCounts],
    *,
    min_photos: int,
    known: KnownDispersion | None = None,
    draws: int,
) -> Comparison:
    """Compare by every measure; with ``known`` nothing is estimated.

    Raises:
        ValueError: a night of the window is not earlier than tonight, or is there twice.
    """
    dates = [night.run_date for night in window]
    if late := [day for day in dates if day >= tonight.run_date]:
        msg = f"the window of {tonight.run_date} must hold earlier nights only, got {max(late)}"
        raise ValueError(msg)
    if len(set(dates)) < len(dates):
        twice = min(day for day in dates if dates.count(day) > 1)
        msg = f"the window of {tonight.run_date} must hold a night once, got {twice} {dates.count(twice)} times"
        raise ValueError(msg)
    mix, mix_chance = compare_mix(
        tonight, window, min_photos=min_photos, rho=known.shares_rho if known else None, draws=draws
    )
    volume, volume_chance = compare_volume(
        tonight, window, min_photos=min_photos, log_variance=known.volume_log_variance if known else None
    )
    rejections, rejections_chance = compare_rejections(
        tonight, window, min_photos=min_photos, rho=known.rejections_rho if known else None, draws=draws
    )
    return Comparison(
        results=(*mix, volume, rejections), mix=mix_chance, volume=volume_chance, rejections=rejections_chance
    )


def _joint(draws: NDArray[np.float64], *, alpha: float) -> dict[str, tuple[float, float]]:
    """Thresholds of both measures that together are exceeded in a share ``alpha`` of the draws."""
    import numpy as np

    count = len(draws)
    # how many lie at least as far out: scipy.stats.rankdata(method="max"), without half a second of imports
    ranks = np.stack([np.searchsorted(np.sort(-column), -column, side="right") for column in draws.T], axis=1)
    p_values = ranks / (count + 1)
    smallest = np.sort((p_values / np.array(MIX_WEIGHTS)).min(axis=1))
    cut = float(smallest[_allowed(alpha, count) - 1])
    found = {}
    for column, (measure, weight) in enumerate(zip((CATEGORY_SHARES, LARGEST_MOVE), MIX_WEIGHTS, strict=True)):
        allowed = max(1, int(cut * weight * (count + 1) + 1e-9))
        found[measure] = _exceeded_by(draws[:, column], min(allowed, count)), allowed / (count + 1)
    return found


def _allowed(alpha: float, draws: int) -> int:
    """How many of the draws and the night itself may lie beyond the threshold."""
    allowed = int(alpha * (draws + 1) + 1e-9)
    if allowed < 1:
        msg = f"a rate of {alpha:.3g} needs at least {1 / alpha - 1:.0f} draws, got {draws}"
        raise ValueError(msg)
    return allowed


def _exceeded_by(draws: NDArray[np.float64], allowed: int) -> float:
    """The distance that fewer than ``allowed`` of the draws exceed: then p is at most allowed / (draws + 1)."""
    import numpy as np

    at = len(draws) - allowed
    return float(np.partition(draws, at)[at])


def _judged(result: DriftResult, chances: Mapping[str, tuple[float, float]], limits: DriftLimits) -> DriftResult:
    result = replace(result, floor=limits.floor(result.measure), alpha=limits.alpha)
    if result.distance is None:
        return result
    chance, part = chances[result.measure]
    threshold = max(limits.floor(result.measure), chance)
    return replace(
        result,
        threshold=threshold,
        chance=chance,
        alpha_part=part,
        status=DriftStatus.DRIFT if result.distance > threshold else DriftStatus.OK,
    )
