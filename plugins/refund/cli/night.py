"""``refund night``: trigger the night through Airflow's REST API and follow its tasks."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from rich.live import Live
from rich.table import Table
from rich.text import Text

from refund.cli.access import command_services, need_local, stack_paths
from refund.cli.airflow_api import AirflowApi, TaskRow
from refund.cli.app import app, console, printable, step
from refund.cli.exit_codes import EXIT_NO
from refund.cli.photos import yesterday
from refund.cli.stall import Stall
from refund.errors import SettingsError
from refund.params import NightParams, parse_run_date

DAG_ID = "refund_nightly"
_ORDER = (
    "health_check",
    "fetch",
    "shards.validate",
    "shards.classify",
    "persist",
    "generate_report",
    "alert_on_drift",
)
_TELLING = ("failed", "upstream_failed", "running")  # of mapped tasks in several states, the first of these is shown
_MARKS = {
    "success": Text("✓", "green"),
    "failed": Text("✗", "red"),
    "running": Text("▸", "cyan"),
    "upstream_failed": Text("–", "red"),
}


@app.command()
def night(
    date: Annotated[str, typer.Option(help="Run date, YYYY-MM-DD; yesterday (UTC) unless given.")] = "",
    param: Annotated[list[str], typer.Option(help="A night parameter as name=value; repeat for more.")] = [],  # noqa: B006 -- Typer copies it
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the tasks to the end.")] = False,
) -> None:
    """Run the night of a date through Airflow. Exit code 1: the night failed.

    With --wait, .refund/last_run.json tells a machine how it ended.

    Example: refund night --date 2026-11-21 --param review_threshold=0.6 --wait
    """
    day = parse_run_date(date or yesterday())
    conf = read_params(param)
    local = need_local()
    last_run_file = stack_paths().last_run
    if wait:
        last_run_file.unlink(missing_ok=True)  # what a machine finds afterwards is of this run, or not there
    started = time.monotonic()
    with AirflowApi(local.airflow_url, user=local.airflow_user, password=local.airflow_password) as api:
        run_id = api.start_night(DAG_ID, run_date=day, conf=conf, now=lambda: datetime.now(UTC))
        step(f"{DAG_ID} for {day}: {run_id}")
        if not wait:
            console.print(run_id)
            return
        with Live(console=console, refresh_per_second=4, transient=not console.is_terminal) as live:
            state = "queued"
            stall = Stall(
                run_id,
                now=time.monotonic(),
                scheduler_fault=lambda: _scheduler_fault(local.airflow_url),
                another_runs=lambda: api.is_any_running(DAG_ID),
            )
            while state in {"queued", "running"}:
                rows = api.task_rows(DAG_ID, run_id)
                state = api.run_state(DAG_ID, run_id)
                live.update(task_table(rows, now=datetime.now(UTC)))
                stall.look(rows, state, now=time.monotonic())
                time.sleep(0.5)
            live.update(task_table(api.task_rows(DAG_ID, run_id), now=datetime.now(UTC)))
        failure = first_failure(api.task_rows(DAG_ID, run_id))
        first_log = api.last_error(DAG_ID, run_id, failure) if failure else None
    last_run = _last_run(run_id, run_date=day.isoformat(), state=state, seconds=round(time.monotonic() - started, 1))
    temporary = last_run_file.with_suffix(".tmp")
    temporary.write_text(json.dumps(last_run, indent=1), encoding="utf-8")
    temporary.replace(last_run_file)
    console.print(f"{state}: {_counts(last_run)}, {last_run['seconds']} s")
    if last_run["report"]:
        console.print(f"Report {last_run['report']}", soft_wrap=True)
    if state != "success":
        if first_log:
            console.print(printable(first_log), style="red")
        raise typer.Exit(EXIT_NO)


def _scheduler_fault(airflow_url: str) -> str | None:
    """What ails the scheduler; None also where Airflow does not answer at all, which the next call of its API tells."""
    from refund.local.airflow_service import unhealthy

    return unhealthy(port=urlsplit(airflow_url).port or 80, since=None).get("scheduler")


def read_params(texts: list[str]) -> dict[str, Any]:
    """Read ``name=value`` texts and check them as the night will.

    Raises:
        SettingsError: no ``=``, an unknown name, a value out of its range, or run_date (which has its own option).
    """
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            msg = f"--param must read name=value, got {text!r}"
            raise SettingsError(msg)
        if name == "run_date":
            msg = "the run date is given by --date, not by --param run_date"
            raise SettingsError(msg)
        values[name] = value
    checked = NightParams.from_mapping(values)
    return {name: getattr(checked, name) for name in values}


def first_failure(rows: list[TaskRow]) -> TaskRow | None:
    """The failed task that started first: the last task of the night fails too, because of it."""
    failures = [row for row in rows if row.state == "failed"]
    return min(failures, key=lambda row: row.started_at or datetime.max.replace(tzinfo=UTC), default=None)


def task_table(rows: list[TaskRow], *, now: datetime) -> Table:
    """The tasks of a run, in the night's order, mapped ones counted together."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("", "task", "state", "seconds"):
        table.add_column(column, justify="right" if column == "seconds" else "left")
    for task_id in _ORDER:
        mine = [row for row in rows if row.task_id == task_id]
        states = [row.state or "waiting" for row in mine] or ["waiting"]
        telling = [*_TELLING, *(state for state in states if state != "success"), "success"]
        shown = next(state for state in telling if state in states)
        count = f" {states.count('success')}/{len(mine)}" if len(mine) > 1 else ""
        seconds = sum(row.seconds(now) for row in mine)
        table.add_row(_MARKS.get(shown, Text("·", "dim")), task_id + count, shown, f"{seconds:.1f}" if seconds else "")
    return table


def _counts(last_run: dict[str, Any]) -> str:
    if last_run["photos"] is None:
        return "nothing was published"
    return ", ".join(f"{last_run[name]} {name}" for name in ("photos", "classified", "rejected", "unchanged"))


def _last_run(run_id: str, *, run_date: str, state: str, seconds: float) -> dict[str, Any]:
    with command_services() as services:
        run = services.repository.get_run(run_id)
        report = services.repository.get_report(run_id=run_id)
        report_copy = services.report_copy(report.html_uri) if report is not None else None
    return {
        "run_id": run_id,
        "run_date": run_date,
        "state": state,
        "photos": run.photos if run else None,
        "classified": run.classified if run else None,
        "rejected": run.rejected if run else None,
        "unchanged": run.unchanged if run else None,
        "model": run.model if run else None,
        "report": report_copy,
        "seconds": seconds,
    }
