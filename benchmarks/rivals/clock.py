"""Wall and CPU time of a rival: its own process and every process below it, the ended ones too."""

from __future__ import annotations

import contextlib
import resource
import time
from dataclasses import dataclass, field

import psutil

_Identity = tuple[int, float]  # pid and when it was created: pids come back


@dataclass(slots=True)
class Clock:
    """Runs from `start` to `stop`; started again, it forgets what was before.

    This process and those children it has waited for are read exactly. Of other processes below it the last known
    user and system time counts, in the kernel's ticks of 10 ms: what one spent between the last look and its end is
    lost, which is generous. Ray ends its workers without waiting for them, so that their parent never learns it.
    """

    _started_at: float = 0.0
    _own_s: float = 0.0
    _before: dict[_Identity, float] = field(default_factory=dict)
    _latest: dict[_Identity, float] = field(default_factory=dict)

    def start(self) -> None:
        """Forget what was measured and begin."""
        self._before = _below()
        self._latest = dict(self._before)
        self._own_s = _own_s()
        self._started_at = time.perf_counter()

    def look(self) -> None:
        """Note what the processes below have spent, before one of them ends."""
        self._latest |= _below()

    def stop(self) -> tuple[float, float]:
        """Wall and CPU seconds since `start`."""
        wall_s = time.perf_counter() - self._started_at
        own_s = _own_s() - self._own_s
        self.look()
        below_s = sum(self._latest.values()) - sum(self._before.values())
        return wall_s, own_s + below_s


def _own_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in used)


def _below() -> dict[_Identity, float]:
    found: dict[_Identity, float] = {}
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            spent = process.cpu_times()
            found[process.pid, process.create_time()] = spent.user + spent.system
    return found
