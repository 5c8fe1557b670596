"""Alerts over REST: listed, taken once, and by whom."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest

from refund.store.alerts import raise_alert
from refund.store.records import Alert
from tests.desk.conftest import DeskWorld, desk_in
from tests.night.conftest import World

SEEN = datetime(2026, 11, 22, 2, 7, tzinfo=UTC)


@pytest.fixture(scope="module")
def desk(shared_world: World) -> Iterator[DeskWorld]:
    with desk_in(shared_world) as made:
        yield made


def raised(desk: DeskWorld, rule: str, *, day: date = date(2026, 11, 21)) -> int:
    """A new alert; its number."""
    alert = Alert(
        rule=rule, dedupe_key=f"{rule}/{day}", severity="warning", run_id="r1", run_date=day, message=f"{rule} <b>"
    )
    raise_alert(desk.services.database, alert, at=SEEN)
    return int(dict(desk.world.rows("SELECT rule, alert_id FROM refund.alert"))[rule])


def listed(client: Any, **query: Any) -> list[str]:
    answer = client.get("/api/alerts", params=query)
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "success"
    return [alert["rule"] for alert in answer.json()["alerts"]]


def test_open_alerts_are_listed_and_the_taken_ones_where_asked(desk: DeskWorld) -> None:
    client = desk.sign_in("ana")
    first, second = raised(desk, "one"), raised(desk, "two", day=date(2026, 11, 20))
    assert listed(client) == ["two", "one"]
    assert listed(client, run_date="2026-11-20") == ["two"]
    assert listed(client, limit=1) == ["two"]
    taken = client.post(f"/api/alerts/{first}/acknowledge", json={"note": "cleaning\x00 phones"}).json()
    assert taken | {"acknowledged_at": None} == {
        "status": "success",
        "alert_id": first,
        "rule": "one",
        "acknowledged_by": "ana",
        "acknowledged_at": None,
    }
    assert listed(client) == ["two"]
    assert listed(client, state="all") == ["two", "one"]
    alert = client.get("/api/alerts", params={"state": "all", "run_date": "2026-11-21"}).json()["alerts"][0]
    assert alert["message"] == "one <b>"
    assert (alert["acknowledged_by"], alert["acknowledged_at"]) == ("ana", taken["acknowledged_at"])
    assert client.post(f"/api/alerts/{second}/acknowledge").status_code == 200, "without a body, too"
    notes = desk.world.rows("SELECT actor, details ->> 'note' FROM refund.audit WHERE action = 'alert.acknowledge'")
    assert sorted(notes, key=str) == [("ana", "cleaning phones"), ("ana", None)]


def test_an_alert_is_taken_once_and_the_second_is_told_by_whom(desk: DeskWorld) -> None:
    number = raised(desk, "contested")
    mine = desk.sign_in("ana").post(f"/api/alerts/{number}/acknowledge").json()
    assert desk.sign_in("ana").post(f"/api/alerts/{number}/acknowledge").json() == mine, "mine stays mine"
    answer = desk.sign_in("ben").post(f"/api/alerts/{number}/acknowledge")
    assert answer.status_code == 409
    told = answer.json()
    at = datetime.fromisoformat(told["acknowledged_at"])
    assert told["error"] == "already_taken"
    assert told["message"] == f"ana took alert {number} at {at:%Y-%m-%d %H:%M} UTC."
    assert told["what_to_do"] == "Nothing is left to do; ask them how it stands."
    assert told["acknowledged_by"] == "ana"


def test_what_is_not_there_or_no_number_is_told(desk: DeskWorld) -> None:
    client = desk.sign_in("ana")
    answer = client.post("/api/alerts/999999/acknowledge")
    assert answer.status_code == 404
    assert answer.json()["error"] == "no_such_alert"
    assert answer.json()["message"] == "There is no alert 999999."
    assert answer.json()["what_to_do"] == "GET api/alerts?state=all lists them."
    for path in ("0", "-1", "x", str(2**63)):
        assert client.post(f"/api/alerts/{path}/acknowledge").status_code == 422, path
    assert client.post("/api/alerts/1/acknowledge", json={"note": "x" * 501}).status_code == 422
    broken = client.post(
        "/api/alerts/1/acknowledge",
        content=rb'{"note": "\ud83d"}',
        headers={"content-type": "application/json"},  # half a character
    )
    assert broken.status_code == 422
    answer = client.get("/api/alerts", params={"run_date": "yesterday"})
    assert answer.status_code == 422
    assert answer.json()["message"] == (
        "run_date: run date must read YYYY-MM-DD, for example 2026-11-21; got 'yesterday'"
    )
    assert client.get("/api/alerts", params={"state": "some"}).status_code == 422
