"""Wall and CPU time of a rival: its own process and every process below it, the ended ones too."""

from __future__ import annotations

import contextlib
import resource
import time
from dataclasses import dataclass, field

import psutil


@dataclass(slots=True)
class Clock:
    """Runs from `start` to `stop`; started again, it forgets what was before.

    This process and those children it has waited for are read exactly, other processes below it in the kernel's ticks
    of 10 ms. One that ends meanwhile says before what it has spent (`note`), for nobody may have waited for it, as with
    Ray's workers. What it spends after that is lost, which is generous.
    """

    _started_at: float = 0.0
    _own_s: float = 0.0
    _before: dict[int, float] = field(default_factory=dict)  # of the processes below, by pid
    _latest: dict[int, float] = field(default_factory=dict)

    def start(self) -> None:
        """Forget what was measured and begin."""
        self._before = _below()
        self._latest = dict(self._before)
        self._own_s = _own_s()
        self._started_at = time.perf_counter()

    def note(self, pid: int, spent_s: float) -> None:
        """What a process below says that it has spent since it began, before it ends."""
        self._latest[pid] = max(spent_s, self._latest.get(pid, 0.0))

    def stop(self) -> tuple[float, float]:
        """Wall and CPU seconds since `start`."""
        wall_s = time.perf_counter() - self._started_at
        own_s = _own_s() - self._own_s
        for pid, spent_s in _below().items():
            self.note(pid, spent_s)
        below_s = sum(self._latest.values()) - sum(self._before.values())
        return wall_s, own_s + below_s


def _own_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in used)


def _below() -> dict[int, float]:
    found: dict[int, float] = {}
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            spent = process.cpu_times()
            found[process.pid] = spent.user + spent.system
    return found
