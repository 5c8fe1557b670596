"""A finding: something that somebody should know, in the parts that every alert has. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from refund.store.records import Alert

REAL, MADE_UP = "AND NOT synthetic", "AND synthetic"  # what the SQL of alerts reads


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that somebody should know; the same rule, run date and subject are the same alert."""

    rule: str
    severity: str  # info, warning or critical
    seen: str  # one sentence; where something moved: what, and by how much
    against: str = ""  # what it is compared with
    certainty: str = ""  # how sure it is
    action: str  # what to do
    sql: str = ""  # one SELECT over schema reporting, ready to paste
    subject: str = ""  # tells apart alerts of one rule and date
    examples: tuple[str, ...] = ()  # hostile text: keys
    examples_are: str = ""  # what they are examples of
    no_examples: str = ""  # why there are none, where somebody would look for them
    figures: Mapping[str, Any] = field(default_factory=dict)  # JSON values
    is_general: bool = False  # what was said of the same sighting in detail stays

    @property
    def message(self) -> str:
        """All of it but examples and SQL, in one line."""
        return " ".join(
            part.rstrip(".") + "." for part in (self.seen, self.against, self.certainty, self.action) if part
        )

    def alert(self, *, run_id: str, run_date: date, synthetic: bool = False) -> Alert:
        """The alert to keep; of a made-up night it is never the same alert as of the real night of that date."""
        details = {
            name: value
            for name in ("seen", "against", "certainty", "action", "sql", "examples_are", "no_examples")
            if (value := getattr(self, name))
        }
        return Alert(
            rule=self.rule,
            dedupe_key="/".join(
                part for part in (self.rule, run_date.isoformat(), self.subject, "made-up" if synthetic else "") if part
            ),
            severity=self.severity,
            run_id=run_id,
            run_date=run_date,
            message=self.message,
            details=details
            | ({"sql": self.sql.replace(REAL, MADE_UP)} if synthetic and self.sql else {})
            | {"examples": list(self.examples), "figures": dict(self.figures)},
        )
