"""How often the drift rule is wrong: realised false alarms and power by simulation, against two usual rules.

For every number of photos and every nature, windows of 28 nights are made, and after each window nights without drift
and nights with one category five points larger. A window's thresholds are computed once, by the code that the nightly
run calls, with a first night after the window, and hold for all nights made after it: they have that first night's
numbers of photos, on which thresholds depend (but for the volume, which is drawn anew). One cell is also simulated
without this short cut: `judge_night` is called once for each of many windows. Intervals: 95 %, normal, by windows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon

from benchmarks.drift_nights import NATURES, NIGHTS, SHARES, Nature, make_nights, shifted, table
from refund.monitor.drift import DriftLimits, DriftResult, DriftStatus, NightCounts, judge_night
from refund.monitor.drift_family import compare_night
from refund.monitor.drift_shares import folded_distance, largest_change

PHOTOS = (300, 1_000, 10_000, 100_000)
ALPHAS = (DriftLimits().alpha, 0.05)
SHIFTED = (11, 3, 0)  # categories of 2 %, 10 % and 20 %
POINTS = 0.05
SEED = 20_261_123
PSI_LIMIT = 0.2  # Siddiqi 2006, "Credit Risk Scorecards": above 0.2 or 0.25 a population has shifted
EVIDENTLY_LIMIT = 0.1  # Evidently's default for categories where the reference has more than 1,000 rows
_FEWEST = DriftLimits().min_photos
SIGNIFICANCE = {"distance_floor": 0.0, "move_floor": 0.0, "volume_floor": 0.0, "rejection_floor": 0.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A share of nights, 0 to 1, and half the width of its 95 % interval."""

    value: float
    margin: float

    @classmethod
    def of(cls, by_window: Sequence[float]) -> Rate:
        """From the share of each window: nights after one window are not independent, windows are."""
        values = np.array(by_window)
        return cls(value=float(values.mean()), margin=1.96 * float(values.std(ddof=1)) / math.sqrt(len(values)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One rule under one nature and number of photos; ``alpha`` is the stated rate, None for rules without one."""

    rule: str  # known | estimated | whole | direct | psi | evidently
    nature: str
    photos: int
    alpha: float | None
    shift: str  # "none", or the usual percent of the category that gained five points
    alarms: Rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Nights:
    """Nights after one window: counts ``(T, K)`` of one sum, photos ``(T,)``, rejected ``(T,)`` of ``total``."""

    categories: NDArray[np.int64]
    volumes: NDArray[np.int64]
    rejected: NDArray[np.int64]
    total: int

    def distances(self, results: Sequence[DriftResult], window: Sequence[NightCounts]) -> NDArray[np.float64]:
        """``(T, measures)``, from what the results were compared with."""
        mix, _, volume, rejections = results
        used = [night for night in window if night.run_date.isoformat() in mix.nights]
        reference = np.broadcast_to(table(used).sum(axis=0), self.categories.shape)
        usual, rate = volume.reference_value, rejections.reference_value
        assert usual is not None
        assert rate is not None
        return np.stack(
            [
                folded_distance(self.categories, reference),
                largest_change(self.categories, reference),
                1 - np.minimum(self.volumes, usual) / np.maximum(self.volumes, usual),
                np.abs(self.rejected / self.total - rate),
            ],
            axis=1,
        )


def psi(ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Population stability index of each row against ``theirs`` ``(K,)``; empty cells count as 0.01 %."""
    p, q = (np.maximum(x / x.sum(axis=-1, keepdims=True), 1e-4) for x in (ours, theirs))
    found: NDArray[np.float64] = ((p - q) * np.log(p / q)).sum(axis=-1)
    return found


def evidently(ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Evidently's distance: SciPy's Jensen-Shannon distance of the shares in its default base, e."""
    found: NDArray[np.float64] = jensenshannon(ours, np.broadcast_to(theirs, ours.shape), axis=1)
    return np.nan_to_num(found)


def simulate(
    *, windows: int, nights: int, draws: int, direct: int, workers: int, progress: Callable[[str], None]
) -> tuple[list[Row], float]:
    """All rows and the seconds of CPU they took.

    Args:
        windows: windows per number of photos and nature.
        nights: nights after each window, without drift and for each shift.
        draws: bootstrap draws.
        direct: calls of `judge_night` for the check of the short cut.
        workers: processes; they change nothing but the duration, every cell has a seed of its own.
        progress: told what is done.
    """
    cells = [(nature, photos) for photos in PHOTOS for nature in NATURES]
    with ProcessPoolExecutor(max_workers=workers) as pool:
        tasks = [pool.submit(_cell, *cell, windows=windows, nights=nights, draws=draws) for cell in cells]
        tasks.append(pool.submit(_direct, NATURES[-1], 1_000, calls=direct, draws=draws))
        rows, cpu_s = [], 0.0
        for task in tasks:
            found, seconds = task.result()
            rows += found
            cpu_s += seconds
            progress(f"{found[0].photos:,} photos, {found[0].nature}: {seconds:.0f} s of CPU")
    return rows, cpu_s


def _cell(nature: Nature, photos: int, *, windows: int, nights: int, draws: int) -> tuple[list[Row], float]:
    started = time.process_time()
    alarms: dict[tuple[str, float | None, str], list[float]] = {}
    random = np.random.default_rng([SEED, photos, NATURES.index(nature)])
    for _ in range(windows):
        first, *window = make_nights(random, nature=nature, photos=photos, count=NIGHTS + 1)
        while first.classified < _FEWEST:
            first = make_nights(random, nature=nature, photos=photos, count=1)[0]
        drawn = {"none": SHARES} | {f"{100 * SHARES[number]:.0f}": shifted(number, POINTS) for number in SHIFTED}
        found = {
            title: Nights(
                categories=nature.categories(random, first.classified, shares, nights),
                volumes=nature.volumes(random, photos, nights),
                rejected=nature.rejections(random, first.photos, nights),
                total=first.photos,
            )
            for title, shares in drawn.items()
        }
        for rule, known in (("known", nature.known), ("estimated", None)):
            compared = compare_night(first, window, min_photos=1, known=known, draws=draws)
            for alpha in ALPHAS:
                results = compared.judge(DriftLimits(alpha=alpha))
                chance = np.array([result.chance for result in results])
                thresholds = np.array([result.threshold for result in results])
                for title, made in found.items():
                    distances = made.distances(results, window)
                    key = (rule, alpha, title)
                    alarms.setdefault(key, []).append(float((distances > chance).any(axis=1).mean()))
                    if rule == "estimated":
                        key = ("whole", alpha, title)
                        alarms.setdefault(key, []).append(float((distances > thresholds).any(axis=1).mean()))
        reference = table(window).sum(axis=0)
        for title, made in found.items():
            alarms.setdefault(("psi", None, title), []).append(
                float((psi(made.categories, reference) > PSI_LIMIT).mean())
            )
            alarms.setdefault(("evidently", None, title), []).append(
                float((evidently(made.categories, reference) >= EVIDENTLY_LIMIT).mean())
            )
    rows = [
        Row(rule=rule, nature=nature.title, photos=photos, alpha=alpha, shift=shift, alarms=Rate.of(shares))
        for (rule, alpha, shift), shares in alarms.items()
    ]
    return rows, time.process_time() - started


def _direct(nature: Nature, photos: int, *, calls: int, draws: int) -> tuple[list[Row], float]:
    """The check of the short cut: significance with estimated dispersion, one night after each window."""
    started = time.process_time()
    random = np.random.default_rng([SEED, 1])
    alpha = 0.05
    limits = DriftLimits(alpha=alpha, **SIGNIFICANCE)
    found = []
    for _ in range(calls):
        tonight, *window = make_nights(random, nature=nature, photos=photos, count=NIGHTS + 1)
        results = judge_night(tonight, window, limits=limits, draws=draws)
        found.append(float(any(result.status is DriftStatus.DRIFT for result in results)))
    row = Row(rule="direct", nature=nature.title, photos=photos, alpha=alpha, shift="none", alarms=Rate.of(found))
    return [row], time.process_time() - started
