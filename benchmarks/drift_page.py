"""Runs the simulation of drift and keeps it: as JSON, and as the tables between the marks of docs/drift.md."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from textwrap import fill
from typing import Any

from benchmarks.drift import ALPHAS, PHOTOS, POINTS, SEED, SHIFTED, Row, simulate
from benchmarks.drift_nights import NATURES, NIGHTS, REJECTION_RATE, SHARES
from benchmarks.machine import machine
from refund.monitor.drift import DriftLimits

PAGE = Path(__file__).parent.parent / "docs" / "drift.md"
RESULTS_FILE = PAGE.with_name("drift_simulation.json")  # kept with the page, whose tables are made from it
BEGIN, END = "<!-- simulation: begin -->", "<!-- simulation: end -->"
FULL = {"windows": 250, "nights": 100, "draws": 1_999, "direct": 500}
_RULES = {
    "known": "significance, overdispersion known",
    "estimated": "significance, overdispersion estimated",
    "whole": "**whole rule**",
    "psi": "PSI > 0.2",
    "evidently": "Evidently, ≥ 0.1",
}


def run(
    *, sizes: Mapping[str, int], workers: int, output: Path, page: Path | None, progress: Callable[[str], None]
) -> str:
    """Simulate, write ``output`` and, where given, the tables of ``page``; the tables."""
    started = time.monotonic()
    rows, cpu_s = simulate(
        windows=sizes["windows"],
        nights=sizes["nights"],
        draws=sizes["draws"],
        direct=sizes["direct"],
        workers=workers,
        progress=progress,
    )
    content: dict[str, Any] = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **sizes,
        "seed": SEED,
        "window_nights": NIGHTS,
        "shares": SHARES.round(6).tolist(),
        "rejection_rate": REJECTION_RATE,
        "natures": [asdict(nature) for nature in NATURES],
        "limits": asdict(DriftLimits()),
        "cpu_s": round(cpu_s, 1),
        "wall_s": round(time.monotonic() - started, 1),
        "workers": workers,
        "machine": machine(),
        "rows": [asdict(row) for row in rows],
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    temporary.replace(output)
    tables = tables_of(content)
    if page is not None:
        page.write_text(replaced(page.read_text(encoding="utf-8"), tables), encoding="utf-8")
    return tables


def replaced(text: str, tables: str) -> str:
    """The page with these tables between its marks.

    Raises:
        ValueError: the page has no marks.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        msg = f"the page has no marks {BEGIN} and {END}"
        raise ValueError(msg)
    return f"{before}{BEGIN}\n{tables}\n{END}{after}"


def tables_of(content: Mapping[str, Any]) -> str:
    """Markdown of false alarms and of power, from what the JSON file keeps."""
    rows = content["rows"]
    machine = content["machine"]
    libraries = machine["libraries"]
    ours = [row for row in rows if row["rule"] in ("known", "estimated", "whole")]
    widest = max(row["alarms"]["margin"] for row in ours if row["shift"] == "none")
    widest_power = max(row["alarms"]["margin"] for row in ours if row["shift"] != "none")
    direct = next(row for row in rows if row["rule"] == "direct")
    same = _find(rows, "estimated", direct["nature"], direct["photos"], direct["alpha"], "none")
    first = (
        f"Measured on {content['measured_at'][:10]} by `python -m benchmarks drift` in {content['cpu_s']:.0f} s of "
        f"CPU ({machine['cpu']}, Python {machine['python']}, NumPy {libraries['numpy']}, SciPy {libraries['scipy']}): "
        f"{content['windows']} windows of {content['window_nights']} nights for each column, {content['nights']} "
        f"nights after each, {content['draws']:,} draws, seed {content['seed']}. "
        f"All figures are percent of nights. The 95 % "
        f"interval of our rules is at most ± {100 * widest:.2f} points for false alarms and "
        f"± {100 * widest_power:.1f} for power; "
        f"each figure has its own in [drift_simulation.json](drift_simulation.json)."
    )
    check = (
        f"The check without the short cut, {content['direct']:,} separate windows each with one call of `judge_night` "
        f"({direct['photos']:,} photos, {direct['nature']}, stated {100 * direct['alpha']:g} %, estimated): "
        f"{_text(direct)} ± {100 * direct['alarms']['margin']:.1f}, with it {_text(same)} ± "
        f"{100 * same['alarms']['margin']:.1f}."
    )
    parts = [fill(first, 120), "### False alarms: nights without drift"]
    parts += [
        _table(
            rows,
            nature=nature.title,
            lines=[
                *((rule, alpha, "none") for alpha in ALPHAS for rule in ("known", "estimated", "whole")),
                *((rule, None, "none") for rule in ("psi", "evidently")),
            ],
        )
        for nature in NATURES
    ]
    parts.append(f"### Power: one category gains {100 * POINTS:.0f} points")
    shares = [f"{100 * SHARES[number]:.0f}" for number in SHIFTED]
    parts += [
        _table(
            rows,
            nature=nature.title,
            lines=[
                (rule, alpha, shift)
                for rule, alpha in (*(("whole", alpha) for alpha in ALPHAS), ("psi", None), ("evidently", None))
                for shift in shares
            ],
        )
        for nature in NATURES
    ]
    return "\n\n".join([*parts, fill(check, 120)])


def _table(rows: Sequence[Mapping[str, Any]], *, nature: str, lines: Sequence[tuple[str, float | None, str]]) -> str:
    head = [f"{nature}: rule", "stated", *(f"{photos:,} photos" for photos in PHOTOS)]
    text = [" | ".join(head), " | ".join(["---"] * 2 + ["---:"] * len(PHOTOS))]
    for rule, alpha, shift in lines:
        usual = "" if shift == "none" else f", {shift} % → {float(shift) + 100 * POINTS:g} %"
        cells = [_text(_find(rows, rule, nature, photos, alpha, shift)) for photos in PHOTOS]
        text.append(" | ".join([_RULES[rule] + usual, "none" if alpha is None else f"{100 * alpha:g} %", *cells]))
    return "\n".join(f"| {line} |" for line in text)


def _find(
    rows: Sequence[Mapping[str, Any]], rule: str, nature: str, photos: int, alpha: float | None, shift: str
) -> Mapping[str, Any]:
    wanted = (rule, nature, photos, alpha, shift)
    names = [name for name in Row.__dataclass_fields__ if name != "alarms"]
    return next(row for row in rows if tuple(row[name] for name in names) == wanted)


def _text(row: Mapping[str, Any]) -> str:
    value = 100 * row["alarms"]["value"]
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"
