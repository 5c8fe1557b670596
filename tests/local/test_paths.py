"""Where the stack's files lie."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from refund.errors import StackError
from refund.local.paths import StackPaths, default_home
from refund.local.supervisor import Program, Supervisor


def test_home_is_named_or_lies_in_the_checkout(tmp_path: Path) -> None:
    assert default_home({"REFUND_HOME": "/x/y"}, working_folder=tmp_path) == Path("/x/y")
    (tmp_path / "dags").mkdir()
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "docs" / "deep").mkdir(parents=True)
    assert default_home({}, working_folder=tmp_path / "docs" / "deep") == tmp_path / ".refund"


def test_an_existing_folder_keeps_its_mode_and_new_ones_are_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    StackPaths(home=tmp_path).create()
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    assert {entry.name: entry.stat().st_mode & 0o777 for entry in tmp_path.iterdir()} == dict.fromkeys(
        ("logs", "run", "s3", "airflow", "staging", "cache"), 0o700
    )


def test_a_home_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        StackError, match=r"cannot make the local stack's folder .*: Not a directory; point REFUND_HOME"
    ):
        StackPaths(home=tmp_path / "file" / "home").create()


def test_a_long_home_gets_a_short_private_socket_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    paths = StackPaths(home=tmp_path / ("long" * 30))
    socket = paths.socket()
    assert len(os.fsencode(socket)) <= 90
    assert socket.parent.stat().st_mode & 0o777 == 0o700
    socket.parent.chmod(0o755)
    with pytest.raises(StackError, match=r"must be a folder that only you may enter .* mode 700\), found owner"):
        paths.socket()
    socket.parent.rmdir()
    short.rmdir()


@pytest.mark.parametrize("name", ["100%", "a ;b", "line\nbreak"])
def test_a_path_that_the_supervisor_cannot_quote_is_refused(tmp_path: Path, name: str) -> None:
    paths = StackPaths(home=tmp_path / name)
    paths.create()
    with pytest.raises(StackError, match=r"supervisord cannot work with .* choose another REFUND_HOME"):
        Supervisor(paths).start([Program(name="x", command=["/bin/true"], folder=tmp_path)])
