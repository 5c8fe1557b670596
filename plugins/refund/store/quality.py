"""Reads what accuracy over time is estimated from, and writes the estimates."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from refund.monitor.quality import Stratum, StratumName

if TYPE_CHECKING:
    from refund.store.database import Database

# Live decisions of the newest photo versions, by what was reviewed of them. In the sample are automatic decisions that
# are marked for audit, and all that were sent to people; a review of a photo that somebody looked for, or that came
# with a file, says nothing of the others. Which of the two, audit or queue, a review was made for may have changed with
# the model since; it was not chosen by what the machine says now either way.
DECISIONS = """
SELECT d.model, d.kind, d.category, rv.category, count(*), count(*) FILTER (WHERE d.audit)
FROM refund.decision d
JOIN refund.run r USING (run_id)
LEFT JOIN LATERAL (
  SELECT v.category FROM refund.review v
  WHERE v.photo_date = d.photo_date AND v.photo_id = d.photo_id AND v.chosen_by IN ('audit', 'queue')
    AND (d.audit OR d.kind = 'review')
  ORDER BY v.reviewed_at DESC, v.review_id DESC LIMIT 1
) rv ON true
WHERE r.run_date > %(week_ending)s::date - %(window_days)s::integer AND r.run_date <= %(week_ending)s
  AND NOT r.synthetic AND d.superseded_by IS NULL AND NOT EXISTS (
    SELECT FROM refund.photo p
    WHERE p.photo_date = d.photo_date AND p.photo_id = d.photo_id AND p.superseded_by IS NOT NULL)
GROUP BY d.model, d.kind, d.category, rv.category
"""

FIRST_NIGHTS = """
SELECT used.model, min(run_date) FROM refund.run, unnest(models) AS used (model)
WHERE state = 'published' AND NOT synthetic GROUP BY used.model
"""

SAVE_QUALITY = """
INSERT INTO refund.quality ({columns}) VALUES ({values})
ON CONFLICT (week_ending, model) DO UPDATE SET {updates}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDecisions:
    """One model's decisions of a window."""

    model: str
    strata: tuple[Stratum, ...]  # auto, then queue
    audits: int  # automatic ones marked for audit
    first_night: date  # of the model, be it before the window


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityRow:
    """One row of ``refund.quality``: what a week's reviews say of one model."""

    week_ending: date
    model: str
    window_days: int
    status: str
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    macro_f1: float | None
    macro_f1_low: float | None
    macro_f1_high: float | None
    decisions: int
    auto: int
    audits: int
    audits_reviewed: int
    queue: int
    queue_reviewed: int
    required_audits: int
    required_accuracy: float
    details: Mapping[str, Any]
    computed_at: datetime


def window_decisions(database: Database, *, week_ending: date, window_days: int) -> list[ModelDecisions]:
    """The decisions of the ``window_days`` run dates that end with ``week_ending``, by model in alphabetical order."""
    values = {"week_ending": week_ending, "window_days": window_days}
    predicted: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    reviewed: dict[tuple[str, str], dict[tuple[str, str], int]] = defaultdict(lambda: defaultdict(int))
    audits: dict[str, int] = defaultdict(int)
    with database.connect(readonly=True) as connection, connection.cursor() as cursor:
        cursor.execute(DECISIONS, values)
        for model, kind, category, truth, count, marked in cursor.fetchall():
            predicted[model, kind][category] += count
            audits[model] += marked
            if truth is not None:
                reviewed[model, kind][truth, category] += count
        cursor.execute(FIRST_NIGHTS)
        first_nights: dict[str, date] = dict(cursor.fetchall())
    kinds = {"auto": StratumName.AUTO, "review": StratumName.QUEUE}
    return [
        ModelDecisions(
            model=model,
            strata=tuple(
                Stratum(name=name, predicted=dict(predicted[model, kind]), reviewed=dict(reviewed[model, kind]))
                for kind, name in kinds.items()
            ),
            audits=audits[model],
            first_night=first_nights.get(model, week_ending),
        )
        for model in sorted({model for model, _ in predicted})
    ]


def save_quality(database: Database, rows: list[QualityRow]) -> None:
    """Write the rows, over those of the same week and model."""
    names = list(QualityRow.__dataclass_fields__)
    statement = SAVE_QUALITY.format(
        columns=", ".join(names),
        values=", ".join(f"%({name})s" for name in names),
        updates=", ".join(f"{name} = EXCLUDED.{name}" for name in names[2:]),
    )
    with database.connect() as connection, connection.cursor() as cursor:
        for row in rows:
            cursor.execute(statement, {**asdict(row), "details": json.dumps(dict(row.details))})
