"""Airflow finds the plugin installed and mounted, without one import error, and nothing heavy loads early."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

HEAVY = [
    "PIL",
    "ai_edge_litert",
    "boto3",
    "keras",
    "matplotlib",
    "numpy",
    "obstore",
    "pandas",
    "psycopg2",
    "pyarrow",
    "scipy",
    "skimage",
    "tensorflow",
]
LOAD = """
import json, sys
before = set(sys.modules)
from airflow import plugins_manager
plugins = [plugin["name"] for plugin in plugins_manager.get_plugin_info() if plugin["name"] == "refund"]
sources = [str(plugin["source"]) for plugin in plugins_manager.get_plugin_info() if plugin["name"] == "refund"]
ours = sorted(name for name in sys.modules if name.split(".")[0] == "refund")
print(json.dumps({"plugins": plugins, "sources": sources, "errors": plugins_manager.get_import_errors(), "ours": ours,
                  "replaced": [name for name in ("statistics", "records", "settings", "errors") if name in sys.modules
                               and "refund" in str(getattr(sys.modules[name], "__file__", ""))]}))
"""


def run_python(
    code: str, *, home: Path, plugins_folder: Path, arguments: tuple[str, ...] = (), **environ: str
) -> dict[str, object]:
    """Run code in a fresh interpreter with an Airflow home of its own; returns the JSON of its last line."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "REFUND", "PYTHON"))}
    done = subprocess.run(
        [sys.executable, *arguments, "-c", code],
        env=clean
        | {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(plugins_folder),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            **environ,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.fixture(scope="module")
def without_the_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site-packages folder with everything but this project: what a plain Airflow has."""
    farm = tmp_path_factory.mktemp("site-packages")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "refund" not in entry.name and entry.suffix != ".pth":
            (farm / entry.name).symlink_to(entry)
    return farm


def test_installed_it_registers_by_its_entry_point(tmp_path: Path) -> None:
    empty = tmp_path / "plugins"
    empty.mkdir()
    loaded = run_python(LOAD, home=tmp_path, plugins_folder=empty)
    assert loaded["plugins"] == ["refund"]
    assert loaded["errors"] == {}
    assert "EntryPoint" in str(loaded["sources"])


def test_mounted_only_the_one_file_is_executed(tmp_path: Path, without_the_package: Path) -> None:
    plain = f"import sys; sys.path.insert(0, {str(without_the_package)!r})\n"
    loaded = run_python(plain + LOAD, home=tmp_path, plugins_folder=REPOSITORY / "plugins", arguments=("-I", "-S"))
    assert loaded["plugins"] == ["refund"]
    assert loaded["errors"] == {}
    assert "PLUGINS_FOLDER" in str(loaded["sources"])
    assert loaded["replaced"] == []


def test_without_the_ignore_file_more_would_be_executed(tmp_path: Path, without_the_package: Path) -> None:
    """Shows that the two tests above can fail: a copy without .airflowignore does."""
    copy = tmp_path / "plugins"
    copy.mkdir()
    (copy / "refund").symlink_to(REPOSITORY / "plugins" / "refund")
    plain = f"import sys; sys.path.insert(0, {str(without_the_package)!r})\n"
    loaded = run_python(plain + LOAD, home=tmp_path, plugins_folder=copy, arguments=("-I", "-S"))
    assert loaded["replaced"]


PARSE = """
import json, sys
sys.path.insert(0, {dags!r})
import airflow.sdk
import refund_nightly
dag = refund_nightly.refund_nightly()
print(json.dumps({{"heavy": [name for name in {heavy!r} if name in sys.modules], "tasks": sorted(dag.task_dict),
                  "params": dag.params.dump(), "max_active_runs": dag.max_active_runs,
                  "outlets": {{name: task.outlets[0].uri for name, task in dag.task_dict.items() if task.outlets}}}}))
"""


def test_parsing_the_dag_loads_nothing_heavy(tmp_path: Path) -> None:
    parsed = run_python(
        PARSE.format(dags=str(REPOSITORY / "dags"), heavy=HEAVY), home=tmp_path, plugins_folder=tmp_path
    )
    assert parsed["heavy"] == []
    assert parsed["tasks"] == [
        "alert_on_drift", "fetch", "generate_report", "health_check", "persist", "shards.classify", "shards.validate",
    ]  # fmt: skip
    assert parsed["max_active_runs"] == 1
    assert parsed["outlets"] == {"persist": "refund://decisions/", "generate_report": "refund://export/"}


def test_dag_files_are_short() -> None:
    for path in (REPOSITORY / "dags").glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 120
