"""The morning report as one HTML file that needs nothing else: no script, no request, light, dark and on paper."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from refund.report import labels
from refund.report.figures import CategoryRow, ReportFigures
from refund.report.sentence import reconciliation_sentences, summary_sentence
from refund.report.text import drift_text

if TYPE_CHECKING:
    from jinja2 import Environment

logger = logging.getLogger(__name__)

CHART_WARNING = "The bar chart could not be drawn; the table has the same figures. The log of generate_report says why."


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One key number on top of the page."""

    label: str
    value: str
    remark: str
    tone: str = ""  # "", "auto", "review" or "bad": the colour of its edge


@dataclass(frozen=True, slots=True, kw_only=True)
class PageContext:
    """What templates/report.html.j2 may use; a test holds the template to exactly these names."""

    figures: ReportFigures = field(metadata={"help": "Every figure of the night, as computed."})
    sentence: str = field(metadata={"help": "The headline: what happened, in one sentence."})
    counted: str = field(metadata={"help": "That the photos were counted alike at every stage, or that they were not."})
    night: str = field(metadata={"help": "The run date in words."})
    cards: tuple[Card, ...] = field(metadata={"help": "Key numbers, most important first."})
    chart: str | None = field(metadata={"help": "Inline SVG by `category_chart`, trusted; None: left out."})
    drift_status: str = field(metadata={"help": "The drift verdict in two or three words."})
    drift_text: str = field(metadata={"help": "The drift verdict in a sentence."})
    warnings: tuple[str, ...] = field(metadata={"help": "What the report lacks: its chart."})
    sql: str = field(metadata={"help": "A query that gives the table of categories to an analyst."})
    work_seconds: float = field(metadata={"help": "Sum of all stages, for the bars of the stage table."})


def render_html(figures: ReportFigures) -> str:
    """The whole page. A chart that cannot be drawn is left out, with a note in its place; nothing else may fail."""
    context = page_context(figures)
    values = {spec.name: getattr(context, spec.name) for spec in fields(PageContext)}
    return template_environment().get_template("report.html.j2").render(values)


def page_context(figures: ReportFigures) -> PageContext:
    """Everything the template needs, in words and numbers ready to print."""
    chart, chart_warnings = _chart(figures.categories)
    verdict = drift_text(figures)
    return PageContext(
        figures=figures,
        sentence=summary_sentence(figures),
        counted=reconciliation_sentences(figures.reconciliation),
        night=labels.long_date(figures.run_date),
        cards=_cards(figures),
        chart=chart,
        drift_status={
            "ok": "As usual",
            "drift": "Differs",
            "insufficient_data": "Too few photos",
            "no_reference": "No reference yet",
        }[figures.mix.status.value],
        drift_text=f"{verdict[:1].upper()}{verdict[1:]}",
        warnings=chart_warnings,
        sql=(
            "SELECT category, photos, round(share::numeric, 3) AS share, auto, review\n"
            "FROM reporting.daily_categories\n"
            f"WHERE run_date = DATE '{figures.run_date.isoformat()}'\n"
            "ORDER BY photos DESC;"
        ),
        work_seconds=sum(row.seconds for row in figures.stage_seconds),
    )


def _chart(categories: tuple[CategoryRow, ...]) -> tuple[str | None, tuple[str, ...]]:
    if not categories:
        return None, ()
    try:
        from refund.report.charts import category_chart

        return category_chart(categories), ()
    except Exception:  # whatever a drawing library trips over, the figures must reach their readers
        logger.warning("the category chart could not be drawn; the report goes without it", exc_info=True)
        return None, (CHART_WARNING,)


def _cards(figures: ReportFigures) -> tuple[Card, ...]:
    total = figures.night_photos
    return (
        Card(
            label="Photos of the night",
            value=labels.count(total),
            remark=f"{labels.megabytes(figures.size_bytes)}, {labels.count(figures.late_photos)} late"
            if figures.late_photos
            else labels.megabytes(figures.size_bytes),
        ),
        Card(
            label="Sorted automatically",
            value=labels.percent(figures.auto_share),
            remark=f"{labels.count(figures.auto)} photos",
            tone="auto",
        ),
        Card(
            label="Sent to review",
            value=labels.count(figures.review),
            remark=f"{labels.count(figures.review_queue_count)} wait in all",
            tone="review",
        ),
        Card(
            label="Could not be used",
            value=labels.count(figures.rejected),
            remark=f"{labels.percent(figures.rejected_share, digits=1)} of the night" if total else "–",
            tone="bad" if figures.rejected else "",
        ),
    )


@cache
def template_environment() -> Environment:
    """Jinja2 with escaping on, undefined names refused, and the functions of `labels` as filters."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in (
        *("category_label", "reason_label", "explain_reason", "quality_label", "stage_label"),
        *("count", "percent", "points", "seconds", "visible"),
    ):
        environment.filters[name] = getattr(labels, name)
    return environment
