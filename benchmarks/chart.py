"""Draws a run as SVG: photos a second by set and contender, and what a photo costs, beside the floor.

Written by hand, so that the same JSON gives the same bytes. Colours follow the reader's light or dark scheme.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from benchmarks.figures import spread_of
from benchmarks.floor import PARTS
from benchmarks.measure import Spread
from benchmarks.stages import NAME, STAGES

_CONTENDERS = {
    NAME: "our stages",
    "tf_data": "tf.data + Keras",
    "ray_data": "Ray Data",
    "one_predict": "one predict a photo",
}
_WIDTH, _LEFT, _RIGHT = 880, 150, 110
_BAR, _GAP, _HEAD = 20, 6, 34
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 15px }
.note, .part { font-size: 12px; fill: #59636e }
.name { text-anchor: end }
.ours { fill: #0969da } .rival { fill: #afb8c1 } .whisker { stroke: #1f2328; stroke-width: 1.2 }
.GET { fill: #a475f9 } .decode, .validate { fill: #0969da } .hash { fill: #54aeff } .quality { fill: #80ccff }
.inference, .classify { fill: #1a7f37 } .fetch { fill: #cf222e } .persist { fill: #bf8700 }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc } .note, .part { fill: #9198a1 } .whisker { stroke: #f0f6fc }
  .ours { fill: #4493f8 } .rival { fill: #59636e }
  .GET { fill: #ab7df8 } .decode, .validate { fill: #4493f8 } .hash { fill: #79c0ff } .quality { fill: #a5d6ff }
  .inference, .classify { fill: #3fb950 } .fetch { fill: #f85149 } .persist { fill: #d29922 }
}
"""


def chart(content: Mapping[str, Any]) -> str:
    """The picture of a run."""
    drawn: list[str] = []
    top = 8
    for name, of_set in content["rounds"].items():
        top = _speeds(drawn, name, of_set, facts=content["sets"][name], top=top)
    for name, of_set in content["rounds"].items():
        top = _costs(drawn, name, of_set, top=top)
    told = f"Photos a second and CPU a photo, measured on {content['measured_at'][:10]}"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" width="{_WIDTH}" height="{top}" '
        f'role="img" aria-label="{escape(told)}">'
    )
    return "\n".join([head, f"<style>{_STYLE}</style>", *drawn, "</svg>"]) + "\n"


def _speeds(drawn: list[str], name: str, of_set: Mapping[str, Any], *, facts: Mapping[str, Any], top: int) -> int:
    found = {
        told: spread_of(of_set[contender], "photos_per_s")
        for contender, told in _CONTENDERS.items()
        if of_set.get(contender)
    }
    note = f"{facts['mean_bytes'] / 1000:,.0f} kB a photo" + (", 5 % rejects" if facts["rejected"] else "")
    top = _title(drawn, f"Photos a second, {name}", note, top)
    scale = (_WIDTH - _LEFT - _RIGHT) / max(spread.high for spread in found.values())
    for told, spread in found.items():
        kind = "ours" if told == _CONTENDERS[NAME] else "rival"
        drawn.append(_text(_LEFT - 8, top + 15, told, "name"))
        drawn.append(_bar(_LEFT, top, spread.median * scale, kind))
        drawn.extend(_whisker(spread, scale, top))
        drawn.append(_text(_LEFT + spread.high * scale + 8, top + 15, _number(spread.median)))
        top += _BAR + _GAP
    return top + 12


def _costs(drawn: list[str], name: str, of_set: Mapping[str, Any], *, top: int) -> int:
    """The floor's loops end to end, our stages end to end below it: what is longer is what the night adds."""
    rows = {"floor": PARTS, "our stages": tuple(f"{NAME}: {stage}" for stage in STAGES)}
    parts = {
        told: [(one.partition(": ")[2], spread_of(of_set[one], "core_ms").median) for one in names]
        for told, names in rows.items()
    }
    top = _title(drawn, f"CPU a photo, {name}", "core-milliseconds of our own processes, medians", top)
    scale = (_WIDTH - _LEFT - _RIGHT) / max(sum(cost for _, cost in row) for row in parts.values())
    for told, row in parts.items():
        drawn.append(_text(_LEFT - 8, top + 15, told, "name"))
        left = float(_LEFT)
        for part, cost in row:
            drawn.append(_bar(left, top, cost * scale, part))
            left += cost * scale
        drawn.append(_text(left + 8, top + 15, f"{sum(cost for _, cost in row):.2f} ms"))
        top += _BAR + 4
        drawn.extend(_key(row, top))
        top += 24
    return top + 10


def _key(row: Sequence[tuple[str, float]], top: int) -> Iterator[str]:
    left = _LEFT
    for told, cost in row:
        yield f'<rect x="{left}" y="{top + 3}" width="9" height="9" class="{told}"/>'
        text = f"{told} {cost:.2f}"
        yield _text(left + 13, top + 12, text, "part")
        left += 34 + 7 * len(text)


def _title(drawn: list[str], title: str, note: str, top: int) -> int:
    noted = f'<tspan class="note" dx="10">{escape(note)}</tspan>'
    drawn.append(f'<text x="8" y="{top + 18}"><tspan class="title">{escape(title)}</tspan>{noted}</text>')
    return top + _HEAD


def _whisker(spread: Spread, scale: float, top: int) -> Iterator[str]:
    low, high, middle = _LEFT + spread.low * scale, _LEFT + spread.high * scale, top + _BAR / 2
    for x1, y1, x2, y2 in (
        (low, middle, high, middle),
        (low, middle - 4, low, middle + 4),
        (high, middle - 4, high, middle + 4),
    ):
        yield f'<line x1="{x1:.1f}" y1="{y1:g}" x2="{x2:.1f}" y2="{y2:g}" class="whisker"/>'


def _bar(left: float, top: int, width: float, kind: str) -> str:
    return f'<rect x="{left:.1f}" y="{top}" width="{max(width, 1):.1f}" height="{_BAR}" class="{kind}"/>'


def _text(x: float, y: float, text: str, kind: str = "value") -> str:
    return f'<text x="{x:.1f}" y="{y:g}" class="{kind}">{escape(text)}</text>'


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 20 else f"{value:.1f}"
