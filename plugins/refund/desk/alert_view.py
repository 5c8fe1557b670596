"""Puts alerts into words for pages: pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from refund.report.labels import short_date, visible

if TYPE_CHECKING:
    from refund.store.alerts import AlertRow

TEXT_CHARS = 1_000
EXAMPLES_SHOWN = 5
_TONES = {"critical": "bad", "warning": "review", "info": ""}
_GRAVEST_FIRST = ("critical", "warning", "info")


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertView:
    """One alert, ready to print."""

    alert_id: int
    rule: str
    severity: str
    tone: str  # "", "review" or "bad"
    run_date: date
    seen: str  # what it is about, in a sentence
    more: str  # what that is compared with and how sure it is; may be empty
    action: str  # what to do; may be empty
    examples_are: str
    examples: tuple[str, ...]
    sql: str
    when: str  # first and last seen, how often, and who was told
    taken_by: str  # empty: nobody
    taken_at: str
    made_up: bool


def alert_view(row: AlertRow) -> AlertView:
    """The alert with every text from outside made visible."""
    details = row.details
    seen = _text(details.get("seen")) or _text(row.message)
    more = " ".join(part.rstrip(".") + "." for name in ("against", "certainty") if (part := _text(details.get(name))))
    examples = details.get("examples")
    return AlertView(
        alert_id=row.alert_id,
        rule=visible(row.rule),
        severity=row.severity,
        tone=_TONES.get(row.severity, ""),
        run_date=row.run_date,
        seen=seen.rstrip(".") + ".",
        more=more,
        action=_text(details.get("action")),
        examples_are=_text(details.get("examples_are")) or "examples",
        examples=tuple(_text(each) for each in examples[:EXAMPLES_SHOWN]) if isinstance(examples, list) else (),
        sql=details["sql"] if isinstance(details.get("sql"), str) else "",
        when=_when(row),
        taken_by=visible(row.acknowledged_by or ""),
        taken_at=moment(row.acknowledged_at),
        made_up=row.synthetic,
    )


def gravest_first(rows: list[AlertRow]) -> list[AlertRow]:
    """Critical ones first, otherwise in the order they have."""
    return sorted(rows, key=lambda row: _GRAVEST_FIRST.index(row.severity))


def moment(at: datetime | None) -> str:
    """``21 Nov, 02:07 UTC``; empty for None."""
    return f"{short_date(at.date())}, {at:%H:%M} UTC" if at else ""


def _when(row: AlertRow) -> str:
    text = f"first seen {moment(row.first_seen_at)}"
    if row.seen_count > 1:
        text += f", {row.seen_count} times, last {moment(row.last_seen_at)}"
    text += f"; sent through {', '.join(map(visible, row.sent_through))}" if row.sent_through else "; sent to nobody"
    if row.not_sent and row.acknowledged_at is None:
        text += f"; failed: {visible(row.not_sent, limit=300)}"
    return text


def _text(value: Any) -> str:
    return visible(value, limit=TEXT_CHARS) if isinstance(value, str) else ""
