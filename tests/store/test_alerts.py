"""Alerts on a real Postgres: seen once, seen again, told, taken."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from refund.store.alerts import raise_alert
from refund.store.database import Database
from refund.store.records import Alert
from tests.conftest import Roles
from tests.store.factories import DAY, NOON, rows


def test_an_alert_is_counted_again_only_when_seen_at_another_time(roles: Roles) -> None:
    def seen(at: Any) -> int:
        alert = Alert(
            rule="drift", dedupe_key="drift/r1", severity="warning", run_id="r1", run_date=DAY, message=f"at {at}",
            details={"a": 1},
        )  # fmt: skip
        return raise_alert(Database(roles.app), alert, at=at)

    later = NOON + timedelta(hours=1)
    assert [seen(NOON), seen(NOON), seen(later), seen(later)] == [1, 1, 2, 2]
    kept = rows(roles.owner, "SELECT first_seen_at, last_seen_at, message FROM refund.alert")
    assert kept == [(NOON, later, f"at {later}")]
