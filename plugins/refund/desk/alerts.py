"""Alerts over REST: what somebody should know, and taking one."""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Body, Path, Query
from pydantic import BaseModel, Field

from refund.desk.auth import Asking
from refund.desk.dates import asked_date
from refund.desk.problems import DeskError
from refund.desk.schema import problems
from refund.desk.wiring import DeskDep
from refund.store.alerts import acknowledge, list_alerts

if TYPE_CHECKING:
    from refund.store.alerts import AlertRow

router = APIRouter(prefix="/api/alerts", tags=["alerts"])

LARGEST_ID = 2**63 - 1  # of a bigint
NOTE_CHARS = 500


class Alert(BaseModel):
    """Something somebody should know."""

    alert_id: int
    rule: str = Field(description="What raised it, for example failed_night or drift:category_shares.")
    severity: Literal["info", "warning", "critical"]
    run_date: date = Field(description="The night.")
    run_id: str
    message: str = Field(description="What was seen, what was expected, what to do. May quote S3 keys.")
    details: dict[str, Any] = Field(description="Figures behind the message, example keys, SQL to see more.")
    synthetic: bool = Field(description="True for made-up nights of the demo.")
    first_seen_at: datetime
    last_seen_at: datetime
    seen_count: int
    acknowledged_at: datetime | None = Field(description="When somebody took it; null: nobody did.")
    acknowledged_by: str | None
    sent_through: list[str] = Field(description="Channels that it was sent through.")
    not_sent: str | None = Field(description="The last failure of a channel that has not been tried since.")


class Alerts(BaseModel):
    """Alerts, open ones first, last seen first."""

    status: Literal["success"] = "success"
    alerts: list[Alert]


class Taken(BaseModel):
    """An alert that is yours now."""

    status: Literal["success"] = "success"
    alert_id: int
    rule: str
    acknowledged_by: str
    acknowledged_at: datetime


class Note(BaseModel):
    """What is said while an alert is taken."""

    note: str | None = Field(
        default=None,
        max_length=NOTE_CHARS,
        description="Why, or what is being done; kept in refund.audit.",
        examples=["phones of hall 2 are being cleaned"],
    )


@router.get("", summary="List alerts", responses=problems(422, 503))
def show(
    desk: DeskDep,
    state: Annotated[
        Literal["open", "all"], Query(description="open: those that nobody has taken; all: these, then the others.")
    ] = "open",
    run_date: Annotated[str | None, Query(description="Of this night alone, YYYY-MM-DD.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="At most so many.")] = 100,
) -> Alerts:
    """What somebody should know, last seen first, and who took what."""
    day = asked_date(run_date, name="run_date") if run_date else None
    found = list_alerts(desk.services.database, acknowledged=state == "all", run_date=day, limit=limit)
    return Alerts(alerts=[_alert(row) for row in found])


@router.post("/{alert_id}/acknowledge", summary="Take an alert", responses=problems(403, 404, 409, 422, 503))
def take(
    desk: DeskDep,
    visitor: Asking,
    alert_id: Annotated[int, Path(ge=1, le=LARGEST_ID, description="Number of the alert.")],
    said: Annotated[Note | None, Body()] = None,
) -> Taken:
    """Take an alert in your name: it is not sent again unless it gets worse. To take your own again changes nothing."""
    services = desk.services
    note = _storable(said.note) if said and said.note else None
    (answer,) = acknowledge(services.database, [alert_id], by=visitor.name, at=services.now(), note=note)
    if answer is None:
        raise DeskError(
            status=404,
            error="no_such_alert",
            message=f"There is no alert {alert_id}.",
            what_to_do="GET api/alerts?state=all lists them.",
        )
    if answer.before and answer.by != visitor.name:
        raise DeskError(
            status=409,
            error="already_taken",
            message=f"{answer.by} took alert {alert_id} at {answer.at:%Y-%m-%d %H:%M} UTC.",
            what_to_do="Nothing is left to do; ask them how it stands.",
            details={"acknowledged_by": answer.by, "acknowledged_at": answer.at.isoformat()},
        )
    return Taken(alert_id=answer.alert_id, rule=answer.rule, acknowledged_by=answer.by, acknowledged_at=answer.at)


def _alert(row: AlertRow) -> Alert:
    return Alert.model_validate(row, from_attributes=True)


def _storable(text: str) -> str:
    """Without what Postgres' jsonb refuses."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")
