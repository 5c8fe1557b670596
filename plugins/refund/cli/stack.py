"""``refund up``, ``down``, ``status``, ``run`` and ``migrate``: the local stack and the schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich.table import Table

from refund.cli.access import need_local, role_access, stack_paths
from refund.cli.app import AsJson, app, console, print_json, step
from refund.cli.exit_codes import EXIT_NO

if TYPE_CHECKING:
    from refund.local.stack import StackStatus


@app.command()
def up(as_json: AsJson = False) -> None:
    """Start the local stack: Postgres, an S3 server and Airflow, on 127.0.0.1 only. A second time is harmless.

    Ports: REFUND_PORT_POSTGRES, REFUND_PORT_S3, REFUND_PORT_AIRFLOW. State: .refund/, or the folder REFUND_HOME.

    Example: REFUND_PORT_AIRFLOW=8081 refund up
    """
    from refund.local.stack import up as start

    stack = start(stack_paths().home, progress=step)
    if as_json:
        print_json(stack.as_json())
    else:
        show(stack)


@app.command()
def down() -> None:
    """Stop the local stack; photos, tables and reports stay. Nothing running is fine.

    Example: refund down
    """
    from refund.local.stack import down as stop

    stopped = stop(stack_paths().home, progress=step)
    console.print(f"Stopped {', '.join(stopped)}" if stopped else "Nothing was running")


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show what of the local stack runs, where, and with which login. Exit code 1: not all of it runs.

    Example: refund status --json
    """
    from refund.local.stack import status as look

    stack = look(stack_paths().home)
    if as_json:
        print_json(stack.as_json())
    else:
        show(stack)
    if not stack.is_running:
        raise typer.Exit(EXIT_NO)


@app.command()
def run() -> None:
    """All of it, for a first look: start the stack, make a model, upload sample photos, run the night, show the report.

    Example: refund run
    """
    import tempfile
    from pathlib import Path

    from refund.cli.model_build import ensure_champion
    from refund.cli.night import night
    from refund.cli.photos import upload, yesterday
    from refund.cli.reports import report
    from refund.local.samples import write_samples
    from refund.local.stack import up as start

    stack = start(stack_paths().home, progress=step)
    ensure_champion()
    with tempfile.TemporaryDirectory(prefix="refund-samples-") as folder:
        write_samples(Path(folder))
        upload(Path(folder), date=yesterday())
    failed = None
    try:
        night(date=yesterday(), param=[], wait=True)
    except typer.Exit as exc:
        failed = exc
    if failed is None:
        report(date=yesterday())
    show(stack)
    if failed is not None:
        raise failed


@app.command()
def migrate() -> None:
    """Bring the schema of Postgres to what this code expects; run it after every upgrade. Connects as refund_owner.

    Example: refund migrate
    """
    from refund.store.migrate import migrate as apply

    applied = apply(role_access("owner"))
    console.print(f"Applied {', '.join(applied)}" if applied else "The schema is up to date")


def show(stack: StackStatus) -> None:
    """Print the state of the stack as a table, and how to reach it."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("service", "state", "address", "pid"):
        table.add_column(column)
    for service in stack.services:
        table.add_row(service.name, service.state, service.address or "", str(service.pid or ""))
    console.print(table)
    for note in stack.notes:
        console.print(note)
    if stack.airflow_url is not None:
        local = need_local()
        console.print(f"Airflow   {local.airflow_url}  login {local.airflow_user}  password {local.airflow_password}")
        analyst = local.analyst
        console.print(
            f"Postgres  postgresql://{analyst.user}:{analyst.password}@{analyst.host}:{analyst.port}/{analyst.database}",
            soft_wrap=True,
        )
