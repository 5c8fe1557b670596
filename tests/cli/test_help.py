"""The command line explains itself: help with an example everywhere, wrong usage and wrong values said in words."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from refund import __version__
from refund.cli import main, model, night, photos, reports, stack  # noqa: F401 -- they add their commands to `app`
from refund.cli.app import app
from tests.test_docs import COMMANDS, options


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def plain(text: str) -> str:
    """Text without colours, frames and line breaks."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", " ", text).split())


def run_main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """What `refund ARGUMENTS` gives on a terminal: exit code and standard error."""
    monkeypatch.setattr(sys, "argv", ["refund", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(str(caught.value.code or 0)), plain(capsys.readouterr().err)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str) -> None:
    answer = invoke(*name.split()[1:], "--help")
    assert answer.exit_code == 0
    assert re.search(rf"Example: (?:[A-Z_]+=\S+ )?{name}\b", plain(answer.output))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_uses_options_that_exist(name: str) -> None:
    example = re.search(r"Example: (.+)", COMMANDS[name].help)
    assert example is not None
    words = [word for word in shlex.split(example[1]) if "=" not in word or word.startswith("--")]
    assert " ".join(words).startswith(name)
    assert {word for word in words if word.startswith("--")} <= options(COMMANDS[name])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_is_for(name: str) -> None:
    undescribed = [parameter.name for parameter in COMMANDS[name].params if not getattr(parameter, "help", None)]
    assert undescribed == []


def test_the_exit_codes_stand_below_the_overview() -> None:
    assert "Exit codes: 0 done; 1 the answer is no" in plain(invoke("--help").output)


def test_version() -> None:
    answer = invoke("--version")
    assert (answer.exit_code, answer.output) == (0, f"refund {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nights"], "No such command 'nights'"),
        (["report", "--day", "2026-11-21"], "No such option"),
        (["sql"], "Missing argument"),
        (["check"], "Missing option '--by'"),
        (["classify", "photo.jpg", "--top-k", "0"], "Input should be greater than or equal to 1"),
        (["upload", "nowhere/at/all"], "does not exist"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], text: str) -> None:
    answer = invoke(*arguments)
    assert answer.exit_code == 2
    assert text in plain(answer.output)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["night", "--date", "20.11.2026"],
            "SettingsError: run date must read YYYY-MM-DD, for example 2026-11-21; got '20.11.2026'",
        ),
        (["report", "--date", "20261121"], "run date must read YYYY-MM-DD, for example 2026-11-21; got '20261121'"),
        (["night", "--param", "force"], "SettingsError: --param must read name=value, got 'force'"),
        (["night", "--param", "run_date=2026-11-21"], "the run date is given by --date, not by --param run_date"),
        (["night", "--param", "threshold=0.6"], "unknown parameter 'threshold'; known are: run_date, prefix, model"),
        (["night", "--param", "review_threshold=6"], "review_threshold must lie in 0.0..1.0, got 6.0"),
        (["check", "--by", "6"], "SettingsError: --by must read HH:MM, for example 06:00; got '6'"),
    ],
)
def test_wrong_values_are_exit_code_3_with_the_text(
    arguments: list[str], text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = run_main(monkeypatch, capsys, *arguments)
    assert code == 3
    assert text in said


@pytest.mark.parametrize("arguments", [["report"], ["sql", "SELECT 1"], ["migrate"], ["model", "list"], ["night"]])
def test_without_a_stack_or_connections_a_command_says_how_to_get_one(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AIRFLOW_CONN_REFUND_DB", "AIRFLOW_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REFUND_HOME", str(tmp_path / "none"))
    code, said = run_main(monkeypatch, capsys, *arguments)
    assert code == 3
    assert said.startswith("StackError: there is no local stack")
    assert "refund up" in said
    assert not (tmp_path / "none").exists()  # asking leaves nothing behind


def test_help_is_light() -> None:
    """Help must answer at once: nothing heavy is imported for it."""
    code = "import sys; sys.argv = ['refund', 'night', '--help']; import refund.cli; refund.cli.main()"
    probe = f"""
import sys
try:
    exec({code!r})
finally:
    print([name for name in ("airflow", "boto3", "numpy", "pandas", "psycopg2", "tensorflow") if name in sys.modules])
"""
    done: Any = subprocess.run(
        [sys.executable, "-c", probe], env=dict(os.environ), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines()[-1] == "[]"
