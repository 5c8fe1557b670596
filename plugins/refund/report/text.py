"""The report for a terminal: a screenful of plain text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from refund.monitor.drift import SAME_WEEKDAY, DriftResult, DriftStatus
from refund.report.figures import ReportFigures
from refund.report.labels import (
    MADE_UP,
    category_label,
    count,
    decimal,
    explain_reason,
    measure_label,
    measure_value,
    milliseconds,
    percent,
    points,
    reason_label,
    seconds,
    stage_label,
    visible,
    weekday,
)
from refund.report.sentence import refunds_sentence, summary_sentence

_EIGHTHS = " ▏▎▍▌▋▊▉"


def render_text(figures: ReportFigures, *, width: int = 80, top: int = 10) -> str:
    """Sentence, counts, the ``top`` largest categories with bars, rejections, drift and stage times.

    Plain Unicode without colours or escape sequences, at most ``width`` columns (from 60 up).
    """
    width = max(60, width)
    lines = [
        *textwrap.wrap(MADE_UP.upper(), width) * figures.synthetic,
        *textwrap.wrap(summary_sentence(figures), width),
        *_counts(figures),
        *_categories(figures, width=width, top=top),
        *_rejections(figures, width=width),
        *_refunds(figures, width=width),
        *_drift(figures, width=width),
        *_alerts(figures, width=width),
        *_foot(figures, width=width),
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def bar(share: float, width: int) -> str:
    """A horizontal bar of ``share`` (0 to 1) of ``width`` columns, in eighths of a column, padded to ``width``."""
    eighths = max(round(share * width * 8), 1 if share > 0 else 0)
    full, rest = divmod(min(eighths, width * 8), 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width)


def _counts(figures: ReportFigures) -> Iterator[str]:
    counts = figures.counts
    yield ""
    yield f"  this run    {count(counts.photos):>9} photos listed"
    yield f"              {count(counts.classified):>9} classified"
    yield f"              {count(counts.rejected):>9} rejected"
    yield f"              {count(counts.unchanged):>9} unchanged since an earlier run"
    sums = figures.reconciliation
    if sums.overtaken:
        yield f"              {count(sums.overtaken):>9} of these published by another run"
    if sums.packed is not None and sums.predicted is not None:
        yield f"              {count(sums.packed):>9} in packs: classified + rejected"
        yield f"              {count(sums.predicted):>9} in prediction files: classified"
    if not sums.adds_up:
        yield "              THESE COUNTS DO NOT ADD UP"
    yield f"  the night   {count(figures.night_photos):>9} photos, {percent(figures.auto_share)} sorted automatically"
    yield f"  in review   {count(figures.review_queue_count):>9} photos, earlier nights included"
    if figures.audits:
        yield f"  to audit    {count(figures.audits):>9} photos drawn for people to check"
    if figures.late_photos:
        yield f"  late        {count(figures.late_photos):>9} photos of earlier dates"


def _categories(figures: ReportFigures, *, width: int, top: int) -> Iterator[str]:
    if not figures.categories:
        return
    yield ""
    yield "Categories"
    shown, others = figures.categories[:top], figures.categories[top:]
    rows = [(category_label(row.category), row.photos, row.share) for row in shown]
    if others:
        rows.append((f"{len(others)} more", sum(row.photos for row in others), sum(row.share for row in others)))
    name_width = min(24, max(len(name) for name, _, _ in rows))
    bar_width = width - name_width - 22
    longest = max(share for _, _, share in rows) or 1.0
    for name, photos, share in rows:
        drawn = bar(share / longest, bar_width)
        yield f"  {_cut(name, name_width):<{name_width}}  {drawn} {count(photos):>8} {percent(share, digits=1):>6}"


def _cut(name: str, width: int) -> str:
    return name if len(name) <= width else f"{name[: width - 1]}…"


def _rejections(figures: ReportFigures, *, width: int) -> Iterator[str]:
    if not figures.rejections:
        return
    yield ""
    yield "Rejected"
    for row in figures.rejections:
        line = f"  {count(row.photos):>6}  {reason_label(row.reason)}: {explain_reason(row.reason)}"
        yield from textwrap.wrap(visible(line), width, subsequent_indent=" " * 10, drop_whitespace=True)


def _refunds(figures: ReportFigures, *, width: int) -> Iterator[str]:
    if figures.departments is None:  # not counted by earlier releases
        return
    yield ""
    yield from textwrap.wrap(f"Refunds with contradictions: {refunds_sentence(figures)}", width, subsequent_indent="  ")


def _drift(figures: ReportFigures, *, width: int) -> Iterator[str]:
    yield ""
    for result in figures.drift:
        if result is not figures.mix and result.threshold is None and result.status is figures.mix.status:
            continue  # not judged either, as the first line says
        text = f"{measure_label(result.measure)}: {drift_text(figures, result)}"
        yield from textwrap.wrap(text, width, subsequent_indent="  ")
        if result.status is DriftStatus.DRIFT:
            for move in result.moves[:3]:
                yield (
                    f"  {_cut(category_label(move.category), 20):<20} {percent(move.tonight_share, digits=1):>6}, "
                    f"usually {percent(move.reference_share, digits=1)} ({points(move.change)} points)"
                )


def _alerts(figures: ReportFigures, *, width: int) -> Iterator[str]:
    for alert in figures.alerts:
        text = f"Alert ({alert.severity}, {visible(alert.rule)}): {visible(alert.message, limit=400)}"
        yield from textwrap.wrap(text, width, subsequent_indent="  ")


def drift_text(figures: ReportFigures, result: DriftResult) -> str:
    """The verdict on one measure in words."""
    before = reference_label(figures, result)
    if result.status is DriftStatus.NO_REFERENCE:
        return "nothing to compare with: no earlier night with photos by this model."
    if result.status is DriftStatus.INSUFFICIENT_DATA:
        return (
            f"too few photos to tell ({count(result.tonight_photos)} tonight, {count(result.reference_photos)} in "
            f"{before})."
        )
    verdict = "differs from" if result.status is DriftStatus.DRIFT else "is like"
    sign = ">" if result.status is DriftStatus.DRIFT else "≤"
    values = ""
    if result.tonight_value is not None and result.reference_value is not None:
        now, usual = (measure_value(each, result.measure) for each in (result.tonight_value, result.reference_value))
        values = f"{now}, usually {usual}; "
    return (
        f"{verdict} {before} ({values}distance {decimal(result.distance)} {sign} threshold "
        f"{decimal(result.threshold)}).{_compared(figures) if result is figures.mix else ''}"
    )


def reference_label(figures: ReportFigures, result: DriftResult) -> str:
    """The nights that a measure compares with, as ``the 28 nights before`` or ``the 4 Saturdays before``."""
    if result.reference_nights == 1:
        return f"the {_unit(figures, result)} before"
    return f"the {result.reference_nights} {_unit(figures, result)}s before"


def _unit(figures: ReportFigures, result: DriftResult) -> str:
    return weekday(figures.run_date) if result.basis == SAME_WEEKDAY else "night"


def _compared(figures: ReportFigures) -> str:
    if len(figures.models) < 2:
        return ""
    return (
        f" More than one model sorted this night: compared are the {count(figures.mix.tonight_photos)} photos by "
        f"{visible(figures.models[0].model)}, with its own earlier nights."
    )


def _foot(figures: ReportFigures, *, width: int) -> Iterator[str]:
    timed = [f"{stage_label(row.stage).lower()} {seconds(row.seconds)}" for row in figures.stages if row.seconds]
    if timed:
        speed = f" ({figures.photos_per_second:,.0f} photos/s)" if figures.photos_per_second else ""
        yield from textwrap.wrap(f"Work: {', '.join(timed)}{speed}", width, subsequent_indent="  ")
    for row in figures.stages:
        if row.p50_ms is not None:
            text = (
                f"{stage_label(row.stage)}: half of the photos within {milliseconds(row.p50_ms)}, 95% within "
                f"{milliseconds(row.p95_ms)}, 99% within {milliseconds(row.p99_ms)}; "
                f"{percent(row.error_share, digits=1)} failed"
            )
            yield from textwrap.wrap(text, width, subsequent_indent="  ")
    for text in figures.notes:
        yield from textwrap.wrap(f"Note: {visible(text)}", width, subsequent_indent="  ")
    models = ", ".join(
        visible(row.model) + (f" ({count(row.photos)} photos)" if len(figures.models) > 1 else "")
        for row in figures.models
    )
    yield from textwrap.wrap(f"Model: {models or visible(figures.model)}   Run: {visible(figures.run_id)}", width)
