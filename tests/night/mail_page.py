"""Writes the mail of docs/alerts.md as an SMTP server received it: ``python -m tests.night.mail_page``."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from email.message import EmailMessage

from refund.night.alert_message import write_message
from refund.night.alert_rules import drift_finding
from refund.store.alerts import PendingAlert
from tests.conftest import REPOSITORY
from tests.night.alert_examples import DAY, drift_row
from tests.sinks import mail_connection, mail_sink

PAGE = REPOSITORY / "docs" / "alerts.md"
BEGIN, END = "<!-- mail: written by tests/night/mail_page.py -->", "<!-- end of mail -->"
SHOWN = ("From", "To", "Subject", "Auto-Submitted", "Content-Type")


def alert() -> PendingAlert:
    """An alert of drift with ten examples, as the night of a Saturday would raise it."""
    keys = tuple(f"incoming/{DAY}/R-{20400 + 7 * number}/{number % 3 + 1}.jpg" for number in range(10))
    row = drift_row()
    finding = replace(drift_finding(row), examples=keys, examples_are="photos of women's shoes, surest first")
    kept = finding.alert(run_id=row.run_id, run_date=DAY)
    return PendingAlert(
        alert_id=12,
        rule=kept.rule,
        severity=kept.severity,
        run_id=kept.run_id,
        run_date=DAY,
        message=kept.message,
        details=kept.details,
        first_seen_at=datetime(2026, 11, 22, 2, 0, tzinfo=UTC),
        seen_count=1,
        cooling_down=False,
    )


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """These variables, for as long as it lasts."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def received() -> EmailMessage:
    """The mail, sent by Airflow's notifier to a server on loopback."""
    from refund.airflow_channels import MailChannel

    channel = MailChannel(sender="refund-night@example.com", receivers=("oncall@example.com",), timeout_s=20)
    with mail_sink() as sink, environment(AIRFLOW_CONN_REFUND_SMTP=mail_connection(sink.port)):
        channel.send(write_message(alert()))
    (mail,) = sink.mails
    return mail


def block() -> str:
    """The part of the page between the two marks: the mail's headers and its text part."""
    mail = received()
    headers = [f"{name}: {mail[name]}" for name in SHOWN]
    headers[-1] = f"Content-Type: {mail.get_content_type()}"  # the boundary is drawn anew each time
    text = next(iter(mail.iter_parts())).get_content().replace("\r\n", "\n")
    return "\n".join([BEGIN, "", "```", *headers, "", text.rstrip("\n"), "```", "", END])


def written(text: str) -> str:
    """The page with its part between the marks made anew."""
    return re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: block(), text, flags=re.DOTALL)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home, environment(AIRFLOW_HOME=home):
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
