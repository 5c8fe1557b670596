"""``refund report`` and ``sql``: what the nights left behind."""

from __future__ import annotations

from typing import Annotated

import typer

from refund.cli.access import command_services, role_access
from refund.cli.app import AsJson, app, console, print_json, printable
from refund.cli.exit_codes import EXIT_NO
from refund.cli.query_result import QueryResult
from refund.params import parse_run_date


@app.command()
def report(
    date: Annotated[str, typer.Option(help="Run date, YYYY-MM-DD; the last complete night unless given.")] = "",
    as_json: AsJson = False,
) -> None:
    """Show a night's morning report. Exit code 1: there is none.

    Example: refund report --date 2026-11-21
    """
    from refund.report.figures import ReportFigures
    from refund.report.text import render_text

    day = parse_run_date(date) if date else None
    with command_services() as services:
        row = services.repository.get_report(run_date=day)
    if row is None:
        console.print(
            f"No report for {day}: no night was published for that date; reporting.runs lists those that were"
            if day
            else "No night was published yet; run one with: refund night --wait",
        )
        raise typer.Exit(EXIT_NO)
    if as_json:
        print_json(row.body)
        return
    typer.echo(printable(render_text(ReportFigures.from_dict(row.body))))
    console.print(f"Page   {row.html_uri}\nTable  {row.csv_uri}")
    if row.export_uri:
        console.print(f"Export {row.export_uri}")


@app.command()
def sql(
    statement: Annotated[str, typer.Argument(help="One SELECT over the views of schema reporting.")],
    limit: Annotated[int, typer.Option(min=1, help="Rows to show.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Ask Postgres as an analyst: schema reporting, read only.

    Example: refund sql "SELECT category, photos, share FROM reporting.daily_categories ORDER BY photos DESC"
    """
    from refund.store.database import Database
    from refund.store.repository import Repository

    columns, rows = Repository(Database(role_access("analyst"))).select(statement, limit=limit + 1)
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows[:limit]])
        return
    console.print(QueryResult(columns=columns, rows=rows[:limit]))
    if len(rows) > limit:
        console.print(f"… more than {limit} rows; raise --limit", style="dim")
