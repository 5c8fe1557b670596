"""Inside a task of Airflow's: how long it spends importing, told in its log; `live_stack` puts it before the DAG."""

from __future__ import annotations

import builtins
import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Any

log = logging.getLogger(__name__)

TOLD = "fixed cost: imports {imports_s:.3f} s of {body_s:.3f} s, {cpu_s:.3f} s of CPU"


class _Clock:
    """Replaces ``__import__`` and adds up what its outermost calls take."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0
        self._import = builtins.__import__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._depth += 1
        start = time.perf_counter()
        try:
            return self._import(*args, **kwargs)
        finally:
            self._depth -= 1
            if self._depth == 0:
                self.seconds += time.perf_counter() - start


def install() -> None:
    """Time imports from now on, and have every task of the night tell them as it ends."""
    from refund import airflow_glue

    given = airflow_glue.night_task

    @contextlib.contextmanager
    def timed() -> Iterator[Any]:
        with given() as night:
            yield night
        body_s = time.perf_counter() - began
        log.info(TOLD.format(imports_s=clock.seconds, body_s=body_s, cpu_s=time.process_time()))

    builtins.__import__ = clock = _Clock()
    airflow_glue.night_task = timed
    began = time.perf_counter()
