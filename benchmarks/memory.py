"""Peak memory of a small and of a large night: every task in a process of its own, watched with all that it starts.

What counts is proportional set size (PSS) as the kernel tells it in ``smaps_rollup``: memory that several processes
share counts once, mapped pages of files count as long as they are mapped and present.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.arena import DAY, Arena
from benchmarks.handover import write_access
from benchmarks.photographs import repeated
from benchmarks.stages import STAGES
from refund.night.health_check import check_health
from refund.night.services import NightRun
from refund.params import NightParams

SMALL, LARGE = 1_000, 20_000
_EVERY_S = 0.05
_CHECKOUT = Path(__file__).resolve().parents[1]


@dataclass(slots=True)
class Peak:
    """The most that was seen at once, in bytes."""

    total: int = 0
    anonymous: int = 0  # of processes' own, not of files; its own peak, which may be at another moment
    samples: int = 0
    parts: dict[str, int] = field(default_factory=dict)  # of the peak of the total, by what the kernel tells apart

    def see(self, parts: dict[str, int]) -> None:
        """Take note of one look."""
        self.samples += 1
        self.anonymous = max(self.anonymous, parts.get("Pss_Anon", 0))
        if parts.get("Pss", 0) > self.total:
            self.total, self.parts = parts["Pss"], parts


def pss(pid: int) -> dict[str, int]:
    """Bytes of a living process by ``Pss``, ``Pss_Anon``, ``Pss_File`` and ``Pss_Shmem``; empty where it has ended."""
    found = {}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            name, _, rest = line.partition(":")
            if name in {"Pss", "Pss_Anon", "Pss_File", "Pss_Shmem"}:
                found[name] = int(rest.split()[0]) * 1024
    return found


def watched(command: Sequence[str], *, environ: dict[str, str] | None = None) -> tuple[str, Peak]:
    """Run a command to its end; what it printed, and the peak of it and all below it.

    Raises:
        RuntimeError: it failed; with its last words.
    """
    peak, ended = Peak(), threading.Event()
    process = subprocess.Popen(
        command, cwd=_CHECKOUT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )

    def watch() -> None:
        while not ended.wait(_EVERY_S):
            with contextlib.suppress(psutil.NoSuchProcess):
                root = psutil.Process(process.pid)
                seen = [pss(one.pid) for one in (root, *root.children(recursive=True))]
                peak.see({name: sum(one.get(name, 0) for one in seen) for name in ("Pss", *_PARTS)})

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    said, complaints = process.communicate()
    ended.set()
    watcher.join()
    if process.returncode:
        msg = f"{' '.join(command[:4])} ended with status {process.returncode}: {complaints.strip()[-800:]}"
        raise RuntimeError(msg)
    return said, peak


_PARTS = ("Pss_Anon", "Pss_File", "Pss_Shmem")


def peaks(
    arena: Arena,
    photographs: Sequence[bytes],
    *,
    sizes: Sequence[int] = (SMALL, LARGE),
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """The peak of each stage of a night of each size; ``ratio`` is that of the last size over that of the first."""
    found: dict[str, Any] = {"nights": {}}
    for photos in sizes:
        progress(f"peak memory of a night of {photos:,} photos")
        prefix = f"memory-{photos}/"
        arena.lay_out("memory", repeated(photographs, photos=photos), prefix=prefix)
        found["nights"][str(photos)] = _night(arena, prefix, photos=photos)
    whole = [max(stage["peak_mb"] for stage in night["stages"].values()) for night in found["nights"].values()]
    return found | {"peak_mb": dict(zip(found["nights"], whole, strict=True)), "ratio": round(whole[-1] / whole[0], 3)}


def _night(arena: Arena, prefix: str, *, photos: int) -> dict[str, Any]:
    services = arena.services
    arena.forget_outcomes()
    params = NightParams(prefix=prefix, late_days=0)
    run = NightRun(run_id=f"bench-{secrets.token_hex(6)}", run_date=DAY, params=params)
    check_health(run, services, plugin_errors={})
    access = write_access(services, arena.folder / f"{run.run_id}.json")
    seen: dict[str, list[Peak]] = {stage: [] for stage in STAGES}

    def task(stage: str, **more: str) -> Any:
        call = {"stage": stage, "run_id": run.run_id, "prefix": prefix, **more}
        command = [sys.executable, "-m", "benchmarks.stage_process", str(access), json.dumps(call)]
        said, peak = watched(command)
        seen[stage].append(peak)
        return json.loads(said.splitlines()[-1])

    shards = task("fetch")
    for shard in shards:
        task("validate", shard=shard)
        task("classify", shard=shard)
    counts = task("persist")
    if counts["classified"] != photos:
        msg = f"the night of {photos} photos made {counts}"
        raise RuntimeError(msg)
    return {"shards": len(shards), "stages": {stage: _told(of_stage) for stage, of_stage in seen.items()}}


def _told(of_stage: Sequence[Peak]) -> dict[str, Any]:
    highest = max(of_stage, key=lambda peak: peak.total)
    return {
        "peak_mb": round(highest.total / 1e6, 1),
        "peak_mb_each": [round(peak.total / 1e6, 1) for peak in of_stage],
        "anonymous_mb": round(max(peak.anonymous for peak in of_stage) / 1e6, 1),
        "parts_mb": {name: round(size / 1e6, 1) for name, size in highest.parts.items()},
        "samples": sum(peak.samples for peak in of_stage),
    }
