"""What the desk costs: little memory and time in the API server, nothing heavy, and nothing elsewhere in Airflow."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.test_plugin import HEAVY, run_python

MAX_BYTES = 60 * 1024 * 1024
MAX_CPU_S = 2.0  # measured: 0.25, docs/performance.md
LIST = b"airflow.sdk._shared.plugins_manager\n"  # where this stands in it, Python's list of imports is there

API_SERVER = f"""
import json, sys, time
import psutil
from airflow import plugins_manager
from airflow.api_fastapi.app import create_app
ours = plugins_manager.get_fastapi_plugins
plugins_manager.get_fastapi_plugins = lambda: ([], [])
without = create_app()
before = psutil.Process().memory_info().rss
modules = set(sys.modules)
begun = time.process_time()
apps = ours()[0]
cpu_s = time.process_time() - begun
after = psutil.Process().memory_info().rss
new = set(sys.modules) - modules
print(json.dumps({{"apps": [app["url_prefix"] for app in apps], "bytes": after - before,
                  "cpu_s": cpu_s, "heavy": sorted(name for name in {HEAVY!r} if name in new)}}))
"""


@pytest.mark.slow
def test_the_desk_costs_the_api_server_little_memory_and_time_and_loads_nothing_heavy(tmp_path: Path) -> None:
    cost = run_python(API_SERVER, home=tmp_path, plugins_folder=tmp_path)
    assert cost["apps"] == ["/refund"]
    assert cost["heavy"] == []
    assert int(str(cost["bytes"])) < MAX_BYTES
    assert float(str(cost["cpu_s"])) < MAX_CPU_S  # of CPU: other load of the machine is not in it


ELSEWHERE = """
import json, sys
import airflow.cli.cli_parser, airflow.cli.commands.dag_command
import airflow.jobs.scheduler_job_runner, airflow.jobs.triggerer_job_runner, airflow.dag_processing.manager
import airflow.executors.local_executor, airflow.sdk.execution_time.task_runner
from airflow import plugins_manager
plugins_manager.ensure_plugins_loaded()
for name in sorted(vars(plugins_manager)):
    if name.startswith("get_") and name.endswith("_plugins") and name != "get_fastapi_plugins":
        getattr(plugins_manager, name)()
plugins_manager.get_global_operator_extra_links(), plugins_manager.get_operator_extra_links()
plugins_manager.integrate_macros_plugins()
answer = {"plugin": "refund.airflow_plugin" in sys.modules, "errors": plugins_manager.get_import_errors(),
          "desk": sorted(name for name in sys.modules if name.startswith("refund.desk"))}
before = set(sys.modules)
sys.modules["refund.desk.app"] = None  # as if one of its imports failed
answer["broken"] = plugins_manager.get_fastapi_plugins()[0]
del sys.modules["refund.desk.app"]
from refund.airflow_plugin import RefundPlugin
answer["apps"] = [app["url_prefix"] for app in RefundPlugin().fastapi_apps]
answer["heavy"] = sorted(name for name in HEAVY if name in set(sys.modules) - before)
print(json.dumps(answer))
"""


def test_only_the_api_server_imports_the_desk_and_goes_on_without_one_that_is_broken(tmp_path: Path) -> None:
    """What other parts of Airflow import, and all that they ask of a plugin, leaves the desk alone."""
    answer = run_python(f"HEAVY = {HEAVY!r}\n" + ELSEWHERE, home=tmp_path, plugins_folder=tmp_path)
    assert answer == {"plugin": True, "errors": {}, "desk": [], "broken": [], "apps": ["/refund"], "heavy": []}


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["dags", "list"],
        ["scheduler", "--num-runs", "2"],
        ["dag-processor", "--num-runs", "1"],
        ["triggerer"],  # runs until it is told to end
    ],
    ids=lambda command: command[0],
)
def test_no_other_command_of_airflow_imports_the_desk(tmp_path: Path, command: list[str]) -> None:
    """By Python's own list of imports, of the command and of every process that it starts."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "REFUND", "PYTHON"))}
    environ = kept | {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(tmp_path / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    airflow = [sys.executable, "-m", "airflow"]
    subprocess.run([*airflow, "db", "migrate"], env=environ, check=True, capture_output=True, timeout=300)
    log = tmp_path / "imports.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*airflow, *command], env=environ | {"PYTHONPROFILEIMPORTTIME": "1"}, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 900
        quiet = 0
        while process.poll() is None and time.monotonic() < deadline and not (command == ["triggerer"] and quiet > 5):
            size = log.stat().st_size
            time.sleep(1)
            quiet = quiet + 1 if log.stat().st_size == size and LIST in log.read_bytes() else 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)
    told = [log, *tmp_path.glob("logs/**/*.log")]  # what reads a DAG's file writes there
    imported = "".join(path.read_text(encoding="utf-8", errors="replace") for path in told)
    assert LIST.decode() in imported
    if command[0] == "dag-processor":
        assert "refund.airflow_glue" in imported
    assert "refund.desk" not in imported
