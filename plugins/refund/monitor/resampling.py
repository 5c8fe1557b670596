"""Draws a labelled set again with replacement and counts: the arithmetic of `refund.monitor.accuracy`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RESAMPLES = 2_000
_SEED = 20_170_612  # any fixed number: the same photographs must give the same figures
_DRAWN_AT_ONCE = 4_000_000  # photographs of several resamples: 32 MB of indices


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure and its 95 % interval; the interval of a figure that is biased in small sets may lie beside it."""

    value: float
    low: float
    high: float


def draw(photos: int, resamples: int) -> Iterator[NDArray[np.int64]]:
    """Indices of ``resamples`` resamples, ``(some, photos)`` at a time so that memory does not grow with the set."""
    import numpy as np

    generator = np.random.default_rng(_SEED)
    at_once = max(1, _DRAWN_AT_ONCE // photos)
    for start in range(0, resamples, at_once):
        yield generator.integers(0, photos, size=(min(at_once, resamples - start), photos))


def count_cells(
    cells: NDArray[np.int64], indices: NDArray[np.int64], size: int, weights: NDArray[Any] | None = None
) -> NDArray[np.float64]:
    """How often each of ``size`` cells was drawn in each row, or the sum of its photographs' weights: ``(R, size)``."""
    import numpy as np

    rows = np.arange(len(indices))[:, None] * size
    flat = (cells[indices] + rows).ravel()
    weighted = None if weights is None else weights[indices].ravel()
    counts: NDArray[np.float64] = np.bincount(flat, weights=weighted, minlength=len(indices) * size).astype(np.float64)
    return counts.reshape(len(indices), size)


def margins(confusion: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Right answers, photographs and answers of each category: ``(R, C)`` each, from ``(R, C, C)``."""
    import numpy as np

    return np.diagonal(confusion, axis1=1, axis2=2), confusion.sum(axis=2), confusion.sum(axis=1)


def accuracy_of(confusion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of right answers in each row."""
    hits, true, _ = margins(confusion)
    shares: NDArray[np.float64] = hits.sum(axis=1) / true.sum(axis=1)
    return shares


def macro_f1_of(confusion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean F1 of the categories that have a photograph in the row; a resample may lack some, as another set would."""
    import numpy as np

    hits, true, predicted = margins(confusion)
    present = true > 0
    f1 = np.where(present, 2 * hits / np.where(present, true + predicted, 1.0), 0.0)
    means: NDArray[np.float64] = f1.sum(axis=1) / present.sum(axis=1)
    return means


def ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Part by whole, NaN where there is no whole."""
    import numpy as np

    quotients: NDArray[np.float64] = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return quotients


def estimate_of(value: float, drawn: NDArray[np.float64]) -> Estimate | None:
    """The value with the 2.5th and 97.5th percentile of the resamples in which it is defined."""
    import numpy as np

    if np.isnan(value):
        return None
    low, high = np.nanpercentile(drawn, (2.5, 97.5))
    return Estimate(value=value, low=float(low), high=float(high))
