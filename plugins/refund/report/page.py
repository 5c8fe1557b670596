"""The morning report as one HTML file that needs nothing else: no script, no request, light, dark and on paper."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from refund.monitor.drift import LARGEST_MOVE, CategoryMove, DriftResult, DriftStatus
from refund.report import labels
from refund.report.figures import ReportFigures
from refund.report.sentence import reconciliation_sentences, refunds_sentence, summary_sentence
from refund.report.text import drift_text, reference_label

if TYPE_CHECKING:
    from jinja2 import Environment

    from refund.report.thumbnails import Thumbnail

logger = logging.getLogger(__name__)

CHART_WARNING = "A chart could not be drawn; the tables have the same figures. The log of generate_report says why."
MAX_PICTURES_BYTES = 700_000  # of all data: URIs together; the rest of a page stays below 200 kB
_VERDICTS = {
    "ok": "As usual",
    "drift": "Differs",
    "insufficient_data": "Too few photos",
    "no_reference": "No reference yet",
}
_TONES = {"ok": "good", "drift": "bad"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One key number on top of the page."""

    label: str
    value: str
    remark: str
    tone: str = ""  # "", "auto", "review" or "bad": the colour of its edge


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One measure of drift, ready to print."""

    label: str
    text: str  # the verdict in a sentence; empty where the table says enough
    tonight: str
    usual: str
    distance: str
    threshold: str
    floor: str
    verdict: str
    tone: str  # "", "good" or "bad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One example photo inside the page."""

    source: str  # data: URI
    width_px: int
    height_px: int
    alt: str
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """The example photos of one category that moved."""

    category: str
    pictures: tuple[Picture, ...]
    notes: tuple[str, ...]  # which photos are not shown, and why


@dataclass(frozen=True, slots=True, kw_only=True)
class PageContext:
    """What templates/report.html.j2 and its parts may use; a test holds the templates to exactly these names."""

    figures: ReportFigures = field(metadata={"help": "Every figure of the night, as computed."})
    sentence: str = field(metadata={"help": "The headline: what happened, in one sentence."})
    counted: str = field(metadata={"help": "That the photos were counted alike at every stage, or that they were not."})
    night: str = field(metadata={"help": "The run date in words."})
    made_up: str = field(metadata={"help": "What is said of a made-up night; shown only where it is one."})
    cards: tuple[Card, ...] = field(metadata={"help": "Key numbers, most important first."})
    chart: str | None = field(metadata={"help": "Inline SVG by `category_chart`, trusted; None: left out."})
    trend: str | None = field(metadata={"help": "Inline SVG by `sorting_chart`, trusted; None: left out."})
    refunds_text: str = field(metadata={"help": "How many refunds contradict themselves, in a sentence."})
    reference: str = field(metadata={"help": "The nights that the shares of categories are compared with."})
    drift_status: str = field(metadata={"help": "The gravest drift verdict in two or three words."})
    badge: str = field(metadata={"help": "Colour of that verdict: good, bad or none."})
    measures: tuple[Measure, ...] = field(metadata={"help": "Every measure of drift, category shares first."})
    moves: tuple[CategoryMove, ...] = field(metadata={"help": "What moved most, where the mix of goods differs."})
    galleries: tuple[Gallery, ...] = field(metadata={"help": "Example photos of the categories that moved most."})
    measured: bool = field(metadata={"help": "Whether any stage has latencies or failures."})
    warnings: tuple[str, ...] = field(metadata={"help": "What the report lacks: a chart."})
    sql: str = field(metadata={"help": "A query that gives the table of categories to an analyst."})


def render_html(figures: ReportFigures, thumbnails: Mapping[str, Thumbnail] | None = None) -> str:
    """The whole page, at most 1 MB.

    ``thumbnails`` are pictures by S3 key, for ``figures.examples``. A chart that cannot be drawn is left out, with a
    note in its place; nothing else may fail.
    """
    context = page_context(figures, thumbnails or {})
    values = {spec.name: getattr(context, spec.name) for spec in fields(PageContext)}
    return template_environment().get_template("report.html.j2").render(values)


