"""The rules: what of a night somebody should know, with the figures, how sure it is, and what to do. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING, Any

from refund.night.finding import REAL, Finding

if TYPE_CHECKING:
    from refund.records import OutcomeCounts
    from refund.store.records import DriftRow

REJECTION_RATE = "rejection_rate"  # the drift measure that has a rule of its own; these as refund.monitor.drift
VOLUME = "volume"
LARGEST_MOVE = "largest_move"
CATEGORY_SHARES = "category_shares"
_DRIFT_FIGURES = (
    "measure", "distance", "threshold", "p_value", "floor", "alpha", "overdispersion", "tonight_photos",
    "reference_photos", "reference_nights",
)  # fmt: skip
EXAMPLE_COUNT = 10
_NAMED = 3
_Z = 2.326  # 99 %, one-sided
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_LOOK_AT_DRIFT = (
    "Open the morning report at drift and look at the photos; then decide whether the goods changed or the photos did. "
    "If the model is to blame: refund model rollback"
)
_NONE_REJECTED = "None: fewer photos were rejected, and no photo shows that it would have been on the nights before"


@dataclass(frozen=True, slots=True, kw_only=True)
class NightFacts:
    """What the rules look at when the last task of a night begins."""

    run_id: str
    run_date: date
    failed_tasks: Sequence[str]  # that failed, or never ran because of one that did
    published: bool  # whether its rows are visible
    dry_run: bool  # whether it was asked to publish nothing
    has_report: bool
    counts: OutcomeCounts | None = None  # of the run, once known
    adds_up: bool = True  # what reporting.reconciliation says of a published run
    drift: Sequence[DriftRow] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleLimits:
    """What an operator sets."""

    rejected_share: float = 0.2  # ratio, 0 to 1
    delivery_weekdays: frozenset[int] = frozenset(range(7))  # Monday is 0


def night_findings(night: NightFacts, *, limits: RuleLimits) -> list[Finding]:
    """Decide what to raise at the end of a night; examples are left to the caller."""
    findings = []
    if night.failed_tasks:
        findings.append(_failed_night(night))
    if night.published:
        if not night.adds_up:
            findings.append(
                replace(
                    reconciliation_finding(night.run_date, "the tables of the night do not add up", published=True),
                    is_general=True,
                )
            )
        if not night.has_report:
            findings.append(_missing_report(night))
        empty = _is_empty(night)
        if empty and night.run_date.weekday() in limits.delivery_weekdays:
            findings.append(_no_photos(night))
        # Whether a night without any photo is an alert is no_photos' alone to say: a shop may be closed on Sundays.
        drifted = [row for row in night.drift if row.status == "drift" and not (row.measure == VOLUME and empty)]
        findings += [drift_finding(row) for row in drifted]
        if (spike := _rejection_spike(night, limits)) is not None:
            findings.append(spike)
    return findings


def drift_finding(row: DriftRow) -> Finding:
    """The alert for one measure with the status drift; a rejection rate that rose is a rejection spike."""
    spike = row.measure == REJECTION_RATE and _rose(row) is not False
    seen = f"Drift: {row.measure.replace('_', ' ')} of the night of {row.run_date} moved{_told_values(row)}"
    if row.distance is not None and row.threshold is not None:
        seen += f" by {row.distance:.3g}, more than the threshold {row.threshold:.3g}"
    if told := _told_moves(row.details):
        seen += f". Most: {told}" if len(_moves(row.details)) > 1 else f": {told}"
    return Finding(
        rule="rejection_spike" if spike else f"drift:{row.measure}",
        severity="warning",
        seen=seen,
        against=f"Tonight's {row.tonight_photos:,} photos against {row.reference_photos:,} of {_told_nights(row)}",
        certainty=_certainty(row),
        action=_LOOK_AT_REJECTIONS if spike else _LOOK_AT_DRIFT,
        sql=_rejections_sql(row.run_date) if spike else _drift_sql(row),
        no_examples=_NONE_REJECTED if row.measure == REJECTION_RATE and not spike else "",
        figures={name: getattr(row, name) for name in _DRIFT_FIGURES},
    )


def grown_category(row: DriftRow) -> str | None:
    """The category whose share grew most, of which there are photos to look at; None where the measure names none."""
    grown = [(change, name) for name, change, _, _ in _moves(row.details) if change > 0]
    return max(grown, key=lambda item: item[0])[1] if grown else None


def fallen_category(row: DriftRow) -> str | None:
    """The category that the measure is about where that one's share shrank; None for other measures and moves."""
    moves = _moves(row.details)
    return moves[0][0] if row.measure == LARGEST_MOVE and moves and moves[0][1] < 0 else None


