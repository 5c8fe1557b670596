"""The wheel: what is in it, what it asks for, and that a plain Airflow takes the plugin from it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.conftest import REPOSITORY
from tests.test_plugin import LOAD, run_python

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as Dockerfile and docs/reuse.md build it; takes some seconds."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "-q"]
    built = subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(REPOSITORY)],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    (file,) = folder.iterdir()
    return file


@pytest.fixture(scope="module")
def archive(wheel: Path) -> Iterator[ZipFile]:
    with ZipFile(wheel) as opened:
        yield opened


def committed(folder: str) -> set[str]:
    """The files of a folder that belong to the project, caches left out."""
    found = (path for path in (REPOSITORY / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(REPOSITORY / folder)) for path in found}


def test_its_name_says_python_3_and_any_machine(wheel: Path) -> None:
    assert wheel.name == f"refund-{PROJECT['version']}-py3-none-any.whl"


def test_everything_of_the_package_is_in_it_and_nothing_else(archive: ZipFile) -> None:
    inside = {name for name in archive.namelist() if not name.startswith(f"refund-{PROJECT['version']}.dist-info/")}
    package = {f"refund/{name}" for name in committed("plugins/refund")}
    assert inside == package | {f"refund/include/{name}" for name in committed("include")}


@pytest.mark.parametrize(
    "name",
    [
        "refund/py.typed",
        "refund/include/taxonomy.csv",
        "refund/include/imagenet_classes.csv",
        "refund/include/sql/review_queue.sql",
        "refund/store/migrations/env.py",
        "refund/store/migrations/versions/0001_initial.sql",
        "refund/store/migrations/versions/0002_models.sql",
        "refund/store/migrations/versions/0003_reliability.sql",
        "refund/store/migrations/versions/0004_reporting.sql",
        "refund/store/migrations/versions/0005_alerts.sql",
        "refund/store/migrations/versions/0006_run_metrics.sql",
        "refund/store/migrations/versions/0007_desk.sql",
        "refund/store/migrations/versions/0008_large_nights.sql",
        "refund/store/migrations/versions/0009_quick_report.sql",
        "refund/desk/templates/base.html.j2",
        "refund/desk/static/desk.js",
        "refund/report/templates/report.html.j2",
        "refund/airflow_plugin.py",
    ],
)
def test_what_is_no_python_came_along(archive: ZipFile, name: str) -> None:
    assert archive.getinfo(name).file_size > 0 or name.endswith("py.typed")


def test_it_asks_for_what_the_project_declares(archive: ZipFile) -> None:
    metadata = message_from_bytes(archive.read(f"refund-{PROJECT['version']}.dist-info/METADATA"))
    asked = metadata.get_all("Requires-Dist") or []
    plain = sorted(line for line in asked if "extra ==" not in line)
    names = [re.match(r"[\w-]+", line)[0] for line in plain]  # type: ignore[index]
    assert names == sorted(line.split(">")[0] for line in PROJECT["dependencies"])
    assert any(line.startswith("apache-airflow") and "<3.4" in line and ">=3.3.2" in line for line in plain)
    assert metadata["Requires-Python"] == "==3.11.*"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("Provides-Extra") or []) == set(PROJECT["optional-dependencies"])


def test_it_has_the_entry_points_of_plugin_and_command_line(archive: ZipFile) -> None:
    text = archive.read(f"refund-{PROJECT['version']}.dist-info/entry_points.txt").decode()
    assert text.split() == [
        "[console_scripts]", "refund", "=", "refund.cli:main",
        "[airflow.plugins]", "refund", "=", "refund.airflow_plugin:RefundPlugin",
    ]  # fmt: skip


# --- installed ----------------------------------------------------------------------------------------------------

IMPORTS = """
import json, sys
from refund.night.classify import ClassifiedShard, classify_photos, classify_shard
from refund.model.labels import load_labels
from refund.model.load import load_model, read_card
from refund.model.taxonomy import load_taxonomy
from refund.resources import include_path
import refund
labels = load_labels()
print(json.dumps({"from": refund.__file__, "include": str(include_path("taxonomy.csv")),
                  "categories": len(load_taxonomy(labels=labels).categories)}))
"""


@pytest.fixture(scope="module")
def plain_airflow(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Code that makes a plain Airflow of this interpreter: everything but the checkout, and the wheel beside it."""
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps"]
    subprocess.run([*pip, "--target", str(target), str(wheel)], check=True, capture_output=True, timeout=120)
    farm = tmp_path_factory.mktemp("site-packages")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "refund" not in entry.name and entry.suffix != ".pth":
            (farm / entry.name).symlink_to(entry)
    return f"import sys; sys.path[:0] = [{str(target)!r}, {str(farm)!r}]\n"


@pytest.mark.slow
def test_a_plain_airflow_finds_the_plugin_without_an_import_error(plain_airflow: str, tmp_path: Path) -> None:
    empty = tmp_path / "plugins"
    empty.mkdir()
    loaded = run_python(plain_airflow + LOAD, home=tmp_path, plugins_folder=empty, arguments=("-I", "-S"))
    assert loaded["plugins"] == ["refund"]
    assert loaded["errors"] == {}
    assert "EntryPoint" in str(loaded["sources"])


@pytest.mark.slow
def test_its_modules_are_usable_from_another_dag(plain_airflow: str, tmp_path: Path) -> None:
    found = run_python(plain_airflow + IMPORTS, home=tmp_path, plugins_folder=tmp_path, arguments=("-I", "-S"))
    assert "/installed" in str(found["from"])
    assert "/installed" in str(found["include"])
    assert int(str(found["categories"])) > 15


@pytest.mark.slow
def test_decoding_in_isolation_works_from_a_wheel(plain_airflow: str, tmp_path: Path) -> None:
    """The decoding interpreter is started anew and must find the package by itself: by PYTHONPATH or installation."""
    from PIL import Image

    Image.new("RGB", (320, 240), (200, 120, 40)).save(tmp_path / "photo.jpg")
    folder = plain_airflow.split("[")[2].split("]")[0]  # the two paths
    code = (
        "import json; from pathlib import Path; from refund.imaging.pool import DecoderPool; "
        "from refund.imaging.pack import create_pixels; from refund.records import ImageLimits; "
        f"photo = Path({str(tmp_path / 'photo.jpg')!r}); pixels = photo.with_name('pixels.npy'); "
        "create_pixels(pixels, count=1)\n"
        "with DecoderPool(pixels, limits=ImageLimits(), workers=1, memory_bytes=1_500_000_000, timeout_s=20) as pool:\n"
        "    print(json.dumps([fact.ok for fact in pool.decode([(0, photo.read_bytes())])]))\n"
    )
    paths = os.pathsep.join(json.loads(f"[{folder}]".replace("'", '"')))
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": paths, "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [True]
