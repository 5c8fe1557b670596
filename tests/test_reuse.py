"""docs/reuse.md: its DAG runs as it stands on the page, and every import it offers is there."""

from __future__ import annotations

import importlib
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from refund.settings import DatabaseAccess, S3Access
from tests.conftest import REPOSITORY, Roles

PAGE = (REPOSITORY / "docs" / "reuse.md").read_text(encoding="utf-8")


def example() -> str:
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return str(code)


def connections(s3: S3Access, database: DatabaseAccess) -> dict[str, str]:
    """The two connections as an operator would put them into the environment."""
    return {
        "AIRFLOW_CONN_REFUND_S3": json.dumps(
            {
                "conn_type": "aws",
                "login": s3.access_key,
                "password": s3.secret_key,
                "extra": {"endpoint_url": s3.endpoint_url, "service_config": {"s3": {"bucket_name": s3.bucket}}},
            }
        ),
        "AIRFLOW_CONN_REFUND_DB": json.dumps(
            {
                "conn_type": "postgres",
                "host": database.host,
                "port": database.port,
                "schema": database.database,
                "login": database.user,
                "password": database.password,
            }
        ),
    }


@pytest.fixture(scope="module")
def environ(
    database: Roles, s3_moto: S3Access, fallback_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The connections of stores that have a champion."""
    from refund.night.services import open_services
    from refund.settings import Settings

    folder = tmp_path_factory.mktemp("reuse")
    with open_services(settings=Settings(), s3=s3_moto, database=database.app) as services:
        model = services.registry.register(fallback_model, created_by="test").model
        services.registry.promote("champion", model, by="test", reason="first")
    return connections(s3_moto, database.app) | {"REFUND_CACHE_DIR": str(folder), "AIRFLOW_HOME": str(folder)}


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A cup on a table and a landscape, drawn on the spot, and a file that is no photograph."""
    folder = tmp_path / "photographs" / "R-1"
    folder.mkdir(parents=True)
    rows, columns = np.mgrid[0:480, 0:640]
    cup = np.full((480, 640, 3), 90, dtype=np.uint8)
    cup[(rows - 240) ** 2 + (columns - 320) ** 2 < 150**2] = (245, 245, 240)
    cup[(rows - 240) ** 2 + (columns - 320) ** 2 < 120**2] = (60, 30, 15)
    sky = np.stack([rows // 3, rows // 3 + 60, 255 - rows // 4], axis=-1).astype(np.uint8)
    noise = np.random.default_rng(7).integers(0, 25, cup.shape, dtype=np.uint8)
    Image.fromarray(cup + noise // 5).save(folder / "cup.jpg", quality=92)
    Image.fromarray(sky).save(folder / "sky.png")
    (folder / "notes.txt").write_text("Customer says it arrived broken.\n")
    return folder.parent


@pytest.mark.slow
def test_the_tasks_of_the_page_sort_real_files(
    environ: dict[str, str], photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tasks' own functions, one after another; `dag.test()` itself is the slow test below."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "sort_folder.py"
    file.write_text(example(), encoding="utf-8")
    module = runpy.run_path(str(file))
    dag = module["sort_folder"]()
    for task in dag.tasks:
        context = {"params": {"folder": str(photographs), "model": "champion"}}
        monkeypatch.setitem(task.python_callable.__globals__, "get_current_context", lambda found=context: found)
    calls: dict[str, Any] = {task.task_id: task.python_callable for task in dag.tasks}
    paths = calls["list_photos"]()
    assert [Path(path).name for path in paths] == ["cup.jpg", "notes.txt", "sky.png"]
    photos = calls["classify"](paths)
    assert [photo["status"] for photo in photos] == ["classified", "rejected", "classified"]
    assert photos[1]["reason"].startswith("not_an_image: ")
    assert all(0 < photo["score"] <= 1 for photo in (photos[0], photos[2]))
    counted = calls["count"](photos)
    assert sum(counted.values()) == 3
    assert counted["rejected"] == 1


RUN = """
import json, runpy, sys
dag = runpy.run_path(sys.argv[1])["sort_folder"]()
run = dag.test(run_conf={"folder": sys.argv[2], "model": "champion"}, logical_date=None)
print(json.dumps({"state": str(run.state), "tasks": {t.task_id: str(t.state) for t in run.get_task_instances()}}))
"""


@pytest.mark.slow
def test_the_dag_of_the_page_runs_in_airflow(environ: dict[str, str], photographs: Path, tmp_path: Path) -> None:
    file = tmp_path / "dags" / "sort_folder.py"
    file.parent.mkdir()
    file.write_text(example(), encoding="utf-8")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "REFUND"))}
    home = {
        "AIRFLOW_HOME": str(tmp_path / "home"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(file.parent),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(tmp_path / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    clean |= environ | home

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command], env=clean, capture_output=True, text=True, timeout=250, check=False
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    run("-m", "airflow", "db", "migrate")
    run("-m", "airflow", "pools", "set", "refund_inference", "1", "test")
    run("-m", "airflow", "dags", "reserialize")
    lines = run("-c", RUN, str(file), str(photographs)).splitlines()
    answer = json.loads([line for line in lines if line.startswith("{")][-1])
    assert answer == {
        "state": "success",
        "tasks": {"list_photos": "success", "classify": "success", "count": "success"},
    }


def offered() -> list[str]:
    return re.findall(r"^\| `(refund[\w.]+)` \|", PAGE, re.MULTILINE)


def test_every_import_that_the_page_offers_is_there_and_described() -> None:
    assert len(offered()) >= 12
    for name in offered():
        module, _, attribute = name.rpartition(".")
        found = getattr(importlib.import_module(module), attribute)
        assert found.__doc__, name


def test_the_page_names_the_wheel_that_is_built() -> None:
    import tomllib

    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert re.findall(r"refund-[\d.]+-py3-none-any\.whl", PAGE) == [f"refund-{version}-py3-none-any.whl"]
