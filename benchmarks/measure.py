"""Measures work in wall and CPU time, contender after contender, round after round."""

from __future__ import annotations

import contextlib
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What some photos cost once."""

    photos: int
    wall_s: float
    cpu_s: float  # of our own processes; servers never count
    classified: int | None = None  # of the photos, where the contender counts them

    @property
    def photos_per_s(self) -> float:
        """Photos per second of wall time."""
        return self.photos / self.wall_s

    @property
    def wall_ms(self) -> float:
        """Wall milliseconds per photo."""
        return 1000 * self.wall_s / self.photos

    @property
    def core_ms(self) -> float:
        """CPU milliseconds per photo, summed over cores."""
        return 1000 * self.cpu_s / self.photos


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The middle of several values, and their ends."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(median=statistics.median(values), low=min(values), high=max(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """Something that is measured once per round; one run may give several named measurements."""

    name: str
    run: Callable[[], Mapping[str, Measurement]]


def own_cpu_s() -> float:
    """CPU seconds of this process and of its children that have ended.

    A server is a child too, but it counts only when it has ended, which is after the last measurement.
    """
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in used)


def tree_cpu_s(pid: int | None) -> float:
    """CPU seconds of a living process and everything below it, in steps of the kernel's clock tick (10 ms)."""
    if pid is None:
        return 0.0
    total = 0.0
    root = psutil.Process(pid)
    for process in (root, *root.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:4])  # user, system, and the same of its children that have ended
    return total


def measure(photos: int, work: Callable[[], object], *, living_pid: int | None = None) -> Measurement:
    """Run ``work`` once; CPU is this process's, that of children ended meanwhile, and of the tree ``living_pid``."""
    cpu_s, living_s = own_cpu_s(), tree_cpu_s(living_pid)
    start = time.perf_counter()
    work()
    wall_s = time.perf_counter() - start
    spent_s = own_cpu_s() - cpu_s + tree_cpu_s(living_pid) - living_s
    return Measurement(photos=photos, wall_s=wall_s, cpu_s=spent_s)


def interleave(
    contenders: Sequence[Contender], *, rounds: int, progress: Callable[[str], None]
) -> dict[str, list[Measurement]]:
    """Run all contenders in every round, each round beginning with another one; measurements by name, in order.

    What disturbs the machine for a minute then disturbs all contenders of a round, and ratios are taken within it.
    """
    found: dict[str, list[Measurement]] = {}
    for number in range(rounds):
        shift = number % len(contenders)
        for contender in (*contenders[shift:], *contenders[:shift]):
            progress(f"round {number + 1} of {rounds}: {contender.name}")
            for name, measurement in contender.run().items():
                found.setdefault(name, []).append(measurement)
    return found
