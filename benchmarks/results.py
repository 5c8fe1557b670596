"""Shows measurements of parts as a table, and keeps what was found as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.table import Table

from benchmarks.machine import machine
from benchmarks.measure import Measurement, Spread

FOLDER = Path(__file__).parent / "results"
Measured = Mapping[str, Sequence[Measurement]]
Pairs = Mapping[str, tuple[str, str, str]]  # by title: what is divided by what, and which figure of `Measurement`


def ratios(measured: Measured, pairs: Pairs) -> dict[str, Spread]:
    """Each taken within a round; pairs that were not both measured are left out."""
    return {
        title: Spread.of(
            [
                getattr(mine, figure) / getattr(other, figure)
                for mine, other in zip(measured[above], measured[below], strict=True)
            ]
        )
        for title, (above, below, figure) in pairs.items()
        if above in measured and below in measured
    }


def content_of(measured: Measured, pairs: Pairs, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Everything measured, with the ratios, as JSON values."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **facts,
        "machine": machine(),
        "ratios": {title: asdict(spread) for title, spread in ratios(measured, pairs).items()},
        "rounds": {name: [asdict(one) for one in rounds] for name, rounds in measured.items()},
    }


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file that appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def show(console: Console, *, measured: Measured, pairs: Pairs, title: str) -> None:
    """Print both tables: what each contender cost per photo, and the ratios."""
    costs = Table(title=title, caption="median (min to max); core-ms: CPU of our own processes, servers left out")
    costs.add_column("what")
    for column in ("photos/s", "wall ms a photo", "core-ms a photo"):
        costs.add_column(column, justify="right", no_wrap=True)
    for name, rounds in measured.items():
        values = [[getattr(one, unit) for one in rounds] for unit in ("photos_per_s", "wall_ms", "core_ms")]
        costs.add_row(name, *(spread_text(Spread.of(column)) for column in values))
    compared = Table(title="ratios, each taken within a round")
    compared.add_column("what")
    compared.add_column("median (min to max)", justify="right", no_wrap=True)
    for name, spread in ratios(measured, pairs).items():
        compared.add_row(name, f"{spread.median:.2f} ({spread.low:.2f} to {spread.high:.2f})")
    console.print(Group(costs, compared))


def spread_text(spread: Spread) -> str:
    """Three figures with three significant digits, or whole above 100."""
    return f"{_short(spread.median)} ({_short(spread.low)} to {_short(spread.high)})"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
