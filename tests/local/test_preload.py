"""What tasks find imported: nothing that a fork would harm."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from refund.local.preload import MODULES, preload_environ

COUNT = """
import importlib, os, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print([name for name in ("tensorflow", "keras") if name in sys.modules])
print([open(f"/proc/self/task/{number}/comm").read().strip() for number in os.listdir("/proc/self/task")][1:])
"""


def test_tasks_are_forked_from_a_process_that_has_the_libraries() -> None:
    environ = preload_environ("linux")
    assert environ["AIRFLOW__SCHEDULER__MP_START_METHOD"] == "forkserver"
    assert environ["AIRFLOW__SCHEDULER__MP_FORKSERVER_PRELOAD"].split(",") == list(MODULES)


def test_where_forks_are_unsafe_airflows_own_way_stays() -> None:
    assert preload_environ("darwin") == {}


def test_every_preloaded_module_is_installed_and_none_is_ours() -> None:
    """Airflow passes over one that is not there without a word."""
    tops = {name.partition(".")[0] for name in MODULES}
    assert [name for name in tops if importlib.util.find_spec(name) is None] == []
    assert not tops & {"refund", "tensorflow", "keras"}, "an edited module takes effect with the next task"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and nothing is preloaded elsewhere")
def test_preloading_starts_no_thread_and_no_tensorflow(tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "AIRFLOW_HOME": str(tmp_path), **preload_environ("linux")}
    command = [sys.executable, "-c", COUNT, *MODULES]
    done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["[]", "[]"], done.stderr[-2000:]
