"""What a night costs however few its photos: from the trigger to success on the local stack, task by task."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.import_clock import TOLD
from benchmarks.live_stack import BenchStack, NightTimes, TaskTimes, running_stack
from benchmarks.measure import Spread

PHOTOS = 10
NIGHTS = 7
RESULTS_FILE = Path(__file__).parent / "results" / "fixed_cost.json"
_DATE = "2026-11-01"
_NUMBER = r"([0-9.]+)"
_IMPORTS = re.compile(re.sub(r"\{[a-z_:.0-9]+\}", lambda _: _NUMBER, TOLD))


def measure(live: BenchStack, *, nights: int, photos: int, console: Console) -> dict[str, Any]:
    """Trigger ``nights`` nights one after another, each beginning when the one before has ended."""
    found = []
    for number in range(nights):
        night = live.night(_DATE)
        found.append({"seconds": night.seconds, "core_s": night.core_s, "steps": _steps(live, night)})
        console.print(f"night {number + 1} of {nights}: {night.seconds:.1f} s, CPU {night.core_s}")
    return {"photos": photos, "nights": found}


def _steps(live: BenchStack, night: NightTimes) -> list[dict[str, Any]]:
    """The tasks of one night in order, with the gap before each and the parts inside it, in seconds."""
    steps, before = [], night.asked
    for task in night.tasks:
        parts = task_parts(task, live.log_lines(night.run_id, task))
        steps.append({"task": task.name, "gap": task.started - before, "task_s": task.ended - task.started, **parts})
        before = task.ended
    return [*steps, {"task": "until the API says success", "gap": night.seen - before}]


def task_parts(task: TaskTimes, lines: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Split a task into Airflow's share, its imports and its work, by what it logged."""
    told = next(found for line in lines if (found := _IMPORTS.search(str(line.get("event")))))
    imports_s, body_s, cpu_s = (float(text) for text in told.groups())
    return {
        "airflow": task.ended - task.started - body_s,
        "imports": imports_s,
        "work": body_s - imports_s,
        "task_core_s": cpu_s,
    }


def show(console: Console, measured: dict[str, Any]) -> None:
    """Print the table of where the seconds go: medians, and the ends of the whole."""
    nights = measured["nights"]
    table = Table(title=f"A night of {measured['photos']} photos, seconds, medians of {len(nights)}")
    columns = ("gap", "airflow", "imports", "work", "task_s")
    table.add_column("task")
    for heading in ("gap before", "Airflow's start and end", "imports", "work", "start to end"):
        table.add_column(heading, justify="right")
    for number, step in enumerate(nights[0]["steps"]):
        values = [
            Spread.of([night["steps"][number][column] for night in nights]).median if column in step else None
            for column in columns
        ]
        table.add_row(step["task"], *("" if value is None else f"{value:.2f}" for value in values))
    sums = [
        Spread.of([sum(step.get(column, 0.0) for step in night["steps"]) for night in nights]).median
        for column in columns
    ]
    table.add_row("sum", *(f"{value:.2f}" for value in sums))
    console.print(table)
    whole = Spread.of([night["seconds"] for night in nights])
    console.print(f"trigger to success: {whole.median:.1f} s ({whole.low:.1f} to {whole.high:.1f})")
    for name in nights[0]["core_s"]:
        used = Spread.of([night["core_s"][name] for night in nights])
        console.print(f"CPU of {name}: {used.median:.2f} s ({used.low:.2f} to {used.high:.2f})")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the process's exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks fixed", description=__doc__)
    parser.add_argument("--photos", type=int, default=PHOTOS, help=f"photos of the night (default {PHOTOS})")
    parser.add_argument("--nights", type=int, default=NIGHTS, help=f"nights (default {NIGHTS})")
    parser.add_argument("--model", type=Path, help="folder of a built model unit (default: build one, 20 s)")
    parser.add_argument("--output", type=Path, default=RESULTS_FILE, help="JSON file to write")
    given = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    run(photos=given.photos, nights=given.nights, model=given.model, output=given.output, console=console)
    return 0


def run(*, photos: int, nights: int, model: Path | None, output: Path, console: Console) -> dict[str, Any]:
    """Start a stack, measure, show and keep; returns what was measured."""
    from benchmarks.arena import find_photographs

    with tempfile.TemporaryDirectory(prefix="refund-bench-") as name:
        scratch = Path(name)
        photographs, _ = find_photographs(scratch / "samples")
        unit = model or build_model(scratch / "models", console)
        with running_stack(progress=console.print) as live:
            key = live.make_champion(unit)
            live.upload([photographs[number % len(photographs)] for number in range(photos)], date=_DATE)
            live.unpause()
            load_before = round(os.getloadavg()[0], 2)
            measured = measure(live, nights=nights, photos=photos, console=console)
    load_after = round(os.getloadavg()[0], 2)
    measured |= {"model": key, "measured_at": datetime.now(UTC).isoformat(timespec="seconds")}
    measured |= {"load_before": load_before, "load_after": load_after}
    show(console, measured)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    console.print(f"load average {load_before} before, {load_after} after; kept in {output}")
    return measured


def build_model(target: Path, console: Console) -> Path:
    """The folder of a unit built for this: from the weights beside the checkout where there are, else the fallback."""
    from refund.model.build import build_models

    console.print("building the model (20 s; --model FOLDER takes one that is built)")
    weights = sorted((Path(__file__).parents[2] / "shared" / "models").glob("*.h5"))
    built = build_models(target, weights=weights[0] if weights else None, allow_fallback=True, progress=console.print)
    return target / built.served.precision
