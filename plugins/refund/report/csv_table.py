"""The report as a long, tidy table for spreadsheets: one figure per row."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from refund.report.figures import ReportFigures
from refund.report.labels import MADE_UP, visible

COLUMNS = ("run_date", "run_id", "section", "name", "measure", "value")
FORMULA_STARTS = frozenset("=+-@＝＋－＠")  # the wide forms count in East Asian spreadsheets


def render_csv(figures: ReportFigures) -> str:
    """All figures as CSV (RFC 4180, header first, UTF-8 when encoded).

    ``section`` and ``name`` say what a row is about (``category``, ``shoes``), ``measure`` what is counted
    (``photos``), ``value`` holds the number or text; shares are ratios, 0 to 1, not rounded. A text that a spreadsheet
    would run as a formula (after any spaces and apostrophes it starts with ``= + - @`` or their wide forms) gets a
    leading apostrophe; numbers never do.
    """
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\r\n")
    table.writerow(COLUMNS)
    for section, name, measure, value in _rows(figures):
        table.writerow(
            [figures.run_date.isoformat(), *map(_cell, (figures.run_id, section, name, measure)), _cell(value)]
        )
    return buffer.getvalue()


def _cell(value: str | float | bool | None) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return repr(value)
    return guarded(visible(value, limit=2_000))


def guarded(text: str) -> str:
    """A cell that no spreadsheet runs as a formula, for a text from outside; `unguarded` gives the text back."""
    return f"'{text}" if _is_formula(text) else text


def unguarded(text: str) -> str:
    """The text that `guarded` was given."""
    return text[1:] if text.startswith("'") and _is_formula(text) else text


def _is_formula(text: str) -> bool:
    """Whether it begins so after whatever a spreadsheet may pass over: all kinds of spaces, marks nobody sees.

    Apostrophes are passed over too. So a text that has one of its own gets another, and each comes back as it was.
    """
    first = next((char for char in text if char not in " '" and char.isprintable()), "")
    return first in FORMULA_STARTS


def _rows(figures: ReportFigures) -> Iterator[tuple[str, str, str, str | float | bool | None]]:
    for name in ("model", "model_summary", "taxonomy_version", "code_version", "synthetic"):
        yield "run", name, "value", getattr(figures, name)
    if figures.synthetic:
        yield "run", "synthetic", "text", MADE_UP
    yield "run", "generated_at", "value", figures.generated_at.isoformat()
    for name in ("photos", "classified", "rejected", "unchanged"):
        yield "run", name, "photos", getattr(figures.counts, name)
    yield "run", "late_photos", "photos", figures.late_photos
    yield "run", "photos_per_second", "photos_per_second", figures.photos_per_second
    for name in (
        *("manifest", "packed", "predicted", "outcomes", "classified", "rejected", "unchanged", "overtaken"),
        *("decisions", "adds_up"),
    ):
        yield "reconciliation", name, "value", getattr(figures.reconciliation, name)
    yield "night", "all", "photos", figures.night_photos
    for name in ("auto", "review", "rejected"):
        yield "night", name, "photos", getattr(figures, name)
    yield "night", "audits", "photos", figures.audits
    yield "night", "auto", "share", figures.auto_share
    yield "night", "rejected", "share", figures.rejected_share
    yield "night", "all", "size_bytes", figures.size_bytes
    yield "review_queue", "all", "photos", figures.review_queue_count
    for model in figures.models:
        yield "model", model.model, "photos", model.photos
        if model.evaluation:
            for measure in ("set_name", "photos", "accuracy", "low", "high"):
                yield "evaluation", model.model, measure, getattr(model.evaluation, measure)
    for row in figures.categories:
        for measure in ("photos", "share", "auto", "review", "mean_score", "reference_share"):
            yield "category", row.category, measure, getattr(row, measure)
    for reason in figures.rejections:
        yield "rejection", reason.reason, "photos", reason.photos
        for key in reason.example_keys:
            yield "rejection", reason.reason, "example_key", key
    for quality in figures.quality:
        yield "quality", quality.label, "photos", quality.photos
    for stage in figures.stages:
        for measure in ("seconds", "photos", "failed", "error_share", "p50_ms", "p95_ms", "p99_ms"):
            yield "stage", stage.stage, measure, getattr(stage, measure)
    yield from _refund_rows(figures)
    for drift in figures.drift:
        yield "drift", drift.measure, "status", drift.status.value
        for measure in (
            *("distance", "threshold", "floor", "chance", "alpha", "alpha_part", "p_value", "overdispersion"),
            *("tonight_value", "reference_value", "total_variation", "basis"),
            *("tonight_photos", "reference_photos", "reference_nights"),
        ):
            yield "drift", drift.measure, measure, getattr(drift, measure)
        if drift is not figures.mix and drift.moves:  # the one that its value speaks of
            yield "drift", drift.measure, "category", drift.moves[0].category
    for move in figures.mix.moves:
        yield "drift_move", move.category, "tonight_share", move.tonight_share
        yield "drift_move", move.category, "reference_share", move.reference_share
    for example in figures.examples:
        yield "drift_example", example.category, "example_key", example.key
    for night in figures.earlier:
        for measure in ("photos", "auto_share", "rejected_share"):
            yield "earlier_night", night.run_date.isoformat(), measure, getattr(night, measure)
    for number, alert in enumerate(figures.alerts, start=1):
        for measure in ("rule", "severity", "message", "seen_count"):
            yield "alert", str(number), measure, getattr(alert, measure)
    for number, text in enumerate(figures.notes, start=1):
        yield "note", str(number), "text", text


def _refund_rows(figures: ReportFigures) -> Iterator[tuple[str, str, str, str | float | bool | None]]:
    if figures.departments is None:  # not counted by earlier releases
        return
    yield "refunds", "all", "refunds", figures.refunds
    yield "refunds", "contradicting", "refunds", figures.contradicting
    yield "refunds", "disagree", "refunds", figures.refunds_disagree
    yield "refunds", "undeclared", "refunds", figures.refunds_undeclared
    for department in figures.departments:
        for measure in ("refunds", "photos", "auto", "auto_share", "contradicting"):
            yield "department", department.department or "", measure, getattr(department, measure)
    for row in figures.contradictions:
        for category, photos in row.categories.items():
            yield "contradiction", row.refund_id, f"photos:{category}", photos
        yield "contradiction", row.refund_id, "declared", row.declared
        for measure in ("disagree", "undeclared"):
            yield "contradiction", row.refund_id, measure, getattr(row, measure)
        for key in row.keys:
            yield "contradiction", row.refund_id, "example_key", key
