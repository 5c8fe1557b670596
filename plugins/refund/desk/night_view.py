"""Puts a night into words and numbers for the page Tonight: pure, from what the stores say of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from refund.desk.alert_view import moment
from refund.desk.problems import one_line
from refund.monitor.drift import MEASURES, DriftResult, DriftStatus
from refund.report.figures import ReportFigures
from refund.report.labels import (
    category_label,
    count,
    decimal,
    long_date,
    measure_label,
    measure_value,
    megabytes,
    percent,
    points,
    visible,
)
from refund.report.sentence import reconciliation_sentences, summary_sentence

if TYPE_CHECKING:
    from refund.records import Reconciliation
    from refund.store.records import DriftRow
    from refund.store.tonight import NightRow

log = logging.getLogger(__name__)

MOVES_SHOWN = 3  # of a measure that differs; of any other the largest
_VERDICTS = {
    "ok": ("As usual", "good"),
    "drift": ("Differs", "bad"),
    "insufficient_data": ("Too few photos", ""),
    "no_reference": ("No reference yet", ""),
}
STATES = {  # of a night or run: what is said of it, and the colour of its badge
    "published": ("Published", "good"),
    "running": ("At work", "review"),
    "failed": ("Failed", "bad"),
    "missing": ("Not run", ""),
    "dry_run": ("Dry run", ""),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One key number."""

    label: str
    value: str
    remark: str
    tone: str = ""  # "", "auto", "review" or "bad": the colour of its edge
    leads_to: str = ""  # path below the desk


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One measure of drift."""

    label: str
    verdict: str
    tone: str  # "", "good" or "bad"
    seen: str  # tonight's value and the usual one; empty where the measure has none
    limits: str  # distance and threshold; empty where nothing was judged
    compared: str  # what with
    moves: tuple[str, ...]  # what moved, largest first


@dataclass(frozen=True, slots=True, kw_only=True)
class NightView:
    """Everything the page says of one night."""

    run_date: date
    state: str  # published, running, failed or missing
    state_label: str
    tone: str
    when: str  # when it was published, or began, and by which model; empty where it did not begin
    sentence: str
    made_up: bool
    cards: tuple[Card, ...]
    adds_up: bool | None  # None: nothing to add up
    counted: str  # in words
    drift_label: str
    drift_tone: str
    measures: tuple[Measure, ...]
    has_report: bool


def night_view(
    night: NightRow,
    *,
    today: date,
    report: Mapping[str, Any] | None,
    sums: Reconciliation | None,
    drift: Sequence[DriftRow],
) -> NightView:
    """The night in words.

    Args:
        night: its runs.
        today: by UTC; a night that is not over yet is not missing.
        report: body of ``refund.report``; None where there is none.
        sums: the published run's counts, for a night without a report; the report has those that it was written with.
        drift: the published run's verdicts.
    """
    figures = _figures(report)
    state = night.state
    label, tone = STATES[state]
    results = [_result(row) for row in sorted(drift, key=lambda row: _place(row.measure))]
    worst = next((r.status for r in results if r.status is DriftStatus.DRIFT), results[0].status if results else None)
    drift_label, drift_tone = _VERDICTS[worst.value] if worst else ("Not measured", "")
    sums = figures.reconciliation if figures else sums
    return NightView(
        run_date=night.run_date,
        state=state,
        state_label=label,
        tone=tone,
        when=_when(night),
        sentence=summary_sentence(figures) if figures else _sentence(night, today=today),
        made_up=bool(night.real_runs) and all(run.synthetic for run in night.real_runs),
        cards=_report_cards(figures) if figures else _run_cards(night),
        adds_up=sums.adds_up if sums else None,
        counted=reconciliation_sentences(sums) if sums else "",
        drift_label=drift_label,
        drift_tone=drift_tone,
        measures=tuple(_measure(result) for result in results),
        has_report=report is not None,
    )


def _figures(report: Mapping[str, Any] | None) -> ReportFigures | None:
    if report is None:
        return None
    try:
        return ReportFigures.from_dict(report)
    except (ValueError, KeyError, TypeError) as exc:  # of a newer release: the page itself still says everything
        log.warning("the figures of a report cannot be read: %s: %s", type(exc).__name__, one_line(exc))
        return None


def _when(night: NightRow) -> str:
    if run := night.published:
        return f"{moment(run.published_at)}, by {visible(run.model)}"
    return f"began {moment(night.real_runs[0].started_at)}" if night.real_runs else ""


def _sentence(night: NightRow, *, today: date) -> str:
    """What there is to say of a night without figures of a report."""
    said = long_date(night.run_date)
    before = (
        f" Analysts still see the night of {long_date(night.last_complete)}."
        if night.last_complete and night.last_complete < night.run_date
        else ""
    )
    if night.state == "published":
        return f"The night of {said} is published. Its report is not there yet."
    if night.state == "running":
        return f"The night of {said} is at work; nothing of it is published yet."
    if night.state == "failed":
        return f"The night of {said} failed: nothing of it is published.{before}"
    if night.run_date >= today:
        return f"The night of {said} has not come yet."
    return f"No run of the night of {said} was published or is at work."


def _report_cards(figures: ReportFigures) -> tuple[Card, ...]:
    total, day = figures.night_photos, figures.run_date
    late = f", {count(figures.late_photos)} late" if figures.late_photos else ""
    days = f"date_from={day}&date_to={day}"
    return (
        Card(
            label="Photos of the night",
            value=count(total),
            remark=f"{megabytes(figures.size_bytes)}{late}",
            leads_to=f"history?{days}",
        ),
        Card(
            label="Sorted automatically",
            value=percent(figures.auto_share),
            remark=f"{count(figures.auto)} photos",
            tone="auto",
            leads_to=f"history?{days}&decision=auto",
        ),
        Card(
            label="Sent to review",
            value=count(figures.review),
            remark=f"{count(figures.review_queue_count)} waited in all",
            tone="review",
            leads_to=f"history?{days}&decision=review",
        ),
        Card(
            label="Could not be used",
            value=count(figures.rejected),
            remark=f"{percent(figures.rejected_share, digits=1)} of the night" if total else "–",
            tone="bad" if figures.rejected else "",
            leads_to=f"history?{days}&outcome=rejected",
        ),
    )


def _run_cards(night: NightRow) -> tuple[Card, ...]:
    """The run's own counts, where no report has those of the night."""
    counts = night.published.counts if night.published else None
    if counts is None:
        return ()
    return (
        Card(label="Photos listed", value=count(counts.photos), remark="by the last run"),
        Card(label="Classified", value=count(counts.classified), remark="by the last run", tone="auto"),
        Card(label="Rejected", value=count(counts.rejected), remark="by the last run", tone="bad"),
        Card(label="Unchanged", value=count(counts.unchanged), remark="since an earlier run"),
    )