def page_context(figures: ReportFigures, thumbnails: Mapping[str, Thumbnail] | None = None) -> PageContext:
    """Everything the template needs, in words and numbers ready to print."""
    warnings: list[str] = []
    differs = any(result.status is DriftStatus.DRIFT for result in figures.drift)
    return PageContext(
        figures=figures,
        sentence=summary_sentence(figures),
        counted=reconciliation_sentences(figures.reconciliation),
        night=labels.long_date(figures.run_date),
        made_up=labels.MADE_UP,
        cards=_cards(figures),
        chart=_chart(lambda: _category_chart(figures), warnings),
        trend=_chart(lambda: _sorting_chart(figures), warnings),
        refunds_text=refunds_sentence(figures),
        reference=reference_label(figures, figures.mix),
        drift_status=_VERDICTS["drift" if differs else figures.mix.status.value],
        badge="bad" if differs else _TONES.get(figures.mix.status.value, ""),
        measures=tuple(_measure(figures, result) for result in figures.drift),
        moves=next((each.moves[:6] for each in figures.drift if each.status is DriftStatus.DRIFT and each.moves), ()),
        galleries=_galleries(figures, thumbnails or {}),
        measured=any(row.p50_ms is not None or row.failed is not None for row in figures.stages),
        warnings=tuple(dict.fromkeys(warnings)),
        sql=(
            "SELECT category, photos, round(share::numeric, 3) AS share, auto, review\n"
            "FROM reporting.daily_categories\n"
            f"WHERE run_date = DATE '{figures.run_date.isoformat()}'"
            f"{' AND synthetic' if figures.synthetic else ' AND NOT synthetic'}\n"
            "ORDER BY photos DESC;"
        ),
    )


def _chart(draw: Callable[[], str | None], warnings: list[str]) -> str | None:
    try:
        return draw()
    except Exception:  # whatever a drawing library trips over, the figures must reach their readers
        logger.warning("a chart could not be drawn; the report goes without it", exc_info=True)
        warnings.append(CHART_WARNING)
        return None


def _category_chart(figures: ReportFigures) -> str | None:
    from refund.report.charts import category_chart

    return category_chart(figures.categories) if figures.categories else None


def _sorting_chart(figures: ReportFigures) -> str | None:
    """None where there is no earlier night with photos to draw beside this one."""
    from refund.report.charts import NightShares, sorting_chart

    nights = [
        NightShares(run_date=row.run_date, auto=row.auto_share, rejected=row.rejected_share)
        for row in figures.earlier
        if row.auto_share is not None and row.rejected_share is not None
    ]
    if not nights or figures.auto_share is None or figures.rejected_share is None:
        return None
    tonight = NightShares(run_date=figures.run_date, auto=figures.auto_share, rejected=figures.rejected_share)
    return sorting_chart([*nights, tonight])


def _measure(figures: ReportFigures, result: DriftResult) -> Measure:
    text = drift_text(figures, result)
    moved = result.moves[0].category if result.measure == LARGEST_MOVE and result.moves else None
    label = labels.measure_label(result.measure)
    return Measure(
        label=f"{label} ({labels.category_label(moved)})" if moved else label,
        text=f"{text[:1].upper()}{text[1:]}" if result is figures.mix or result.status is DriftStatus.DRIFT else "",
        tonight=labels.measure_value(result.tonight_value, result.measure),
        usual=labels.measure_value(result.reference_value, result.measure),
        distance=labels.decimal(result.distance),
        threshold=labels.decimal(result.threshold),
        floor=labels.decimal(result.floor),
        verdict=_VERDICTS[result.status.value],
        tone=_TONES.get(result.status.value, ""),
    )


def _galleries(figures: ReportFigures, thumbnails: Mapping[str, Thumbnail]) -> tuple[Gallery, ...]:
    """One per category, in the order of the examples; pictures past `MAX_PICTURES_BYTES` are left out."""
    room, galleries = MAX_PICTURES_BYTES, []
    for category in dict.fromkeys(example.category for example in figures.examples):
        pictures, notes = [], []
        for example in (row for row in figures.examples if row.category == category):
            caption = labels.visible(example.key, limit=80)
            thumbnail = thumbnails.get(example.key)
            source = thumbnail.data_uri() if thumbnail else ""
            if example.missing or thumbnail is None:
                notes.append(f"Not shown: {caption} ({example.missing or 'its picture is not kept'})")
            elif len(source) > room:
                notes.append(f"Not shown: {caption} (the page would grow too large)")
            else:
                room -= len(source)
                alt = f"Photo sorted as {labels.category_label(category)}, score {example.score:.2f}: {caption}"
                size = {"width_px": thumbnail.width_px, "height_px": thumbnail.height_px}
                pictures.append(Picture(source=source, alt=alt, caption=caption, **size))
        galleries.append(Gallery(category=category, pictures=tuple(pictures), notes=tuple(notes)))
    return tuple(galleries)


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
        *("count", "percent", "points", "seconds", "milliseconds", "plain_label", "visible"),
    ):
        environment.filters[name] = getattr(labels, name)
    return environment
