"""``refund review`` and ``refund quality``: people's verdicts, and the accuracy that they show."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from refund.cli.access import command_services, who
from refund.cli.app import AsJson, app, console, print_json, printable
from refund.cli.exit_codes import EXIT_NO
from refund.params import parse_run_date

review = typer.Typer(name="review", help="People's verdicts on photos.", no_args_is_help=True)
app.add_typer(review)


@review.command("import")
def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="CSV",
            help="Columns key or photo_id, category, reviewed_by; where wanted reviewed_at, note, chosen_by.",
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, write nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Import reviews: all rows of the file or, where one is at fault, none.

    What is there already is passed over, so a file may be imported again; rows without a category are left for later.

    Example: refund review import reviews.csv
    """
    from refund.lifecycle.reviews import import_reviews

    with command_services() as services:
        done = import_reviews(file, services=services, by=who(), dry_run=dry_run)
    if as_json:
        print_json(done)
        return
    chosen = ", ".join(f"{count} {name}" for name, count in done.chosen_by.items())
    console.print(
        f"{done.added} {'would be added' if dry_run else 'added'}{f' ({chosen})' if chosen else ''}, "
        f"{done.known} there already, {done.blank} without a category"
    )


@review.command("queue")
def queue(
    audit: Annotated[
        bool, typer.Option("--audit", help="Automatic decisions drawn for audit; without the machine's answer.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Rows; on the screen 20 unless given, in a file all.")
    ] = None,
    csv_file: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE", help="Write a new CSV to fill in and give to: refund review import."),
    ] = None,
) -> None:
    """Show what waits for a person, the oldest night's first, or write it as a CSV to fill in.

    Example: refund review queue --audit --csv audits.csv
    """
    from itertools import islice

    from refund.cli.query_result import QueryResult
    from refund.lifecycle.reviews import queue_columns, waiting_reviews, write_queue

    with command_services() as services:
        if csv_file is not None:
            count = write_queue(csv_file, services=services, audit=audit, limit=limit)
            console.print(
                f"{count} row{'' if count == 1 else 's'} in {csv_file}; "
                "fill in category and reviewed_by, then: refund review import"
            )
            return
        shown = limit or 20
        rows = list(islice(waiting_reviews(services, audit=audit, limit=shown + 1), shown + 1))
    if not rows:
        console.print("No audit waits" if audit else "No photo waits for a person")
        return
    console.print(QueryResult(columns=queue_columns(audit=audit), rows=rows[:shown]))
    if len(rows) > shown:
        console.print(f"… more than {shown} rows; raise --limit or write them to a file: --csv FILE", style="dim")


@app.command()
def quality(
    week_ending: Annotated[str, typer.Option(help="Last run date of the window; yesterday (UTC) unless given.")] = "",
    as_json: AsJson = False,
) -> None:
    """Estimate accuracy and macro-F1 of all decisions from reviews, now; nothing is stored and no alert raised.

    Exit code 1: a model's lower bound is below quality_min_accuracy, or there are no decisions. Too few reviews are no
    fault. The DAG refund_quality stores the same figures every week.

    Example: refund quality --week-ending 2026-11-22
    """
    from refund.lifecycle.quality import measure_quality, no_decisions, tell_quality
    from refund.monitor.quality import QualityStatus

    day = parse_run_date(week_ending) if week_ending else (datetime.now(UTC) - timedelta(days=1)).date()
    with command_services() as services:
        rows = measure_quality(day, services)
        window_days = services.settings.quality_window_days
    if as_json:
        print_json([asdict(row) for row in rows])
    elif rows:
        for row in rows:
            console.print(printable(tell_quality(row)))
    else:
        console.print(no_decisions(day, window_days))
    if not rows or any(row.status == QualityStatus.LOW for row in rows):
        raise typer.Exit(EXIT_NO)