def _result(row: DriftRow) -> DriftResult:
    values = {name: value for name, value in asdict(row).items() if name != "details"}
    return DriftResult.from_dict({"folded": (), "moves": (), **row.details, **values})


def _place(measure: str) -> tuple[int, str]:
    return (MEASURES.index(measure) if measure in MEASURES else len(MEASURES), measure)


def _measure(result: DriftResult) -> Measure:
    verdict, tone = _VERDICTS[result.status.value]
    nights = "night" if result.reference_nights == 1 else "nights"
    now, usual = (measure_value(value, result.measure) for value in (result.tonight_value, result.reference_value))
    return Measure(
        label=measure_label(result.measure),
        verdict=verdict,
        tone=tone,
        seen=f"{now}, usually {usual}" if result.tonight_value is not None else "",
        limits=f"distance {decimal(result.distance)}, threshold {decimal(result.threshold)}"
        if result.distance is not None
        else "",
        compared=f"{count(result.tonight_photos)} photos against {count(result.reference_photos)} of "
        f"{count(result.reference_nights)} {nights}"
        if result.reference_nights
        else "no earlier night to compare with",
        moves=tuple(
            f"{category_label(move.category)} {points(move.change)} points "
            f"({percent(move.tonight_share, digits=1)} instead of {percent(move.reference_share, digits=1)})"
            for move in result.moves[: MOVES_SHOWN if result.status is DriftStatus.DRIFT else 1]
        ),
    )
