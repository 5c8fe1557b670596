"""``refund requeue``: rejected photos, put back after a fix for the next run of their date."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from refund.cli.access import command_services, stack_paths, who
from refund.cli.app import AsJson, app, console, print_json, printable
from refund.cli.exit_codes import EXIT_NO
from refund.params import parse_run_date

if TYPE_CHECKING:
    from refund.lifecycle.requeue import Requeued

_SHOWN = 20  # keys of each kind; --json has all


@app.command()
def requeue(
    reason: Annotated[str, typer.Option(help="Reason code of the rejections, such as too_large.")],
    date: Annotated[str, typer.Option(help="Run date of the night that rejected them, YYYY-MM-DD.")],
    key_prefix: Annotated[str, typer.Option(help="Only photos whose key begins so.")] = "",
    why: Annotated[str, typer.Option(help="What was mended; kept in refund.audit.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look at the photos, write nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put rejected photos back after a fix, so that the next run of their date looks at them again.

    A photo that is gone is copied back from quarantine; nothing is overwritten. Exit code 1: some photos are lost, or
    the store refuses to show them. It may be repeated.

    Example: refund requeue --reason too_large --date 2026-11-21 --why "max_side_px is 8000 now"
    """
    from refund.lifecycle.requeue import requeue as put_back

    day = parse_run_date(date)
    with command_services() as services:
        done = put_back(
            reason=reason,
            run_date=day,
            services=services,
            by=who(),
            key_prefix=key_prefix,
            why=why or None,
            dry_run=dry_run,
        )
    if as_json:
        print_json(done)
    else:
        _show(done, local=stack_paths().state_file.exists())
    if done.lost or done.refused:
        raise typer.Exit(EXIT_NO)


def _show(done: Requeued, *, local: bool) -> None:
    would = "would be put back" if done.dry_run else "put back"
    restored = f" ({done.restored} of them from quarantine)" if done.restored else ""
    counts = f"{done.put_back} {would}{restored}, {done.already} put back before"
    told = {
        "overwritten": (done.overwritten, "another version lies there, which has a verdict of its own or gets one"),
        "lost": (done.lost, "neither under its key nor in quarantine; upload it again"),
        "refused": (done.refused, "the store does not let us look at it; restore it or correct its rights"),
    }
    counts += "".join(f", {len(keys)} {name}" for name, (keys, _) in told.items() if keys)
    console.print(f"{done.found} rejected as {done.reason} by the night of {done.run_date}: {counts}")
    if done.renewed:
        console.print(f"{done.renewed} of them came back with another ETag: the next run takes them as new versions")
    if done.decided:
        console.print(f"{done.decided} more were dealt with by a night or another requeue meanwhile")
    for name, (keys, advice) in told.items():
        for key in keys[:_SHOWN]:
            console.print(printable(f"{name}: {key}: {advice}"), style="dim" if name == "overwritten" else "red")
        if len(keys) > _SHOWN:
            console.print(f"… and {len(keys) - _SHOWN} more {name}; all with --json", style="dim")
    for params in done.next_runs:
        console.print(f"Next: {next_step(params, local=local)}")


def next_step(params: dict[str, Any], *, local: bool) -> str:
    """What to type, or to enter in Airflow's trigger form, for one run."""
    if not local:  # `refund night` talks to the local stack alone
        listed = ", ".join(f"{name}={value}" for name, value in params.items())
        return printable(f"trigger refund_nightly with {listed}")
    told = [f" --param {quote(f'{name}={value}')}" for name, value in params.items() if name != "run_date"]
    return printable(f"refund night --date {params['run_date']}{''.join(told)}")
