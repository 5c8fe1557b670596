"""``refund alerts``: what somebody should know, and who took it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from refund.cli.access import command_services, who
from refund.cli.app import AsJson, app, console, print_json, printable
from refund.cli.exit_codes import EXIT_NO

if TYPE_CHECKING:
    from refund.store.alerts import AlertRow

_STYLES = {"info": "", "warning": "yellow", "critical": "bold red"}
_LARGEST_ID = 2**63 - 1  # of a bigint

alerts_app = typer.Typer(no_args_is_help=True, help="Alerts: list the open ones, take them.")
app.add_typer(alerts_app, name="alerts")


@alerts_app.command("list")
def show(
    every: Annotated[bool, typer.Option("--all", help="Those that somebody has taken, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show open alerts, last seen first, and whether somebody was told.

    Example: refund alerts list
    """
    from refund.store.alerts import list_alerts

    with command_services() as services:
        found = list_alerts(services.database, acknowledged=every)
    if as_json:
        print_json([asdict(alert) for alert in found])
        return
    for alert in found:
        _print(alert)
    if not found:
        console.print("No alerts" if every else "No open alerts; refund alerts list --all shows those that were taken")


@alerts_app.command()
def ack(
    alert_ids: Annotated[
        list[int], typer.Argument(metavar="ID...", min=1, max=_LARGEST_ID, help="Numbers as refund alerts list shows.")
    ],
    note: Annotated[str, typer.Option(help="Why, or what is being done; kept in refund.audit.")] = "",
    as_json: AsJson = False,
) -> None:
    """Take alerts in your name: they are not sent again unless they get worse. Exit code 1: a number is not there.

    Example: refund alerts ack 12 --note "phones of hall 2 are being cleaned"
    """
    from refund.store.alerts import acknowledge

    with command_services() as services:
        answers = acknowledge(services.database, alert_ids, by=who(), at=services.now(), note=note or None)
    missing = [number for number, answer in zip(alert_ids, answers, strict=True) if answer is None]
    if as_json:
        print_json({"acknowledged": [asdict(answer) for answer in answers if answer], "missing": missing})
    else:
        for answer in answers:
            if answer is not None:
                told = "was taken already by" if answer.before else "is taken by"
                console.print(
                    printable(
                        f"Alert {answer.alert_id} ({answer.rule}) {told} {answer.by}, {answer.at:%Y-%m-%d %H:%M} UTC"
                    )
                )
        for number in missing:
            console.print(f"There is no alert {number}; refund alerts list --all shows all", style="red")
    if missing:
        raise typer.Exit(EXIT_NO)


def _print(alert: AlertRow) -> None:
    seen = f"{alert.first_seen_at:%Y-%m-%d %H:%M}"
    if alert.seen_count > 1:
        seen += f", seen {alert.seen_count} times, last {alert.last_seen_at:%Y-%m-%d %H:%M}"
    if alert.acknowledged_at is not None:
        told = f"taken by {alert.acknowledged_by} {alert.acknowledged_at:%Y-%m-%d %H:%M}"
    elif alert.sent_through:
        told = f"sent: {', '.join(alert.sent_through)}"
    else:
        told = "sent to nobody"
    if alert.not_sent and alert.acknowledged_at is None:
        told += f"; failed: {alert.not_sent}"
    made_up = " (made-up night)" if alert.synthetic else ""
    console.print(
        Text.assemble(
            f"{alert.alert_id:>5}  ",
            (f"{alert.severity:<8}", _STYLES[alert.severity]),
            f"  {printable(alert.rule)}, night of {alert.run_date}{made_up}",
        )
    )
    console.print(f"       {printable(alert.message)}")
    console.print(f"       {seen} UTC; {printable(told)}", style="dim")
