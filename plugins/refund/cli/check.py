"""``refund check``: whether last night is there in time, for a monitor outside Airflow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from refund.cli.access import command_services, stack_paths
from refund.cli.app import AsJson, app, console, errors, print_json
from refund.cli.exit_codes import EXIT_NO
from refund.errors import SettingsError

if TYPE_CHECKING:
    from refund.night.services import Services
    from refund.store.progress import NightProgress

HEARTBEAT_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """The night that is asked for, and by when it had to be there."""

    run_date: date
    at: datetime


@app.command()
def check(
    by: Annotated[str, typer.Option(help="Time of day, HH:MM in UTC, by which the night must be complete.")],
    allow_late: Annotated[
        bool, typer.Option("--allow-late", help="A night that came late is a yes, for monitors that ask all day.")
    ] = False,
    alert: Annotated[
        bool, typer.Option("--alert", help="On no, write an alert and send it through the channels of the settings.")
    ] = False,
    heartbeat_url: Annotated[
        str, typer.Option(help="http(s) address to call on yes; the setting heartbeat_url unless given.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Tell a monitor whether last night was published in time: exit code 0 yes, 1 no: it is missing, or came late.

    Before the time given, the night before last is asked for. Run it from cron or any monitor outside Airflow.

    Example: refund check --by 06:00
    """
    from refund.store.progress import night_progress

    clock = time_of_day(by)
    with command_services() as services:
        url = checked_url(heartbeat_url or services.settings.heartbeat_url)
        due = due_night(clock, now=services.now())
        night = night_progress(services.database, due.run_date)
        late = night.published_at is not None and night.published_at > due.at
        complete = night.published_at is not None and (allow_late or not late)
        if as_json:
            print_json(
                {"run_date": due.run_date, "due_at": due.at, "complete": complete, "late": late,
                 "published_at": night.published_at, "state": night.last_state}
            )  # fmt: skip
        else:
            console.print(told(due, night, late=late))
        if alert and night.published_at is None:
            _raise_alert(due, night, services)
    if complete and url:
        _beat(url)
    if not complete:
        raise typer.Exit(EXIT_NO)


def time_of_day(by: str) -> time:
    """Read HH:MM, in UTC.

    Raises:
        SettingsError: it is no time of day.
    """
    try:
        return datetime.strptime(by, "%H:%M").time()  # noqa: DTZ007 -- a time of day, in UTC by definition
    except ValueError:
        msg = f"--by must read HH:MM, for example 06:00; got {by!r}"
        raise SettingsError(msg) from None


def due_night(by: time, *, now: datetime) -> Due:
    """The last night whose time has come: yesterday's once it is ``by`` (UTC), else the one before."""
    at = datetime.combine(now.date(), by, tzinfo=UTC)
    if at > now:
        at -= timedelta(days=1)
    return Due(run_date=at.date() - timedelta(days=1), at=at)


def told(due: Due, night: NightProgress, *, late: bool) -> str:
    """The answer in words."""
    if night.published_at is None:
        state = f"its last run is {night.last_state}" if night.last_state else "no run of it has begun"
        return (
            f"The night of {due.run_date} is not published, expected by {due.at:%Y-%m-%d %H:%M} UTC; {state}. "
            f"Look at refund_nightly in Airflow"
        )
    said = f"The night of {due.run_date} was published at {night.published_at:%Y-%m-%d %H:%M} UTC"
    return f"{said}, late: expected by {due.at:%Y-%m-%d %H:%M} UTC" if late else said


def checked_url(url: str | None) -> str | None:
    """The heartbeat's address, or None without one.

    Raises:
        SettingsError: it is no http(s) address. The text does not show it: whoever knows it can call the night alive.
    """
    from urllib.parse import urlsplit

    if not url:
        return None
    try:
        parts = urlsplit(url)
        sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or any(character.isspace() or not character.isprintable() for character in url):
        msg = (
            "the heartbeat's address (--heartbeat-url, setting heartbeat_url) must read http://host/… or "
            "https://host/…; what was given does not, and is not shown as it may be secret"
        )
        raise SettingsError(msg)
    return url


def _raise_alert(due: Due, night: NightProgress, services: Services) -> None:
    """Keep and send the alert: never_started without any run, else overdue, as Airflow's deadline raises it."""
    from refund.night.alert_on_drift import keep_finding
    from refund.night.alert_rules import never_started_finding, not_published_finding
    from refund.night.notify import send_pending

    by = f"{due.at:%Y-%m-%d %H:%M}"
    if night.last_run_id is None or night.last_state is None:
        finding, run_id = never_started_finding(due.run_date, by=by), "none"
    else:
        finding = not_published_finding(due.run_date, by=by, state=night.last_state)
        run_id = night.last_run_id
    keep_finding(finding, run_id=run_id, run_date=due.run_date, services=services, at=due.at)
    if services.settings.channels:
        _airflow_home(os.environ)
        from refund.airflow_channels import open_channels

        counts = send_pending(services, open_channels(services.settings))
        errors.print(", ".join(f"{count} {state.replace('_', ' ')}" for state, count in counts.items()))


def _airflow_home(environ: Mapping[str, str]) -> None:
    """Importing Airflow writes a configuration: beside a local stack into that stack, not into the home folder."""
    paths = stack_paths()
    if "AIRFLOW_HOME" not in environ and paths.state_file.exists():
        os.environ["AIRFLOW_HOME"] = str(paths.airflow)


def _beat(url: str) -> None:
    """Call the heartbeat's address; that it cannot be called is a warning: its monitor notices the silence."""
    from http.client import HTTPException
    from urllib.error import HTTPError, URLError
    from urllib.parse import urlsplit
    from urllib.request import HTTPRedirectHandler, Request, build_opener

    class NoRedirect(HTTPRedirectHandler):
        def redirect_request(self, *_: object) -> None:
            return None  # an address with a secret goes to its host and nowhere else

    host = urlsplit(url).hostname
    try:
        request = Request(url, headers={"User-Agent": "refund"})  # noqa: S310 -- http(s) alone, see checked_url
        with build_opener(NoRedirect).open(request, timeout=HEARTBEAT_TIMEOUT_S):
            return
    except HTTPError as exc:
        why = f"it answered {exc.code}"
        exc.close()
    except (OSError, HTTPException) as exc:
        reason = exc.reason if isinstance(exc, URLError) else exc
        why = reason.strerror if isinstance(reason, OSError) and reason.strerror else type(reason).__name__
    errors.print(f"The night is there, but the heartbeat at {host} could not be told: {why}", style="yellow")
