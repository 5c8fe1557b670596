"""Measures how good the decisions of a week were, from people's reviews, and raises an alert where they were not."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING

from refund.monitor.quality import (
    AuditPace,
    QualityEstimate,
    QualityStatus,
    Stratum,
    StratumName,
    estimate_quality,
    judge_quality,
    tell_audits,
)
from refund.store.alerts import raise_alert
from refund.store.quality import ModelDecisions, QualityRow, save_quality, window_decisions
from refund.store.records import Alert

if TYPE_CHECKING:
    from refund.night.services import Services
    from refund.settings import Settings

log = logging.getLogger(__name__)

ALERT_RULE = "accuracy"


def measure_quality(week_ending: date, services: Services) -> list[QualityRow]:
    """One row per model that decided in the window ending with ``week_ending``; nothing is written.

    The window has ``quality_window_days`` run dates. Only the newest versions of photos and their live decisions count.
    """
    settings = services.settings
    found = window_decisions(services.database, week_ending=week_ending, window_days=settings.quality_window_days)
    at = services.now()
    return [_row(decisions, week_ending=week_ending, settings=settings, at=at) for decisions in found]


def record_quality(week_ending: date, services: Services, *, run_id: str, at: datetime) -> dict[str, str]:
    """Measure the week, write its rows over those there were, raise an alert per model that is low; return statuses.

    ``run_id`` and ``at`` are the run's and its time, not the clock's: a task tried again is no other sighting.
    """
    rows = measure_quality(week_ending, services)
    save_quality(services.database, rows)
    if not rows:
        log.info("%s", no_decisions(week_ending, services.settings.quality_window_days))
    for row in rows:
        told = tell_quality(row)
        if row.status != QualityStatus.LOW:
            log.info("%s", told)
            continue
        log.warning("%s: %s", ALERT_RULE, told)
        alert = Alert(
            rule=ALERT_RULE,
            dedupe_key=f"{ALERT_RULE}/{week_ending}/{row.model}",
            severity="warning",
            run_id=run_id,
            run_date=week_ending,
            message=f"{told} Look at the categories in reporting.model_quality; go back with: refund model rollback",
            details={
                "seen": told,
                "action": "Look at the categories with the SQL below; go back with: refund model rollback",
                "sql": f"SELECT * FROM reporting.model_quality WHERE week_ending = DATE '{week_ending}'",  # noqa: S608 -- a date
                "figures": {"accuracy_low": row.accuracy_low, "required_accuracy": row.required_accuracy},
            },
        )
        raise_alert(services.database, alert, at=at)
    return {row.model: row.status for row in rows}


def tell_quality(row: QualityRow) -> str:
    """A row in words: the status, the estimates with their intervals, and how many audits they rest on."""
    said = f"{row.model}, {row.window_days} days to {row.week_ending}: {row.status}."
    if row.accuracy is None or row.accuracy_low is None or row.accuracy_high is None:
        said += f" {row.details['why_not']}"
    else:
        said += f" Accuracy {row.accuracy:.1%} ({row.accuracy_low:.1%} to {row.accuracy_high:.1%}"
        said += f", required {row.required_accuracy:.1%}), macro-F1 {row.macro_f1:.2f}"
        said += f" ({row.macro_f1_low:.2f} to {row.macro_f1_high:.2f}), of {row.decisions} decisions."
        said += f" {row.queue_reviewed} of {row.queue} in the queue are reviewed"
        wanted = min(row.required_audits, row.queue)
        said += "." if row.queue_reviewed >= wanted else f", {wanted} are wanted: refund review queue."
    return f"{said} Audits: {row.details['audits']}"


def no_decisions(week_ending: date, window_days: int) -> str:
    """What to say of a window in which no model decided anything."""
    return f"No decisions in the {window_days} days to {week_ending}: no night with photos was published"


def _row(found: ModelDecisions, *, week_ending: date, settings: Settings, at: datetime) -> QualityRow:
    auto, queue = found.strata
    estimate = estimate_quality(found.strata)
    status = judge_quality(
        estimate,
        found.strata,
        required_audits=settings.quality_min_audits,
        required_accuracy=settings.quality_min_accuracy,
    )
    pace = AuditPace(
        marked=found.audits,
        reviewed=auto.reviews,
        decisions=auto.decisions,
        required=min(settings.quality_min_audits, auto.decisions),
        window_days=settings.quality_window_days,
        audit_share=settings.audit_share,
        week_ending=week_ending,
        first_night=found.first_night,
    )
    details = {
        "audits": tell_audits(pace),
        "strata": {
            stratum.name.value: {"decisions": stratum.decisions, "reviewed": stratum.reviews, "right": stratum.right}
            for stratum in found.strata
        },
        **_told(estimate, found.strata),
    }
    accuracy, macro_f1 = (estimate.accuracy, estimate.macro_f1) if estimate else (None, None)
    return QualityRow(
        week_ending=week_ending,
        model=found.model,
        window_days=settings.quality_window_days,
        status=status.value,
        accuracy=accuracy.value if accuracy else None,
        accuracy_low=accuracy.low if accuracy else None,
        accuracy_high=accuracy.high if accuracy else None,
        macro_f1=macro_f1.value if macro_f1 else None,
        macro_f1_low=macro_f1.low if macro_f1 else None,
        macro_f1_high=macro_f1.high if macro_f1 else None,
        decisions=auto.decisions + queue.decisions,
        auto=auto.decisions,
        audits=found.audits,
        audits_reviewed=auto.reviews,
        queue=queue.decisions,
        queue_reviewed=queue.reviews,
        required_audits=settings.quality_min_audits,
        required_accuracy=settings.quality_min_accuracy,
        details=details,
        computed_at=at,
    )


def _told(estimate: QualityEstimate | None, strata: Sequence[Stratum]) -> dict[str, object]:
    """The categories or, without an estimate, why there is none."""
    if estimate is not None:
        return {"categories": estimate.details()}
    names = {
        StratumName.AUTO: f"automatic decisions ({strata[0].decisions}, refund review queue --audit)",
        StratumName.QUEUE: f"decisions sent to people ({strata[1].decisions}, refund review queue)",
    }
    silent = [names[stratum.name] for stratum in strata if stratum.decisions and not stratum.reviews]
    return {"why_not": f"Nothing can be said yet: no review of the {' and none of the '.join(silent)}."}
