"""Where the CPU of our stages goes: each stage in a process of its own under py-spy, summed up by what is done.

``python -m benchmarks profile``. py-spy says what Python was doing, child processes included, and how often; what
the stage cost comes from the kernel. Threads that Python does not know, those in which obstore reads from S3, no
sampler of Python sees: the kernel tells their CPU too.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

PY_SPY = Path(__file__).parents[1] / ".venv-bench" / "bin" / "py-spy"
PHOTOS = 1_000
_RATE = 200  # samples a second
_CHECKOUT = Path(__file__).resolve().parents[1]
_NATIVE = "tokio"  # how obstore's threads are called

GET, IMPORTS, OTHER = "GET", "imports", "other"
# The innermost frame that one of these texts is found in decides; frames read "function (file:line)".
_WORKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("resize", ("resize (PIL/", "reduce (PIL/")),
    ("JPEG decode", ("load (PIL/", "draft (PIL/", "PIL/", "imaging/decode.py")),
    ("hash", ("imaging/fingerprint.py",)),
    ("quality", ("imaging/quality.py",)),
    ("checks of the file", ("imaging/structure.py", "imaging/sniff.py", "imaging/examine.py")),
    ("pool traffic", ("imaging/pool", "night/decoding.py", "subprocess.py")),
    (GET, ("store/downloads.py", "obstore/")),
    ("LiteRT", ("ai_edge_litert/interpreter.py", "model/runtimes/litert.py", "model/runtimes/base.py")),
    (
        "deciding, rows",
        ("model/decide.py", "night/prediction_table.py", "night/classify.py", "night/inference.py", "model/load.py"),
    ),
    ("COPY, SQL", ("store/copy_text.py", "store/publish.py", "store/database.py", "store/partitions.py")),
    ("S3 besides GET", ("botocore/", "boto3/", "store/objects.py", "store/s3_clients.py")),
    ("Parquet", ("pyarrow/parquet/", "night/staged.py", "imaging/pack.py")),
)
# A thread that waits there was about to sleep or to wake when it was looked at: on a busy machine that is often.
_WAITS = (
    "select (selectors.py", "wait (threading.py", "_wait_for_tstate_lock (", "_worker (concurrent/futures/thread.py",
)  # fmt: skip
_MODEL, _MODEL_FRAMES = "start of the model", ("load_model (", "load_labels (", "load_taxonomy (")
ORDER = (*(name for name, _ in _WORKS), _MODEL, IMPORTS, OTHER)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageProfile:
    """What one stage cost and where, in CPU seconds."""

    cpu_s: float
    spent_s: Mapping[str, float]  # by what is done; adds up to cpu_s


def work_of(stack: str) -> str:
    """What a stack of py-spy's raw format, outermost frame first and ``;`` between, was doing."""
    frames = stack.split(";")[::-1]
    if any("importlib._bootstrap" in frame for frame in frames):
        return IMPORTS
    if any(text in frame for frame in frames for text in _MODEL_FRAMES):
        return _MODEL
    for frame in frames:
        for name, texts in _WORKS:
            if any(text in frame for text in texts):
                return name
    return OTHER


def spent(raw: str, *, cpu_s: float, native_s: float) -> StageProfile:
    """Share out what a stage cost over the samples of py-spy, those of waiting threads left out.

    ``native_s`` of it are those of obstore's threads.
    """
    samples: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        if not any(text in stack.rpartition(";")[2] for text in _WAITS):
            samples[work_of(stack)] += int(count)
    each_s = (cpu_s - native_s) / max(1, samples.total())
    found = {name: count * each_s for name, count in samples.items()}
    found[GET] = found.get(GET, 0.0) + native_s
    return StageProfile(cpu_s=cpu_s, spent_s=found)


def profile(*, photos: int, model: Path | None, progress: Callable[[str], None]) -> dict[str, StageProfile]:
    """One night of ``photos`` photographs of 500×375, stage after stage.

    Raises:
        RuntimeError: a stage failed, or classified another number of photos.
    """
    from benchmarks.arena import DAY, PREFIX, open_arena
    from benchmarks.handover import write_access
    from benchmarks.photographs import find_photographs
    from benchmarks.units import find_units
    from refund.night.health_check import check_health
    from refund.night.services import NightRun
    from refund.params import NightParams

    with tempfile.TemporaryDirectory(prefix="refund-bench-") as name:
        scratch = Path(name)
        photographs, _ = find_photographs(scratch / "samples")
        units = find_units(model, scratch / "models", progress=progress)
        with open_arena(photographs=photographs, photos=photos, model_folder=units.served, progress=progress) as arena:
            params = NightParams(prefix=PREFIX, late_days=0)
            run = NightRun(run_id=f"profile-{secrets.token_hex(6)}", run_date=DAY, params=params)
            check_health(run, arena.services, plugin_errors={})
            access = write_access(arena.services, scratch / "access.json")
            call = {"run_id": run.run_id, "prefix": PREFIX}
            progress("fetch, validate, classify, persist under py-spy")
            shards, fetch = _stage(access, call | {"stage": "fetch"}, scratch)
            found = {"fetch": fetch}
            for stage in ("validate", "classify"):
                parts = [_stage(access, call | {"stage": stage, "shard": shard}, scratch)[1] for shard in shards]
                found[stage] = _added(parts)
            counts, found["persist"] = _stage(access, call | {"stage": "persist"}, scratch)
    if (counts["photos"], counts["classified"]) != (photos, photos):
        msg = f"of {photos} photos, all of them good, the night made {counts}"
        raise RuntimeError(msg)
    return found


