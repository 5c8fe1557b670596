"""The rooms: imports point one way, Airflow is touched in few places, and heavy libraries load late."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "plugins" / "refund"
LAYERS = [
    {"errors", "records", "settings", "params", "model_params", "keys", "schemas", "resources", "__init__"},
    {"imaging", "model", "monitor"},
    {"store", "report"},
    {"night"},
    {"lifecycle"},
    {"airflow_channels"},
    {"airflow_glue"},
    {"airflow_plugin", "cli", "desk", "local"},
]
AIRFLOW_ALLOWED = {"airflow_plugin.py", "airflow_channels.py", "airflow_glue.py", "desk/auth.py"}  # and local/
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.parts[0].removesuffix(".py")


def level(name: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if name in layer)


def imports(path: Path) -> set[str]:
    """Every module that a file imports, at whatever depth."""
    tree = ast.parse((PACKAGE / path).read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute, so that Airflow may load a file under any name"
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_point_one_way(path: Path) -> None:
    mine = level(room(path))
    for name in imports(path):
        if name.startswith("refund."):
            other = name.split(".")[1]
            if other in {"__version__"}:
                continue
            theirs = level(other)
            assert theirs < mine or other == room(path) or (theirs == mine == 0) or _sideways(room(path), other), (
                f"{path} imports {name}: rooms import downwards only"
            )


def _sideways(mine: str, other: str) -> bool:
    """The model room may use imaging's preprocessing, the command line the local stack; the plugin has the desk."""
    return (mine, other) in {("cli", "local"), ("model", "imaging"), ("report", "store"), ("airflow_plugin", "desk")}


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_airflow_is_imported_in_few_places(path: Path) -> None:
    if path.as_posix() in AIRFLOW_ALLOWED or room(path) == "local":
        return
    assert not {name for name in imports(path) if name.split(".")[0] == "airflow"}


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_no_file_would_shadow_the_standard_library(path: Path) -> None:
    """Airflow's plugin loader executes files under their bare stem."""
    import sys

    assert path.stem not in sys.stdlib_module_names


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_rooms_are_of_a_size_one_can_read(path: Path) -> None:
    assert len((PACKAGE / path).read_text(encoding="utf-8").splitlines()) <= 400
