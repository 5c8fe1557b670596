"""docs/models.md, typed again from its first command to its last on a stack of its own."""

from __future__ import annotations

import getpass
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from refund.local.ports import Ports
from tests.conftest import REPOSITORY, free_port
from tests.e2e.driver import run_refund
from tests.e2e.transcript import Replay, steps
from tests.local.live import start, temporary_home

pytestmark = [pytest.mark.live, pytest.mark.slow]


PAGE = REPOSITORY / "docs" / "models.md"


@pytest.fixture(scope="module")
def new_stack() -> Iterator[Path]:
    """The home of a stack that has neither a model nor a night."""
    with temporary_home() as home:
        ports = Ports(postgres=free_port(), s3=free_port(), airflow=free_port())
        start(home, ports=ports, dags_folder=REPOSITORY / "dags")
        yield home


@pytest.fixture(scope="module")
def replayed(new_stack: Path, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stack after every command of the page, each of which printed what the page shows."""
    folder = tmp_path_factory.mktemp("transcript")
    (folder / "labelled").symlink_to(shared / "images" / "imagenet", target_is_directory=True)
    (folder / "mobilenet_v2.h5").symlink_to(shared / "models" / "mobilenet_v2_standin.h5")
    replay = Replay()
    for step in steps(PAGE.read_text(encoding="utf-8")):
        program, *arguments = shlex.split(replay.command(step))
        assert program == "refund"
        answer = run_refund(new_stack, *arguments, code=None, timeout_s=1200, cwd=folder)
        printed = (answer.err + answer.out).replace(f" {getpass.getuser()} ", " root ")
        difference = replay.difference(step, printed)
        assert difference is None, f"{difference}\n\nall of it:\n{printed}"
    return new_stack


def test_the_page_shows_what_happens(replayed: Path) -> None:
    """The replay itself is the fixture; this is what came of it."""
    assert run_refund(replayed, "model", "list", "--json").json
    runs = run_refund(
        replayed, "sql", "SELECT models, state FROM reporting.runs WHERE photos > 0 ORDER BY started_at", "--json"
    ).json
    assert [[key.partition("@")[0] for key in run["models"]] for run in runs] == [
        ["mobilenet_v2"],
        ["efficientnet_lite0"],
    ]
    assert {run["state"] for run in runs} == {"published"}


def test_int8_is_as_good_as_the_plan_asks(replayed: Path) -> None:
    top1 = (
        "SELECT (figures #>> '{top1,value}')::float8 AS top1 FROM reporting.evaluations WHERE model LIKE 'mobilenet%'"
    )
    assert run_refund(replayed, "sql", top1, "--json").json[0]["top1"] >= 0.84