def reconciliation_finding(run_date: date, seen: str, *, published: bool) -> Finding:
    """The alert for counts that do not agree, found by ``persist`` or after it."""
    state = "It is published: analysts see it" if published else "Nothing of it is published"
    return Finding(
        rule="reconciliation",
        severity="critical",
        seen=f"Reconciliation failed for the night of {run_date}: {seen.rstrip('.')}. {state}",
        against="Expected: every photo of the manifest has exactly one outcome, and manifest, packs and tables agree",
        action="Do not rely on this night. Compare its row with persist's log, then clear the run from fetch on",
        sql=f"SELECT * FROM reporting.reconciliation WHERE run_date = DATE '{run_date}' {REAL}",  # noqa: S608 -- a date
    )


def overdue_finding(*, run_id: str, run_date: date) -> Finding:
    """The alert for a run that has not ended by its deadline."""
    return Finding(
        rule="overdue",
        severity="critical",
        seen=f"The run {run_id} had not ended at its deadline",
        against="Expected: it ends within 4 hours after it was queued",
        action="Look at its tasks in Airflow: which one hangs or waits, and its log. Nothing was stopped",
        sql=_runs_sql(run_date),
    )


def never_started_finding(run_date: date, *, by: str) -> Finding:
    """The alert for a night of which no run began, raised from outside Airflow."""
    return Finding(
        rule="never_started",
        severity="critical",
        seen=f"No run of the night of {run_date} has begun",
        against=f"Expected: it is published by {by} UTC",
        action=(
            "Look whether Airflow's scheduler runs, whether refund_nightly is paused, and whether its health_check "
            "failed; then trigger it with that run date"
        ),
        sql=(
            "SELECT run_date, run_id, state, started_at, published_at FROM reporting.runs "
            "WHERE NOT synthetic ORDER BY started_at DESC LIMIT 5"
        ),
    )


def not_published_finding(run_date: date, *, by: str, state: str) -> Finding:
    """The alert for a night that began and is not there in time, raised from outside Airflow."""
    return Finding(
        rule="overdue",
        severity="critical",
        seen=f"The night of {run_date} is not published; its last run is {state}",
        against=f"Expected: it is published by {by} UTC",
        action="Look at its tasks in Airflow: which one failed, hangs or waits, and its log",
        sql=_runs_sql(run_date),
    )


def lower_bound(count: int, of: int) -> float:
    """The share that ``count`` of ``of`` photos prove at 99 %: the lower end of the one-sided Wilson score interval.

    Wilson (1927), "Probable inference, the law of succession, and statistical inference", JASA 22. 0 of none is 0.
    """
    if not of:
        return 0.0
    share, z2 = count / of, _Z * _Z
    centre = share + z2 / (2 * of)
    spread = _Z * math.sqrt(share * (1 - share) / of + z2 / (4 * of * of))
    return max(0.0, (centre - spread) / (1 + z2 / of))


_LOOK_AT_REJECTIONS = (
    "Look at the reasons: most of one reason is a fault of a phone, an upload or a limit. Mend it, then put the photos "
    "back with: refund requeue"
)


def _is_empty(night: NightFacts) -> bool:
    """Whether the night has no photo of its own; its run may have looked again at those of ``late_days`` before it."""
    volume = next((row for row in night.drift if row.measure == VOLUME), None)
    if volume is not None:
        return not volume.tonight_photos
    return night.counts is not None and not night.counts.photos


def _failed_night(night: NightFacts) -> Finding:
    what = "published, but not finished" if night.published else "not published: analysts still see the night before"
    count = len(night.failed_tasks)
    named = ", ".join(night.failed_tasks[:_NAMED]) + (f" and {count - _NAMED} more" if count > _NAMED else "")
    return Finding(
        rule="failed_night",
        severity="warning" if night.published else "critical",
        seen=f"The night of {night.run_date} failed in {named}. It is {what}",
        action="Read the first failed task's log in Airflow, mend what it says, clear that task",
        sql=_runs_sql(night.run_date),
        examples=tuple(night.failed_tasks[:EXAMPLE_COUNT]),
        examples_are="failed tasks" if count <= EXAMPLE_COUNT else f"failed tasks, {EXAMPLE_COUNT} of {count}",
        figures={"failed_tasks": count},
    )


def _missing_report(night: NightFacts) -> Finding:
    return Finding(
        rule="missing_report",
        severity="warning",
        seen=f"The night of {night.run_date} is published and has no report",
        action="Clear the task generate_report; its log says why there is none",
        sql=_runs_sql(night.run_date),
    )


def _no_photos(night: NightFacts) -> Finding:
    return Finding(
        rule="no_photos",
        severity="warning",
        seen=f"The night of {night.run_date} found no photos at all",
        against=f"Expected: deliveries on a {_WEEKDAYS[night.run_date.weekday()]} (setting alert_no_photos)",
        action=(
            f"Look whether photos lie below incoming/{night.run_date}/ in the bucket; if not, ask the warehouse "
            f"whether uploads work"
        ),
        sql=(
            "SELECT run_date, run_id, photos, classified, rejected, unchanged FROM reporting.runs "  # noqa: S608 -- a date
            f"WHERE run_date > DATE '{night.run_date}' - 14 {REAL} ORDER BY run_date, started_at"
        ),
    )


