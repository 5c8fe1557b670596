"""``refund night`` reads its parameters before it talks to anybody, and shows the tasks of a run as one table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from refund.cli.airflow_api import TaskRow
from refund.cli.night import first_failure, read_params, task_table
from refund.errors import SettingsError
from tests.cli.test_commands import stopped_home
from tests.e2e.driver import run_refund

NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)


def test_texts_become_values_of_the_fields_type() -> None:
    texts = ["review_threshold=0.6", "shard_size=100", "force=true", "model=mobilenet_v2@1", "prefix=a=b/"]
    assert read_params(texts) == {
        "review_threshold": 0.6,
        "shard_size": 100,
        "force": True,
        "model": "mobilenet_v2@1",
        "prefix": "a=b/",  # only the first = parts name and value
    }


def test_only_what_was_given_is_sent() -> None:
    assert read_params([]) == {}


def test_the_last_of_two_values_counts() -> None:
    assert read_params(["top_k=3", "top_k=4"]) == {"top_k": 4}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("force", "--param must read name=value, got 'force'"),
        ("run_date=2026-11-21", "the run date is given by --date, not by --param run_date"),
        ("batchsize=4", "unknown parameter 'batchsize'; known are: run_date, prefix"),
        ("top_k=0", "top_k must lie in 1..10, got 0"),
        ("top_k=", "top_k must be of type int, got ''"),
        ("dry_run=perhaps", "dry_run must be of type bool, got 'perhaps'"),
    ],
)
def test_bad_parameters_are_refused_in_words(text: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_params([text])
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--param", "top_k=11"], "SettingsError: top_k must lie in 1..10, got 11"),
        (
            ["--date", "21.11.2026"],
            "SettingsError: run date must read YYYY-MM-DD, for example 2026-11-21; got '21.11.2026'",
        ),
        ([], "StackError: there is no local stack in"),
    ],
)
def test_the_command_ends_with_code_3_and_one_sentence(arguments: list[str], message: str, tmp_path: Path) -> None:
    answer = run_refund(tmp_path / "none", "night", *arguments, code=3)
    assert message in " ".join(answer.err.split())
    assert "Traceback" not in answer.err
    assert answer.out == ""


def test_a_file_of_an_earlier_run_does_not_outlive_a_night_that_never_began(tmp_path: Path) -> None:
    home = stopped_home(tmp_path)
    (home / "last_run.json").write_text('{"state": "success"}')
    run_refund(home, "night", code=4)
    assert (home / "last_run.json").exists(), "without --wait nobody will write another"
    run_refund(home, "night", "--wait", code=4)
    assert not (home / "last_run.json").exists()


def row(task_id: str, state: str | None, *, map_index: int = -1, seconds: float | None = None) -> TaskRow:
    started_at = None if seconds is None else NOW - timedelta(seconds=seconds)
    return TaskRow(
        task_id=task_id, map_index=map_index, state=state, try_number=1, started_at=started_at, ended_at=None
    )


def shown(rows: list[TaskRow]) -> dict[str, list[str]]:
    console = Console(width=100, no_color=True)
    with console.capture() as capture:
        console.print(task_table(rows, now=NOW))
    lines = [line.split() for line in capture.get().splitlines()[1:]]
    return {words[1]: words[2:] for words in lines}


def test_the_table_names_every_task_in_the_nights_order() -> None:
    table = shown([row("health_check", "success", seconds=1.5), row("fetch", None)])
    assert list(table) == [
        "health_check", "fetch", "shards.validate", "shards.classify", "persist", "generate_report", "alert_on_drift",
    ]  # fmt: skip
    assert table["health_check"] == ["success", "1.5"]
    assert table["fetch"] == table["persist"] == ["waiting"]


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (("success", "success"), ["2/2", "success", "4.0"]),
        (("success", "running"), ["1/2", "running", "4.0"]),
        (("running", "failed"), ["0/2", "failed", "4.0"]),
        (("success", None), ["1/2", "waiting", "4.0"]),
    ],
)
def test_mapped_tasks_are_counted_together(states: tuple[str | None, ...], expected: list[str]) -> None:
    rows = [row("shards.validate", state, map_index=number, seconds=2.0) for number, state in enumerate(states)]
    assert shown(rows)["shards.validate"] == expected


def test_the_first_failure_is_the_cause_not_the_task_that_reports_it() -> None:
    """Airflow lists mapped tasks after the others, so the last task of the night would come first."""
    rows = [
        row("health_check", "success", seconds=30),
        row("alert_on_drift", "failed", seconds=1),
        row("shards.classify", "failed", map_index=2, seconds=9),
        row("shards.classify", "failed", map_index=0, seconds=5),
    ]
    found = first_failure(rows)
    assert found is not None
    assert (found.task_id, found.map_index) == ("shards.classify", 2)
    assert first_failure(rows[:1]) is None
