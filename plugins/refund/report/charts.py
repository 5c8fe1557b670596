"""Draws the report's charts as SVG that lives inside the page: its colours are the page's, its text is text."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import quoteattr

from refund.report.labels import category_label, count, percent, short_date
from refund.report.rows import CategoryRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_BARS = 12
_WIDTH_IN, _BAR_IN, _MARGIN_IN = 6.2, 0.34, 0.5  # 446 units wide: legible on a phone, capped by the page elsewhere
_LEFT = 0.32  # ratio of the width that the names take
# Stand-ins that matplotlib can draw with; the page's style sheet holds the colours, for light, dark and paper.
_COLOURS = {
    "#010101": "var(--ink)",
    "#020202": "var(--muted)",
    "#030303": "var(--auto)",
    "#040404": "var(--review)",
    "#050505": "var(--line)",
    "#060606": "var(--bad)",
    "#070707": "var(--paper)",
}
_INK, _MUTED, _AUTO, _REVIEW, _LINE, _BAD, _PAPER = _COLOURS
_GAP: dict[str, Any] = {"edgecolor": _PAPER, "linewidth": 0.8}  # so that parts are told apart without their colours

_LEGEND: dict[str, Any] = {
    "ncols": 3,
    "frameon": False,
    "fontsize": 10,
    "labelcolor": _MUTED,
    "handlelength": 1.0,
    "handleheight": 0.8,
    "handletextpad": 0.5,
    "columnspacing": 1.4,
    "borderaxespad": 0.1,
    "borderpad": 0.0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NightShares:
    """How one night's photos were sorted: ratios of all its photos, 0 to 1; what is left went to review."""

    run_date: date
    auto: float
    rejected: float

    @property
    def review(self) -> float:
        """The share sent to a person."""
        return max(0.0, 1.0 - self.auto - self.rejected)


def category_chart(categories: Sequence[CategoryRow]) -> str:
    """An ``<svg>`` element: photos per category, split into automatic and review, with the usual share as a mark.

    The largest `MAX_BARS` categories are drawn, the rest as one bar. The same rows give the same bytes. The element
    needs the custom properties ``--ink --muted --auto --review --line`` from the page around it.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not categories:
        msg = "a chart needs at least one category"
        raise ValueError(msg)
    bars = _bars(categories)
    height_in = _MARGIN_IN + _BAR_IN * len(bars)
    with _drawing(_WIDTH_IN, height_in) as figure:
        axes = figure.add_axes((_LEFT, 0.0, 0.90 - _LEFT, 1 - _MARGIN_IN / height_in))
        _draw(axes, bars)
        return _svg(figure, name="categories", description=describe_chart(categories))


def sorting_chart(nights: Sequence[NightShares]) -> str:
    """An ``<svg>`` element: of each night, oldest first and tonight last, what was sorted by machine, by people, not.

    It needs the custom properties of `category_chart` and ``--bad --paper``.

    Raises:
        ValueError: there is nothing to compare with.
    """
    if len(nights) < 2:
        msg = f"a chart of nights needs at least two, got {len(nights)}"
        raise ValueError(msg)
    places = list(range(len(nights)))
    with _drawing(_WIDTH_IN, 2.3) as figure:
        axes = figure.add_axes((0.09, 0.13, 0.91, 0.68))
        below = [0.0] * len(nights)
        for label, colour, rim, share in (
            ("Automatic", _AUTO, _GAP, [night.auto for night in nights]),
            ("To review", _REVIEW, _GAP, [night.review for night in nights]),
            ("Not usable", _BAD, {}, [night.rejected for night in nights]),  # often thinner than a rim
        ):
            axes.bar(places, share, bottom=below, width=0.8, color=colour, label=label, **rim)
            below = [low + part for low, part in zip(below, share, strict=True)]
        axes.set_xlim(-0.6, len(nights) - 0.4)
        axes.set_ylim(0, 1)
        axes.set_yticks([0, 0.5, 1], ["0%", "50%", "100%"])
        axes.set_xticks([0, places[-1]], [short_date(nights[0].run_date), "tonight"])
        axes.tick_params(length=0, labelsize=10, labelcolor=_MUTED)
        first, last = axes.get_xticklabels()
        first.set_horizontalalignment("left")
        last.set_horizontalalignment("right")
        for side in axes.spines.values():
            side.set_visible(False)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.1, 1.09), **_LEGEND)
        return _svg(figure, name="nights", description=describe_sorting(nights))


def describe_sorting(nights: Sequence[NightShares]) -> str:
    """The chart of nights in words."""
    *earlier, tonight = nights
    shares = [night.auto for night in earlier]
    return (
        f"Bar chart of the last {len(nights)} nights: tonight {percent(tonight.auto)} of the photos were sorted "
        f"automatically, {percent(tonight.review)} went to review and {percent(tonight.rejected)} could not be used; "
        f"on the nights before {percent(min(shares))} to {percent(max(shares))} were sorted automatically."
    )


@contextmanager
def _drawing(width_in: float, height_in: float) -> Iterator[Figure]:
    """A figure under settings that no machine changes."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # a read-only home folder is no news: it then uses /tmp
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style: Any = {  # an operator's matplotlibrc must not change the page
        **{key: mpl.rcParamsDefault[key] for key in mpl.rcParamsDefault if not key.startswith("backend")},
        "svg.fonttype": "none",  # text stays text: selectable, in the page's font, read aloud
        "svg.hashsalt": "refund",  # otherwise ids are random
    }
    with mpl.rc_context(style), warnings.catch_warnings():
        # no machine has glyphs for every label; the browser draws the text, matplotlib only measures it
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield Figure(figsize=(width_in, height_in))


