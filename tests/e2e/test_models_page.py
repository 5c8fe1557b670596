"""docs/models.md, typed again from its first command to its last on a stack of its own."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from refund.local.ports import Ports
from tests.conftest import REPOSITORY, free_port
from tests.e2e.driver import run_refund
from tests.e2e.transcript import Replay, steps
from tests.local.live import start, temporary_home

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def new_stack() -> Iterator[Path]:
    """The home of a stack that has neither a model nor a night."""
    with temporary_home() as home:
        ports = Ports(postgres=free_port(), s3=free_port(), airflow=free_port())
        start(home, ports=ports, dags_folder=REPOSITORY / "dags")
        yield home


def test_the_page_shows_what_happens(new_stack: Path, shared: Path, tmp_path: Path) -> None:
    (tmp_path / "labelled").symlink_to(shared / "images" / "imagenet", target_is_directory=True)
    (tmp_path / "mobilenet_v2.h5").symlink_to(shared / "models" / "mobilenet_v2_standin.h5")
    told = steps((REPOSITORY / "docs" / "models.md").read_text(encoding="utf-8"))
    assert {step.command.split()[2] for step in told if step.command.startswith("refund model ")} >= {
        "build", "evaluate", "promote", "rollback", "history", "list",
    }  # fmt: skip
    replay = Replay()
    for step in told:
        program, *arguments = shlex.split(replay.command(step))
        assert program == "refund"
        answer = run_refund(new_stack, *arguments, code=None, timeout_s=420, cwd=tmp_path)
        difference = replay.difference(step, answer.err + answer.out)
        assert difference is None, f"{difference}\n\nall of it:\n{answer.err}\n{answer.out}"
