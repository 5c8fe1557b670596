"""Compares how many photos came, and which share of them was rejected."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from refund.monitor.dispersion import (
    ASSUMED_LOG_VARIANCE,
    ASSUMED_RHO,
    Dispersion,
    draw_pairs,
    estimate_dispersion,
)
from refund.monitor.drift import REJECTION_RATE, VOLUME, DriftResult, DriftStatus, NightCounts
from refund.monitor.window_nights import Basis, choose_nights

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SEED = 19_480_902  # any fixed number: the same figures must give the same verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeChance:
    """The predictive distribution of the logarithm of tonight's photos over the usual number."""

    scale: float  # from 0 up
    freedom: float  # of Student's t; infinite: normal

    def p_value(self, log_ratio: float) -> float:
        """Probability of at least this change up or down."""
        from scipy.special import stdtr  # what scipy.stats.t calls; scipy.stats takes 0.5 s more to import

        return float(2 * stdtr(self.freedom, -abs(log_ratio) / self.scale))

    def exceeded_at(self, alpha: float) -> float:
        """The distance, 0 to 1, that chance exceeds with probability ``alpha``."""
        from scipy.special import stdtrit

        return float(-math.expm1(self.scale * float(stdtrit(self.freedom, alpha / 2))))


def compare_volume(
    tonight: NightCounts, window: Sequence[NightCounts], *, min_photos: int, log_variance: float | None
) -> tuple[DriftResult, VolumeChance | None]:
    """The measure without its threshold, and its chance; None if not judged.

    Numbers of photos are taken as log-normal. With mean and variance of the logarithms estimated from the window the
    predictive distribution is exactly Student's t (Geisser 1993, "Predictive Inference", ch. 2), so nothing is drawn.
    The variance is never taken as less than Poisson's. The distance is 1 - smaller / larger of tonight's number and the
    usual one, the geometric mean: 0.5 is half as many or twice as many. A night without photos is 1 away; of small
    nights all are judged, because few photos are what this measure is to find.
    """
    import numpy as np

    nights, result = _measured(VOLUME, tonight, window)
    if not nights:
        return replace(result, status=DriftStatus.NO_REFERENCE), None
    logs = np.log([night.photos for night in nights])
    basis, result = _based(result, tonight, nights, logs[:, None])
    if result.reference_photos < min_photos:
        return replace(result, status=DriftStatus.INSUFFICIENT_DATA), None

    usual = float(np.exp(logs[basis.used].mean()))
    squares, freedom = 0.0, 0
    for group in np.unique(basis.groups):
        inside = logs[basis.groups == group]
        squares += float(((inside - inside.mean()) ** 2).sum())
        freedom += len(inside) - 1
    assumed = None
    if log_variance is not None:
        beyond, spread = log_variance, math.inf
    elif freedom:
        beyond, spread = max(0.0, squares / freedom - 1 / usual), float(freedom)
    else:
        beyond, spread, assumed = ASSUMED_LOG_VARIANCE, math.inf, ASSUMED_LOG_VARIANCE
    scale = math.sqrt((beyond + 1 / usual) * (1 + 1 / len(basis.used)))
    chance = VolumeChance(scale=scale, freedom=spread)
    photos = tonight.photos
    result = replace(
        result,
        distance=1 - min(photos, usual) / max(photos, usual),
        p_value=chance.p_value(math.log(max(photos, 0.5) / usual)),
        overdispersion=None if assumed else beyond,
        overdispersion_assumed=assumed,
        tonight_value=float(photos),
        reference_value=usual,
    )
    return result, chance


def compare_rejections(
    tonight: NightCounts, window: Sequence[NightCounts], *, min_photos: int, rho: float | None, draws: int
) -> tuple[DriftResult, NDArray[np.float64] | None]:
    """The measure without its threshold, and what it comes to without drift, ``(draws,)``; None if not judged.

    Rejections are beta-binomial: the share rejected varies by itself from night to night.
    """
    import numpy as np

    nights, result = _measured(REJECTION_RATE, tonight, window)
    if not nights:
        return replace(result, status=DriftStatus.NO_REFERENCE), None
    theirs = np.array([[night.rejected, night.classified] for night in nights], dtype=np.int64)
    sizes = theirs.sum(axis=1)
    basis, result = _based(result, tonight, nights, np.sqrt(theirs[:, :1] / sizes[:, None]))
    if min(result.tonight_photos, result.reference_photos) < min_photos:
        return replace(result, status=DriftStatus.INSUFFICIENT_DATA), None

    dispersion = (
        (estimate_dispersion(theirs, basis.groups) or Dispersion.at(ASSUMED_RHO, assumed=True))
        if rho is None
        else Dispersion.at(rho)
    )
    ours, reference = np.array([tonight.rejected, tonight.classified], dtype=np.int64), theirs[basis.used].sum(axis=0)
    # half a photo on either side (Jeffreys): a window without a rejection does not make one impossible
    pooled = (ours + reference + 0.5) / (ours.sum() + reference.sum() + 1)
    a, b = draw_pairs(
        np.random.default_rng(_SEED),
        shares=pooled,
        photos=result.tonight_photos,
        reference_sizes=sizes[basis.used],
        dispersion=dispersion,
        draws=draws,
    )
    by_chance = np.abs(a[:, 0] / result.tonight_photos - b[:, 0] / result.reference_photos)
    rate, usual = float(ours[0] / ours.sum()), float(reference[0] / reference.sum())
    result = replace(
        result,
        distance=abs(rate - usual),
        p_value=(1 + int((by_chance >= abs(rate - usual) - 1e-12).sum())) / (draws + 1),
        overdispersion=dispersion.estimate,
        overdispersion_assumed=dispersion.assumed,
        tonight_value=rate,
        reference_value=usual,
    )
    return result, by_chance


def _measured(
    measure: str, tonight: NightCounts, window: Sequence[NightCounts]
) -> tuple[list[NightCounts], DriftResult]:
    """The nights that had photos, oldest first, and the result before anything is compared."""
    nights = sorted((night for night in window if night.photos), key=lambda night: night.run_date)
    result = DriftResult(
        measure=measure,
        status=DriftStatus.OK,
        distance=None,
        threshold=None,
        p_value=None,
        tonight_photos=tonight.photos,
        reference_photos=sum(night.photos for night in nights),
        reference_nights=len(nights),
    )
    return nights, result


def _based(
    result: DriftResult, tonight: NightCounts, nights: Sequence[NightCounts], features: NDArray[np.float64]
) -> tuple[Basis, DriftResult]:
    basis = choose_nights(tonight.run_date, [night.run_date for night in nights], features)
    used = [nights[index] for index in basis.used]
    result = replace(
        result,
        reference_photos=sum(night.photos for night in used),
        reference_nights=len(used),
        nights=tuple(night.run_date.isoformat() for night in used),
        basis=basis.name,
    )
    return basis, result
