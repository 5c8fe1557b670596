"""Last task of the night: whatever happened, say what somebody should know, and close the run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

from refund.errors import FatalRunError
from refund.night.services import NightRun, Services
from refund.store.alerts import raise_alert
from refund.store.drift import get_drift
from refund.store.records import Alert

log = logging.getLogger(__name__)

_FAILED = frozenset({"failed", "upstream_failed"})


class NightFailedError(FatalRunError):
    """A task before this one failed, so the run ends red; the alert names the tasks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something wrong with a night; the same ``rule`` for the same run is the same alert."""

    rule: str  # failed_night | missing_report | drift | overdue
    severity: str  # info | warning | critical
    message: str


def night_findings(
    *, failed_tasks: list[str], published: bool, dry_run: bool, has_report: bool, drift: Mapping[str, str]
) -> list[Finding]:
    """Decide what to raise; pure.

    Args:
        failed_tasks: ids of the tasks that failed or never ran because of one that did.
        published: whether the run's rows are visible.
        dry_run: whether it was asked to publish nothing.
        has_report: whether the report row is there.
        drift: status per measure.
    """
    findings = []
    if failed_tasks:
        told = ", ".join(failed_tasks)
        what = "published, but not finished" if published else "not published: analysts still see the night before"
        findings.append(
            Finding(
                rule="failed_night",
                severity="warning" if published else "critical",
                message=f"The night is {what}. Failed: {told}. Read the first failed task's log, mend, clear that task",
            )
        )
    if not has_report and not dry_run:
        findings.append(
            Finding(
                rule="missing_report",
                severity="warning",
                message="The night has no report. Clear the task generate_report once the night is published",
            )
        )
    findings.extend(
        Finding(
            rule=f"drift:{measure}",
            severity="warning",
            message=f"{measure.replace('_', ' ')} drifted from the reference nights; the report says what moved",
        )
        for measure, status in sorted(drift.items())
        if status == "drift"
    )
    return findings


def raise_alerts(run: NightRun, services: Services, *, task_states: Mapping[str, str]) -> dict[str, int]:
    """Write the alerts, close the run's row, and fail if anything before failed.

    Args:
        run: the run.
        services: the stores.
        task_states: state by task id of every other task of the run.

    Raises:
        NightFailedError: something before failed.
    """
    failed_tasks = sorted(name for name, state in task_states.items() if state in _FAILED)
    now = services.now()
    row = services.repository.get_run(run.run_id)
    findings = night_findings(
        failed_tasks=failed_tasks,
        published=row is not None and row.state == "published",
        dry_run=run.params.dry_run,
        has_report=services.repository.get_report(run_id=run.run_id) is not None,
        drift={row.measure: row.status for row in get_drift(services.database, run.run_id)},
    )
    for finding in findings:
        _raise(finding, run_id=run.run_id, run_date=run.run_date, services=services, at=row.started_at if row else now)
    if row is not None:
        if failed_tasks:
            services.repository.mark_run_failed(run.run_id, now)
        services.repository.finish_run(run.run_id, now)
    if failed_tasks:
        msg = f"the night failed in {', '.join(failed_tasks)}; their logs say why"
        raise NightFailedError(msg)
    return {"alerts": len(findings)}


def alert_overdue(*, run_id: str, run_date: date | None, services: Services) -> None:
    """Raise an alert for a run that has not ended by its deadline."""
    row = services.repository.get_run(run_id)
    now = services.now()
    _raise(
        Finding(
            rule="overdue",
            severity="critical",
            message=f"The run {run_id} had not ended at its deadline; look at its tasks in Airflow",
        ),
        run_id=run_id,
        run_date=row.run_date if row else run_date or now.date(),
        services=services,
        at=now,
    )


def _raise(finding: Finding, *, run_id: str, run_date: date, services: Services, at: datetime) -> None:
    """Write one alert; ``at`` is the same whenever a task is tried again, so that it counts as one sighting."""
    log.warning("%s: %s", finding.rule, finding.message)
    alert = Alert(
        rule=finding.rule,
        dedupe_key=f"{finding.rule}/{run_id}",
        severity=finding.severity,
        run_id=run_id,
        run_date=run_date,
        message=finding.message,
    )
    raise_alert(services.database, alert, at=at)
