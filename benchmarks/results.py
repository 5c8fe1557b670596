"""Turns measurements into the table that people read and the JSON that scripts compare."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console, Group
from rich.table import Table

from benchmarks.contenders import FLOOR_PARTS
from benchmarks.isolation import LARGE
from benchmarks.keras_alone import NAME as ALTERNATIVE
from benchmarks.measure import Measurement, Spread

RESULTS_FILE = Path(__file__).parent / "results" / "latest.json"
ISOLATION_FILE = RESULTS_FILE.with_name("isolation.json")
_LIBRARIES = (
    "refund",
    "numpy",
    "scipy",
    "pillow",
    "ai-edge-litert",
    "obstore",
    "boto3",
    "psycopg2-binary",
    "pyarrow",
    "keras",
)
Measured = Mapping[str, Sequence[Measurement]]


def with_sums(measured: Measured) -> dict[str, list[Measurement]]:
    """Add, round by round, the sum of the bare loops, and the night without what every shard costs once."""
    found = {name: list(rounds) for name, rounds in measured.items()}
    found["floor: sum"] = [
        Measurement(
            photos=parts[0].photos,
            wall_s=sum(part.wall_s for part in parts),
            cpu_s=sum(part.cpu_s for part in parts),
        )
        for parts in zip(*(measured[name] for name in FLOOR_PARTS), strict=True)
    ]
    found["night, per further photo"] = [
        Measurement(photos=all_.photos - 1, wall_s=all_.wall_s - one.wall_s, cpu_s=all_.cpu_s - one.cpu_s)
        for all_, one in zip(measured["night"], measured["night of one photo"], strict=True)
    ]
    return found


def ratios(measured: Measured) -> dict[str, Spread]:
    """What the house rules speak of, each taken within a round; names say what is divided by what."""
    pairs = {
        "night / floor, core-ms": ("night", "floor: sum", "core_ms"),
        "night per further photo / floor, core-ms": ("night, per further photo", "floor: sum", "core_ms"),
        "get_many / bare GET, core-ms": ("get_many, 16 at once", "floor: GET", "core_ms"),
        **_of_isolation(""),
        **_of_isolation(LARGE),
        "every pixel / draft decode, core-ms": ("decode: every pixel, then resize", "floor: decode", "core_ms"),
        "2 threads / 1 thread, batch 8, wall": (
            "inference: 2 threads, batch 8",
            "inference: 1 thread, batch 8",
            "wall_ms",
        ),
        "batch 8 / batch 1, 1 thread, wall": (
            "inference: 1 thread, batch 8",
            "inference: 1 thread, batch 1",
            "wall_ms",
        ),
        "alternative / night, wall": (ALTERNATIVE, "night", "wall_ms"),
        "alternative / night, core-ms": (ALTERNATIVE, "night", "core_ms"),
    }
    return {
        title: Spread.of(
            [
                getattr(mine, unit) / getattr(other, unit)
                for mine, other in zip(measured[above], measured[below], strict=True)
            ]
        )
        for title, (above, below, unit) in pairs.items()
        if above in measured and below in measured
    }


def _of_isolation(suffix: str) -> dict[str, tuple[str, str, str]]:
    """The pool against as many processes that nothing protects."""
    compared = {
        "pool of 1 / in process": ("decode: pool, 1 worker", "decode: in process"),
        "pool of 2 / two processes, unprotected": ("decode: pool, 2 workers", "decode: two processes, unprotected"),
    }
    return {
        f"{title}{suffix}, {unit}": (f"{above}{suffix}", f"{below}{suffix}", field)
        for title, (above, below) in compared.items()
        for unit, field in (("core-ms", "core_ms"), ("wall", "wall_ms"))
    }


def machine() -> dict[str, Any]:
    """What kind of machine and which versions; nothing that names the machine."""
    found = {}
    for name in (*_LIBRARIES, "tensorflow-cpu", "tensorflow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        "libraries": found,
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def write_json(path: Path, *, measured: Measured, facts: Mapping[str, Any]) -> None:
    """Write everything measured, with the ratios; the file appears whole."""
    content = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **facts,
        "machine": machine(),
        "ratios": {title: asdict(spread) for title, spread in ratios(measured).items()},
        "rounds": {name: [asdict(one) for one in rounds] for name, rounds in measured.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def show(console: Console, *, measured: Measured, facts: Mapping[str, Any]) -> None:
    """Print both tables: what each contender cost per photo, and the ratios."""
    costs = Table(
        title=f"{facts['photos']} photos ({facts['photographs']}), {facts['rounds_run']} rounds, {facts['model']}",
        caption="median (min to max); core-ms: CPU of our own processes, servers left out",
    )
    costs.add_column("what")
    for column in ("photos/s", "wall ms a photo", "core-ms a photo"):
        costs.add_column(column, justify="right", no_wrap=True)
    for name, rounds in measured.items():
        values = [[getattr(one, unit) for one in rounds] for unit in ("photos_per_s", "wall_ms", "core_ms")]
        costs.add_row(name, *(spread_text(Spread.of(column)) for column in values))
    compared = Table(title="ratios, each taken within a round")
    compared.add_column("what")
    compared.add_column("median (min to max)", justify="right", no_wrap=True)
    for title, spread in ratios(measured).items():
        compared.add_row(title, f"{spread.median:.2f} ({spread.low:.2f} to {spread.high:.2f})")
    console.print(Group(costs, compared))


def spread_text(spread: Spread) -> str:
    """Three figures with three significant digits, or whole above 100."""
    return f"{_short(spread.median)} ({_short(spread.low)} to {_short(spread.high)})"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