def markdown(found: Mapping[str, StageProfile], *, photos: int) -> str:
    """The table: CPU milliseconds a photo by what is done and by stage, and the share of the whole."""
    whole_s = sum(stage.cpu_s for stage in found.values())
    lines = [
        f"| core-ms a photo | {' | '.join(found)} | all | share |",
        f"|---|{'---:|' * (len(found) + 2)}",
    ]
    for name in ORDER:
        each_s = [stage.spent_s.get(name, 0.0) for stage in found.values()]
        if sum(each_s) > 0:
            cells = [*each_s, sum(each_s)]
            lines.append(f"| {name} | {_cells(cells, photos)} | {100 * sum(each_s) / whole_s:.1f} % |")
    sums = [*(stage.cpu_s for stage in found.values()), whole_s]
    lines.append(f"| sum | {_cells(sums, photos)} | 100 % |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Profile, or be the stage that is profiled; the process's exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks profile", description=__doc__)
    parser.add_argument("--photos", type=int, default=PHOTOS, help=f"how many (default {PHOTOS})")
    parser.add_argument("--model", type=Path, help="folder of a built model unit (default: build one)")
    parser.add_argument("--stage", nargs=2, metavar=("ACCESS", "CALL"), help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.stage:
        _be_stage(*given.stage)
    found = profile(photos=given.photos, model=given.model, progress=lambda text: print(text, file=sys.stderr))
    print(markdown(found, photos=given.photos))
    return 0


def _be_stage(access: str, call: str) -> NoReturn:
    """Run one stage here; then print what it cost, its interpreter's start and ended children included."""
    from benchmarks import stage_process
    from benchmarks.measure import own_cpu_s

    stage_process.main(access, call)
    print(json.dumps({"cpu_s": own_cpu_s(), "native_s": _native_cpu_s()}), flush=True)
    os._exit(0)  # as Airflow ends a task: what tearing down the interpreter takes is in no figure


def _native_cpu_s() -> float:
    """CPU seconds of this process's threads of obstore; 0 where the kernel does not tell."""
    found = 0.0
    for task in Path("/proc/self/task").glob("*"):
        if (task / "comm").read_text(encoding="utf-8").startswith(_NATIVE):
            found += int((task / "schedstat").read_text(encoding="ascii").split()[0]) / 1e9
    return found


def _stage(access: Path, call: Mapping[str, str], scratch: Path) -> tuple[Any, StageProfile]:
    """Run one stage under py-spy; its answer and its profile."""
    raw = scratch / "raw.txt"
    command = [str(PY_SPY), "record", "--format", "raw", "--subprocesses", "--rate", str(_RATE), "--output", str(raw)]
    stage = [sys.executable, "-m", "benchmarks.profile_night", "--stage", str(access), json.dumps(call)]
    ended = subprocess.run([*command, "--", *stage], cwd=_CHECKOUT, capture_output=True, text=True, check=False)
    told = [line for line in ended.stdout.splitlines() if line.startswith(("{", "["))]
    if ended.returncode or len(told) < 2 or not raw.is_file():
        msg = f"{call['stage']} under py-spy ended with {ended.returncode}: {(ended.stdout + ended.stderr)[-2000:]}"
        raise RuntimeError(msg)
    answer, cost = (json.loads(line) for line in told[-2:])
    if keep := os.environ.get("REFUND_PROFILE_RAW"):
        (Path(keep) / f"{call['stage']}.txt").write_text(raw.read_text(encoding="utf-8"), encoding="utf-8")
    return answer, spent(raw.read_text(encoding="utf-8"), **cost)


def _added(parts: Iterable[StageProfile]) -> StageProfile:
    parts = list(parts)
    names = {name for part in parts for name in part.spent_s}
    return StageProfile(
        cpu_s=sum(part.cpu_s for part in parts),
        spent_s={name: sum(part.spent_s.get(name, 0.0) for part in parts) for name in names},
    )


def _cells(seconds: Iterable[float], photos: int) -> str:
    return " | ".join(f"{1000 * one / photos:.2f}" if one else "" for one in seconds)


if __name__ == "__main__":
    sys.exit(main())
