"""What the measurement of a night's fixed cost makes of Airflow's times and logs; nothing here asserts a time."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.fixed_cost import task_parts
from benchmarks.import_clock import TOLD
from benchmarks.live_stack import DAG_FILE, NightTimes, TaskTimes, timed_dag
from benchmarks.overlap import heavy_s
from refund.local.paths import default_dags_folder
from tests.conftest import REPOSITORY


def task(name: str, *, queued: float, ended: float, map_index: int = -1) -> TaskTimes:
    return TaskTimes(name=name, map_index=map_index, queued=queued, started=queued + 0.1, ended=ended)


def test_a_task_falls_into_airflows_share_imports_and_work() -> None:
    lines = [{"event": "before"}, {"event": TOLD.format(imports_s=0.25, body_s=1.0, cpu_s=0.5)}]
    parts = task_parts(task("fetch", queued=10.0, ended=11.5), lines)
    assert parts == {"airflow": pytest.approx(0.4), "imports": 0.25, "work": 0.75, "task_core_s": 0.5}


def test_shards_take_from_the_first_ones_queue_to_the_last_ones_end() -> None:
    tasks = (
        task("fetch", queued=0.0, ended=1.0),
        task("shards.validate", queued=2.0, ended=5.0, map_index=0),
        task("shards.validate", queued=2.5, ended=9.0, map_index=1),
        task("shards.classify", queued=5.0, ended=8.0, map_index=0),
        task("persist", queued=9.0, ended=12.0),
    )
    night = NightTimes(run_id="r", asked=0.0, seen=13.0, queued=0.1, started=0.2, ended=12.5, tasks=tasks, core_s={})
    assert (heavy_s(night), night.seconds) == (7.0, 13.0)


def test_the_measured_dag_is_ours_with_a_clock_before_it() -> None:
    text = (default_dags_folder() / DAG_FILE).read_text(encoding="utf-8")
    timed = timed_dag(text)
    compile(timed, DAG_FILE, "exec")
    assert "from benchmarks.import_clock import install\ninstall()\n" in timed
    assert timed.count("\n") - text.count("\n") == 4


def test_the_clock_adds_up_imports_and_leaves_them_as_they_are() -> None:
    code = (
        "from benchmarks.import_clock import _Clock\n"
        "import builtins, sys\n"
        "builtins.__import__ = clock = _Clock()\n"
        "import colorsys\n"
        "once = clock.seconds\n"
        "from xml.dom import minidom\n"
        "assert 0 < once < clock.seconds and clock._depth == 0\n"
        "try:\n    import no_such_module\n"
        "except ModuleNotFoundError as exc:\n    assert exc.name == 'no_such_module' and clock._depth == 0\n"
        "print(colorsys.__name__, minidom.__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "colorsys xml.dom.minidom\n"