def _rejection_spike(night: NightFacts, limits: RuleLimits) -> Finding | None:
    """By the absolute limit, for nights whose rejection rate drift did not judge."""
    judged = {row.measure for row in night.drift if row.status in {"ok", "drift"}}
    if REJECTION_RATE in judged or night.counts is None:
        return None
    rejected, of = night.counts.rejected, night.counts.classified + night.counts.rejected
    low = lower_bound(rejected, of)
    if low <= limits.rejected_share:
        return None
    return Finding(
        rule="rejection_spike",
        severity="warning",
        seen=f"The night of {night.run_date} rejected {rejected:,} of {of:,} photos, {rejected / of:.1%}",
        against=(
            f"The limit is {limits.rejected_share:.1%} (setting alert_rejected_share); there were too few reference "
            f"nights or photos to compare with"
        ),
        certainty=f"With 99 % certainty such nights reject at least {low:.1%}",
        action=_LOOK_AT_REJECTIONS,
        sql=_rejections_sql(night.run_date),
        figures={"rejected": rejected, "photos": of, "low": low, "limit": limits.rejected_share},
    )


def _moves(details: Mapping[str, Any]) -> list[tuple[str, float, float, float]]:
    """Name, change, and both shares of what a drift row says moved, largest first."""
    return [
        (
            str(move["category"]),
            float(move["tonight_share"]) - float(move["reference_share"]),
            float(move["tonight_share"]),
            float(move["reference_share"]),
        )
        for move in details.get("moves") or ()
    ]


def _told_moves(details: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} from {theirs:.1%} to {ours:.1%} ({change * 100:+.1f} points)"
        for name, change, ours, theirs in _moves(details)[:_NAMED]
    )


def _rose(row: DriftRow) -> bool | None:
    """Whether what the measure measures rose; None where it does not say."""
    tonight, before = row.details.get("tonight_value"), row.details.get("reference_value")
    return None if tonight is None or before is None else tonight > before


def _told_values(row: DriftRow) -> str:
    """From what to what, for measures of one figure."""
    tonight, before = row.details.get("tonight_value"), row.details.get("reference_value")
    if tonight is None or before is None or _moves(row.details):
        return ""
    if row.measure == VOLUME:
        return f" from {before:,.0f} photos (geometric mean) to {tonight:,.0f}, that is"
    return f" from {before:.1%} to {tonight:.1%}, that is"


def _told_nights(row: DriftRow) -> str:
    """Which nights it was compared with."""
    nights = [str(night) for night in row.details.get("nights") or ()]
    kind = "of the same weekday " if row.details.get("basis") == "same_weekday" else ""
    if row.reference_nights == 1:
        return f"the one reference night {nights[0] if nights else 'before it'}"
    if not nights:
        return f"the {row.reference_nights} reference nights before it"
    return f"the {row.reference_nights} reference nights {kind}from {nights[0]} to {nights[-1]}"


def _certainty(row: DriftRow) -> str:
    parts = []
    if row.p_value is not None:
        parts.append(f"p-value {row.p_value:.2g}")
    if row.alpha is not None:
        parts.append(
            f"the stated rate of false alarms is {row.alpha:.1%} of nights without drift, all measures together"
        )
    if row.threshold is not None and row.floor is not None:
        why = "the floor" if row.threshold <= row.floor else "what chance alone exceeds at that rate"
        parts.append(f"the threshold is {why}")
    if row.overdispersion is not None:
        parts.append(f"overdispersion between nights {row.overdispersion:.2g} is allowed for")
    told = "; ".join(parts)
    return told[:1].upper() + told[1:]


def _drift_sql(row: DriftRow) -> str:
    category = grown_category(row) or next((name for name, *_ in _moves(row.details)), None)
    if category is None:
        return (
            "SELECT run_date, run_id, status, distance, threshold, p_value, details FROM reporting.drift "  # noqa: S608 -- quoted below
            f"WHERE measure = {_quoted(row.measure)} AND run_date > DATE '{row.run_date}' - 28 {REAL} "
            "ORDER BY run_date"
        )
    return (
        "SELECT run_date, photos, share, auto, review FROM reporting.daily_categories "  # noqa: S608 -- quoted below
        f"WHERE category = {_quoted(category)} AND run_date > DATE '{row.run_date}' - 28 {REAL} ORDER BY run_date"
    )


def _rejections_sql(run_date: date) -> str:
    return (
        "SELECT reason, count(*) AS photos, min(key) AS example FROM reporting.rejections "  # noqa: S608 -- a date
        f"WHERE run_date = DATE '{run_date}' {REAL} GROUP BY reason ORDER BY photos DESC"
    )


def _runs_sql(run_date: date) -> str:
    return (
        "SELECT run_id, state, photos, classified, rejected, unchanged, started_at, published_at, finished_at, notes "  # noqa: S608 -- a date
        f"FROM reporting.runs WHERE run_date = DATE '{run_date}' {REAL} ORDER BY started_at"
    )


def _quoted(text: str) -> str:
    """A literal of standard SQL (standard_conforming_strings, Postgres's default)."""
    return "'" + text.replace("'", "''") + "'"
