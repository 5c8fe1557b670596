"""Sends what channels have not told yet: rows first, one attempt each, and nothing here ever fails a night."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from refund.errors import RefundError
from refund.night.alert_message import AlertMessage, write_message
from refund.night.services import Services
from refund.store.alerts import add_notification, pending_alerts, sending_alone

if TYPE_CHECKING:
    from refund.store.alerts import PendingAlert

log = logging.getLogger(__name__)

_MOST_FAILURES = 2  # in a row
_SKIPPED = "not tried: the channel had just failed twice"


class ChannelError(Exception):
    """A channel did not take a message; the text says why and holds no secret."""


class Channel(Protocol):
    """Somewhere that alerts are sent to."""

    def send(self, message: AlertMessage) -> None:
        """Send one message and wait until it is taken.

        Raises:
            ChannelError: it was not taken.
        """
        ...


def send_pending(services: Services, channels: Mapping[str, Channel]) -> dict[str, int]:
    """Send every alert to every channel that has not told it; return how many attempts ended in which state.

    The alerts are in Postgres before; an attempt is written when it has ended. So a task that is killed between the two
    sends again: once more at worst, never not at all. A channel that fails twice in a row is not asked again this time;
    what it missed is sent by the next task try, or at the end of the next night. Not after one failure: a channel may
    refuse a single message, which must not keep the others from anybody for as long as it is pending. So a channel that
    is dead costs two time-outs.
    """
    counts = {"sent": 0, "failed": 0, "cooling_down": 0}
    if not channels:
        return counts
    try:
        with sending_alone(services.database) as alone:
            if not alone:
                log.warning("Another task has been sending alerts for long; some may be sent twice")
            for name, channel in channels.items():
                for state in _send_through(name, channel, services):
                    counts[state] += 1
    except RefundError as exc:  # Postgres: the night's own work is committed, and the next sending makes up for this
        log.warning("Sending alerts ended early: %s", exc)
    return counts


def _send_through(name: str, channel: Channel, services: Services) -> list[str]:
    settings = services.settings
    cooldown = timedelta(hours=settings.alert_cooldown_hours)
    states: list[str] = []
    told: set[tuple[str, str]] = set()  # rule and subject, in this sending
    failures = 0  # in a row
    pending = pending_alerts(
        services.database,
        channel=name,
        at=services.now(),
        min_severity=settings.alert_min_severity,
        cooldown=cooldown,
    )
    for alert in pending:  # the worst first: what was told of a rule is never less than what follows
        told_now = cooldown and alert.severity != "critical" and (alert.rule, alert.subject) in told
        if alert.cooling_down or told_now:
            state, error = "cooling_down", None
        elif failures == _MOST_FAILURES:
            state, error = "failed", _SKIPPED
        else:
            error = _attempt(name, channel, alert)
            state = "failed" if error else "sent"
            failures = failures + 1 if error else 0
        if state == "sent":
            told.add((alert.rule, alert.subject))
        add_notification(services.database, alert, channel=name, state=state, error=error, at=services.now())
        states.append(state)
    return states


def _attempt(name: str, channel: Channel, alert: PendingAlert) -> str | None:
    """Send one alert; return why it was not taken, or None."""
    try:
        channel.send(write_message(alert))
    except ChannelError as exc:
        error = str(exc)
    except Exception as exc:  # noqa: BLE001 -- a fault of a channel must not cost the night; its text may hold secrets
        error = f"{type(exc).__name__} in the channel itself; its text is withheld, as it may hold a secret"
    else:
        log.info("Alert %s (%s) was sent through %s", alert.alert_id, alert.rule, name)
        return None
    log.warning(
        "Alert %s (%s) was not sent through %s: %s. It is kept and sent again with the next alerts; docs/alerts.md "
        "says what a channel needs",
        alert.alert_id,
        alert.rule,
        name,
        error,
    )
    return error
