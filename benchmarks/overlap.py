"""What a night of several shards gains when validate and classify of different shards overlap: one slot against two."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.fixed_cost import build_model
from benchmarks.live_stack import BenchStack, NightTimes, running_stack
from benchmarks.measure import Spread

SHARDS, SHARD_PHOTOS, ROUNDS = 3, 400, 3
SLOTS = (1, 2)
RESULTS_FILE = Path(__file__).parent / "results" / "overlap.json"
_DATE = "2026-11-01"
_HEAVY = frozenset({"shards.validate", "shards.classify"})


def measure(live: BenchStack, *, rounds: int, shard_photos: int, console: Console) -> dict[str, list[dict[str, Any]]]:
    """Nights with each number of slots by turns, every round beginning with another one."""
    found: dict[str, list[dict[str, Any]]] = {str(slots): [] for slots in SLOTS}
    for number in range(rounds):
        for slots in SLOTS if number % 2 == 0 else tuple(reversed(SLOTS)):
            live.set_slots(slots)
            night = live.night(_DATE, shard_size=shard_photos)
            entry = {"seconds": night.seconds, "heavy_s": heavy_s(night), "core_s": night.core_s}
            found[str(slots)].append(entry)
            console.print(
                f"round {number + 1} of {rounds}, {slots} slots: {night.seconds:.1f} s, "
                f"shards {entry['heavy_s']:.1f} s, tasks {night.core_s['tasks']:.1f} s of CPU"
            )
    return found


def heavy_s(night: NightTimes) -> float:
    """From the first shard's start to the last one's end."""
    heavy = [task for task in night.tasks if task.name in _HEAVY]
    return max(task.ended for task in heavy) - min(task.queued for task in heavy)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the process's exit status."""
    from benchmarks.arena import find_photographs

    parser = argparse.ArgumentParser(prog="python -m benchmarks overlap", description=__doc__)
    parser.add_argument("--shards", type=int, default=SHARDS, help=f"shards of a night (default {SHARDS})")
    parser.add_argument("--photos", type=int, default=SHARD_PHOTOS, help=f"photos of a shard (default {SHARD_PHOTOS})")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"nights with each number (default {ROUNDS})")
    parser.add_argument("--model", type=Path, help="folder of a built model unit (default: build one, 20 s)")
    parser.add_argument("--output", type=Path, default=RESULTS_FILE, help="JSON file to write")
    given = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    with tempfile.TemporaryDirectory(prefix="refund-bench-") as name:
        photographs, _ = find_photographs(Path(name) / "samples")
        unit = given.model or build_model(Path(name) / "models", console)
        with running_stack(progress=console.print, timed=False) as live:
            key = live.make_champion(unit)
            photos = given.shards * given.photos
            live.upload([photographs[number % len(photographs)] for number in range(photos)], date=_DATE)
            live.unpause()
            load_before = round(os.getloadavg()[0], 2)
            found = measure(live, rounds=given.rounds, shard_photos=given.photos, console=console)
    for slots, nights in found.items():
        for label, values in (
            ("trigger to success", [night["seconds"] for night in nights]),
            ("shards, first start to last end", [night["heavy_s"] for night in nights]),
            ("CPU of tasks", [night["core_s"]["tasks"] for night in nights]),
        ):
            spread = Spread.of(values)
            console.print(f"{slots} slots, {label}: {spread.median:.1f} s ({spread.low:.1f} to {spread.high:.1f})")
    kept = {
        "shards": given.shards,
        "shard_photos": given.photos,
        "model": key,
        "slots": found,
        "load_before": load_before,
    }
    kept |= {"measured_at": datetime.now(UTC).isoformat(timespec="seconds")}
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    console.print(f"load average {load_before} before, {os.getloadavg()[0]:.2f} after; kept in {given.output}")
    return 0
