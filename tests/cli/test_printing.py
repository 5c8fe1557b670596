"""Data comes out of the command line as it is: brackets, colons, control characters and odd bytes included."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import pytest

from refund.cli import main
from refund.cli.airflow_api import TaskRow
from refund.cli.app import console, printable, step
from refund.cli.night import task_table
from refund.cli.photos import _show
from refund.cli.query_result import QueryResult
from refund.errors import SettingsError
from refund.night.try_photos import TriedPhoto

NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)
ODD = ["a[/].jpg", "[red]shoe.jpg", ":cat:.jpg", "[link=x]y[/link]", "trailing\\"]


def printed(renderable: object) -> str:
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


@pytest.mark.parametrize("text", ODD)
def test_a_query_shows_names_and_values_as_they_are(text: str) -> None:
    lines = printed(QueryResult(columns=[text, "n"], rows=[[text, None], ["x", 2]])).splitlines()
    assert [line.split() for line in lines] == [[text, "n"], [text], ["x", "2"]]


@pytest.mark.parametrize("text", ODD)
def test_a_step_says_the_text_as_it_is(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    step(f"reading {text}")
    assert capsys.readouterr().err == f"· reading {text}\n"


@pytest.mark.parametrize("text", ODD)
def test_classify_shows_paths_and_reasons_as_they_are(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    _show(TriedPhoto(path=text, status="rejected", reason=f"vanished: {text}"))
    assert capsys.readouterr().out == f"{text}\n  rejected: vanished: {text}\n"


@pytest.mark.parametrize("text", ODD)
def test_an_error_ends_the_command_with_its_text(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: str) -> None:
        raise SettingsError(text)

    monkeypatch.setattr("refund.cli.night.parse_run_date", fail)
    monkeypatch.setattr(sys, "argv", ["refund", "night"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 3
    assert capsys.readouterr().err == f"SettingsError: {text}\n"


def test_a_state_that_airflow_invents_is_shown_as_it_is() -> None:
    row = TaskRow(task_id="fetch", map_index=-1, state="[/odd]", try_number=1, started_at=None, ended_at=None)
    assert ["·", "fetch", "[/odd]"] in [line.split() for line in printed(task_table([row], now=NOW)).splitlines()]


def test_what_would_steer_the_terminal_becomes_visible() -> None:
    assert printable("a\x1b[31mb\x07\r\udcff") == r"a\x1b[31mb\x07\r\udcff"
    assert printable("größe\n\ttab 日本") == "größe\n\ttab 日本"