def _svg(figure: Figure, *, name: str, description: str) -> str:
    buffer = io.StringIO()
    metadata = {"Creator": None, "Date": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    return _for_the_page(buffer.getvalue(), name=name, description=description)


def describe_chart(categories: Sequence[CategoryRow]) -> str:
    """The chart in words, for those who hear the page."""
    shown = ", ".join(
        f"{category_label(row.category)} {count(row.photos)} ({percent(row.share)})" for row in categories[:MAX_BARS]
    )
    return f"Bar chart of classified photos by category: {shown}."


def _bars(categories: Sequence[CategoryRow]) -> list[CategoryRow]:
    if len(categories) <= MAX_BARS:
        return list(categories)
    shown, rest = categories[: MAX_BARS - 1], categories[MAX_BARS - 1 :]
    usual = [row.reference_share for row in rest if row.reference_share is not None]
    return [
        *shown,
        CategoryRow(
            category=f"{len(rest)}_others",
            photos=sum(row.photos for row in rest),
            share=sum(row.share for row in rest),
            auto=sum(row.auto for row in rest),
            review=sum(row.review for row in rest),
            mean_score=0.0,
            reference_share=sum(usual) if usual else None,
        ),
    ]


def _draw(axes: Axes, bars: Sequence[CategoryRow]) -> None:
    total = sum(row.photos for row in bars) or 1
    reach = max(max(row.photos, (row.reference_share or 0.0) * total) for row in bars) or 1
    axes.set_xlim(0, reach)
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.axis("off")
    positions = list(range(len(bars)))
    edge = -_LEFT / (0.90 - _LEFT)  # of the figure, as a ratio of the axes: names stand under the page's headings
    text: dict[str, Any] = {"va": "center", "fontsize": 11, "parse_math": False, "clip_on": False}
    axes.barh(positions, [row.auto for row in bars], height=0.62, color=_AUTO, **_GAP)
    axes.barh(
        positions, [row.review for row in bars], left=[row.auto for row in bars], height=0.62, color=_REVIEW, **_GAP
    )
    axes.plot([0, 0], [-0.5, len(bars) - 0.5], color=_LINE, linewidth=1, clip_on=False)
    for position, row in enumerate(bars):
        name = category_label(row.category)
        name = name if len(name) <= 22 else f"{name[:21]}…"
        axes.text(edge, position, name, ha="left", color=_INK, transform=axes.get_yaxis_transform(), **text)
        axes.text(1.03 * reach, position, percent(row.share), ha="left", color=_MUTED, **text)
        if row.reference_share is not None:
            usual = row.reference_share * total
            for colour, width in ((_PAPER, 3.4), (_INK, 1.8)):  # a rim, so that it is seen on the bar too
                axes.plot([usual, usual], [position - 0.42, position + 0.42], color=colour, lw=width, clip_on=False)
    _legend(
        axes,
        edge=edge,
        gap=0.12 / (_BAR_IN * len(bars)),
        with_usual=any(row.reference_share is not None for row in bars),
    )


def _legend(axes: Axes, *, edge: float, gap: float, with_usual: bool) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    marks: list[Any] = [Patch(color=_AUTO, label="Automatic"), Patch(color=_REVIEW, label="To review")]
    if with_usual:
        marks.append(
            Line2D([], [], color=_INK, marker="|", linestyle="none", markersize=10, markeredgewidth=2, label="Usual")
        )
    axes.legend(handles=marks, loc="lower left", bbox_to_anchor=(edge, 1.0 + gap), **_LEGEND)


def _for_the_page(svg: str, *, name: str, description: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)  # would style the page
    svg = re.sub(r"(<svg[^>]*?) width=\"[^\"]*\"", r"\1", svg, count=1)
    svg = re.sub(r"(<svg[^>]*?) height=\"[^\"]*\"", r"\1", svg, count=1)
    svg = re.sub(r'( id="|url\(#|href="#)', rf"\1{name}-", svg)  # matplotlib gives every drawing the same ids
    for stand_in, colour in _COLOURS.items():
        svg = svg.replace(stand_in, colour)
    head = f'<svg class="chart" role="img" aria-label={quoteattr(description)}'
    return svg.replace("<svg", head, 1).strip()
