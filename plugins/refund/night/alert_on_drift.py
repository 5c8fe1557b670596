"""Last task of the night: whatever happened, keep and send what somebody should know, and close the run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, TypedDict

from refund.errors import FatalRunError, ReconciliationError, RefundError
from refund.night.alert_rules import (
    CATEGORY_SHARES,
    EXAMPLE_COUNT,
    VOLUME,
    NightFacts,
    RuleLimits,
    fallen_category,
    grown_category,
    night_findings,
    overdue_finding,
    reconciliation_finding,
)
from refund.night.finding import Finding
from refund.night.notify import Channel, send_pending
from refund.night.services import NightRun, Services
from refund.night.stage_metrics import save_unfinished
from refund.store.alerts import raise_alert, resolve_alerts
from refund.store.drift import get_drift
from refund.store.examples import example_keys, example_photos, example_rejections
from refund.store.progress import run_adds_up

if TYPE_CHECKING:
    from refund.store.records import DriftRow, RunRow

log = logging.getLogger(__name__)

_FAILED = frozenset({"failed", "upstream_failed"})
# What is no longer so once a run of that night has published and ended well.
RESOLVABLE = frozenset({"failed_night", "missing_report", "reconciliation", "overdue", "never_started"})
NO_CHANNELS: Mapping[str, Channel] = MappingProxyType({})


class _Night(TypedDict):
    run_date: date
    count: int
    synthetic: bool


class NightFailedError(FatalRunError):
    """A task before this one failed, so the run ends red; the alert names the tasks."""


def raise_alerts(
    run: NightRun, services: Services, *, task_states: Mapping[str, str], channels: Mapping[str, Channel] = NO_CHANNELS
) -> dict[str, int]:
    """Keep the alerts, close those that are no longer so, close the run's row, send what is unsent, fail if a task did.

    Args:
        run: the run.
        services: the stores.
        task_states: state by task id of every other task of the run.
        channels: where to send, by name.

    Raises:
        NightFailedError: something before failed.
    """
    failed_tasks = sorted(name for name, state in task_states.items() if state in _FAILED)
    now = services.now()
    row = services.repository.get_run(run.run_id)
    drift = get_drift(services.database, run.run_id)
    published = row is not None and row.state == "published"
    facts = NightFacts(
        run_id=run.run_id,
        run_date=run.run_date,
        failed_tasks=failed_tasks,
        published=published,
        dry_run=run.params.dry_run,
        has_report=services.repository.get_report(run_id=run.run_id) is not None,
        counts=row.counts if row else None,
        adds_up=not published or run_adds_up(services.database, run.run_id),
        drift=drift,
    )
    limits = RuleLimits(
        rejected_share=services.settings.alert_rejected_share,
        delivery_weekdays=services.settings.delivery_weekdays,
    )
    findings = [_with_examples(finding, row, drift, services) for finding in night_findings(facts, limits=limits)]
    for finding in findings:
        keep_finding(
            finding,
            run_id=run.run_id,
            run_date=run.run_date,
            services=services,
            at=run.sighted_at(row.started_at) if row else run.begun_at or now,
            synthetic=row is not None and row.synthetic,
        )
    if row is not None and row.state == "published" and row.published_at is not None and not failed_tasks:
        resolve_alerts(
            services.database,
            run_id=run.run_id,
            run_date=run.run_date,
            rules=RESOLVABLE - {finding.rule for finding in findings},
            before=run.sighted_at(row.published_at),
            at=now,
            synthetic=row.synthetic,
        )
    if row is not None:
        if failed_tasks:
            save_unfinished(run.run_id, services)
            services.repository.mark_run_failed(run.run_id, now)
        services.repository.finish_run(run.run_id, now)
    states = send_pending(services, channels)
    if failed_tasks:
        msg = f"the night failed in {', '.join(failed_tasks)}; their logs say why"
        raise NightFailedError(msg)
    return {"alerts": len(findings), **states}


def alert_overdue(*, run_id: str, run_date: date | None, services: Services, begun_at: datetime | None = None) -> None:
    """Keep an alert for a run that has not ended by its deadline; ``begun_at`` as of `NightRun`."""
    row = services.repository.get_run(run_id)
    now = services.now()
    day = row.run_date if row else run_date or now.date()
    finding = overdue_finding(run_id=run_id, run_date=day)
    at = max(row.started_at, begun_at or row.started_at) if row else begun_at or now
    keep_finding(finding, run_id=run_id, run_date=day, services=services, at=at)


def alert_reconciliation(run: NightRun, services: Services, error: ReconciliationError) -> None:
    """Keep an alert for counts that do not agree, at the moment that a task finds it; the last task sends it.

    Whatever prevents it is only logged: the task's own error is the one to tell.
    """
    try:
        row = services.repository.get_run(run.run_id)
        published = row is not None and row.state == "published"
        finding = reconciliation_finding(run.run_date, str(error), published=published)
        at = run.sighted_at(row.started_at) if row else run.begun_at or services.now()
        keep_finding(finding, run_id=run.run_id, run_date=run.run_date, services=services, at=at)
    except RefundError as exc:
        log.warning("No alert could be kept for it: %s", exc)


def keep_finding(
    finding: Finding, *, run_id: str, run_date: date, services: Services, at: datetime, synthetic: bool = False
) -> None:
    """Write one alert; ``at`` is the same whenever it is tried again, so that it counts as one sighting."""
    log.warning("%s: %s", finding.rule, finding.message)
    alert = finding.alert(run_id=run_id, run_date=run_date, synthetic=synthetic)
    raise_alert(services.database, alert, at=at, is_general=finding.is_general)


def _with_examples(finding: Finding, row: RunRow | None, drift: list[DriftRow], services: Services) -> Finding:
    """The finding with photos to look at; examples that cannot be read are left out."""
    if row is None:
        return finding
    night: _Night = {"run_date": row.run_date, "count": EXAMPLE_COUNT, "synthetic": row.synthetic}
    try:
        if finding.rule == "rejection_spike":
            rejected = example_rejections(services.database, **night)
            keys, what = tuple(f"{key} ({reason})" for key, reason in rejected), "rejected photos"
        elif finding.rule == f"drift:{VOLUME}":
            keys, what = tuple(example_keys(services.database, **night)), "photos of the night, any"
        else:
            category, what = _shown_category(finding, drift)
            if category is None:
                return finding
            photos = example_photos(services.database, category=category, **night)
            keys = tuple(photo.key for photo in photos)
    except RefundError as exc:
        log.warning("No example photos for %s: %s", finding.rule, exc)
        return finding
    return replace(finding, examples=keys, examples_are=what) if keys else finding


def _shown_category(finding: Finding, drift: list[DriftRow]) -> tuple[str | None, str]:
    """The category whose photos show best what a measure of drift found, and what they are; None where none does."""
    rows = {f"drift:{row.measure}": row for row in drift}
    measured, whole = rows.get(finding.rule), rows.get(f"drift:{CATEGORY_SHARES}")
    if measured is None:
        return None, ""
    if (category := grown_category(measured)) is not None:
        return category, f"photos of {category}, surest first"
    fallen, grown = fallen_category(measured), grown_category(whole) if whole else None
    if fallen is None or grown is None:
        return None, ""
    return grown, f"photos of {grown}, which grew most while {fallen} shrank, surest first"
