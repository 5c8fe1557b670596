"""Percentiles of the time that single photos took, from counts that every shard keeps and a night adds up.

A shard keeps how many photos fell between neighbouring powers of γ = (1 + α) / (1 - α), with α = 1 %: a percentile read
from these counts is within 1 % of the exact one, however many photos there are and however they lie, and the counts of
two shards add up to those of both together, with nothing lost. (Masson, Rim, Lee: DDSketch, a fast and fully-mergeable
quantile sketch with relative-error guarantees. PVLDB 12 (12), 2019.) There are at most `BUCKETS` counts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RELATIVE_ERROR = 0.01  # of every percentile
_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GAMMA = math.log(_GAMMA)
_SHORTEST_MS, _LONGEST_MS = 0.001, 86_400_000.0  # a microsecond, a day; what lies outside counts as that
_FIRST = math.ceil(math.log(_SHORTEST_MS) / _LOG_GAMMA)
_LAST = math.ceil(math.log(_LONGEST_MS) / _LOG_GAMMA)
BUCKETS = _LAST - _FIRST + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Latencies:
    """How many photos took how long; bucket *i* counts those of more than γ^(i-1) and at most γ^i milliseconds."""

    counts: Mapping[int, int] = field(default_factory=dict)
    max_ms: float = 0.0  # exact, unlike the percentiles

    def __post_init__(self) -> None:
        if not all(_FIRST <= bucket <= _LAST and count > 0 for bucket, count in self.counts.items()):
            msg = f"latencies count photos in buckets from {_FIRST} to {_LAST}, got {dict(self.counts)}"
            raise ValueError(msg)
        if not 0.0 <= self.max_ms < math.inf:
            msg = f"the longest latency must be 0 ms or more, got {self.max_ms}"
            raise ValueError(msg)

    @classmethod
    def of(cls, times_ms: Sequence[float] | NDArray[np.floating[Any]]) -> Self:
        """Count single photos.

        Raises:
            ValueError: a time is negative or not finite.
        """
        import numpy as np

        times = np.asarray(times_ms, dtype=np.float64)
        if not len(times):
            return cls()
        if not np.all(np.isfinite(times)) or times.min() < 0:
            msg = f"latencies are 0 ms or more, got {times[~(np.isfinite(times) & (times >= 0))][:3].tolist()}"
            raise ValueError(msg)
        powers = np.ceil(np.log(np.clip(times, _SHORTEST_MS, _LONGEST_MS)) / _LOG_GAMMA).astype(int)
        buckets, counts = np.unique(powers, return_counts=True)
        return cls(counts=dict(zip(buckets.tolist(), counts.tolist(), strict=True)), max_ms=float(times.max()))

    @classmethod
    def merged(cls, parts: Iterable[Latencies]) -> Self:
        """Of all photos of all parts; the order does not matter."""
        total: Counter[int] = Counter()
        max_ms = 0.0
        for part in parts:
            total.update(part.counts)
            max_ms = max(max_ms, part.max_ms)
        return cls(counts=dict(total), max_ms=max_ms)

    @property
    def photos(self) -> int:
        """How many photos were counted."""
        return sum(self.counts.values())

    def percentile_ms(self, percent: float) -> float | None:
        """The time that ``percent`` (above 0, up to 100) of the photos took at most; None of no photos.

        By the nearest rank: the ⌈percent/100 · n⌉-th shortest of n. Within `RELATIVE_ERROR` of it, for times from a
        microsecond to a day, and never above the longest.
        """
        if not 0 < percent <= 100:
            msg = f"a percentile lies above 0 and is at most 100, got {percent}"
            raise ValueError(msg)
        rank, passed = math.ceil(percent / 100 * self.photos), 0
        for bucket in sorted(self.counts):
            passed += self.counts[bucket]
            if passed >= rank:
                # the value whose relative distance to both ends of the bucket is the same
                return min(2 * math.exp(bucket * _LOG_GAMMA) / (_GAMMA + 1), self.max_ms)
        return None

    def to_json(self) -> dict[str, Any]:
        """As a shard's ``stage.json`` keeps it."""
        return {"counts": {str(bucket): count for bucket, count in sorted(self.counts.items())}, "max_ms": self.max_ms}

    @classmethod
    def from_json(cls, values: Any) -> Self:
        """From what `to_json` gave.

        Raises:
            ValueError: it is something else.
        """
        try:
            counts = {int(bucket): int(count) for bucket, count in values["counts"].items()}
            return cls(counts=counts, max_ms=float(values["max_ms"]))
        except (TypeError, KeyError, AttributeError) as exc:
            msg = f"latencies read {{counts, max_ms}}, got {values!r}"
            raise ValueError(msg) from exc
