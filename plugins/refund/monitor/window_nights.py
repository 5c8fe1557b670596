"""Chooses the nights of the window that a measure is compared with: the same weekday where that matters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from refund.monitor.drift import ALL_NIGHTS, SAME_WEEKDAY

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ENOUGH_NIGHTS = 4  # of tonight's weekday: what four weeks have
WEEKDAY_LEVEL = 0.01  # how often weekdays that are alike are taken for different ones
_SHUFFLES = 399
_SEED = 19_350_713


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """Which nights count."""

    used: NDArray[np.int64]  # indices of the nights compared with
    groups: NDArray[np.int64]  # of every night of the window: those of one group differ by chance only
    name: str  # same_weekday or all_nights


def choose_nights(tonight: date, dates: Sequence[date], features: NDArray[np.float64]) -> Basis:
    """Tonight's weekday, if there are `ENOUGH_NIGHTS` of it and the window's weekdays differ; else all nights.

    Comparing with four nights instead of 28 costs certainty, so it is done only where weekdays differ by more than
    chance: a permutation test (Anderson 2001, "A new method for non-parametric multivariate analysis of variance",
    Austral Ecology 26) of the sum of squares between weekdays, at the level `WEEKDAY_LEVEL`. Differences too small for
    it are part of the overdispersion.

    Args:
        tonight: the night's run date.
        dates: run dates of the window's nights.
        features: what the nights are compared by, ``(nights, features)``, of about equal variance.
    """
    import numpy as np

    weekdays = np.array([day.weekday() for day in dates], dtype=np.int64)
    same = np.flatnonzero(weekdays == tonight.weekday())
    if len(same) >= ENOUGH_NIGHTS and _weekdays_differ(weekdays, features):
        return Basis(used=same, groups=weekdays, name=SAME_WEEKDAY)
    return Basis(used=np.arange(len(dates)), groups=np.zeros(len(dates), dtype=np.int64), name=ALL_NIGHTS)


def _weekdays_differ(weekdays: NDArray[np.int64], features: NDArray[np.float64]) -> bool:
    import numpy as np

    names, counts = np.unique(weekdays, return_counts=True)
    if len(names) < 2:
        return False
    centred = features - features.mean(axis=0)
    shuffled = np.random.default_rng(_SEED).permuted(np.tile(weekdays.astype(np.int8), (_SHUFFLES, 1)), axis=1)
    labels = np.concatenate([weekdays[None, :].astype(np.int8), shuffled])
    between = np.zeros(len(labels))
    for name, count in zip(names, counts, strict=True):
        sums = (labels == name).astype(np.float64) @ centred
        between += (sums**2).sum(axis=1) / count
    as_far = int((between[1:] >= between[0] * (1 - 1e-9)).sum())
    return bool(between[0] > 0) and (1 + as_far) / (_SHUFFLES + 1) <= WEEKDAY_LEVEL
