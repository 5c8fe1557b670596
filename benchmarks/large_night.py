"""``python -m benchmarks large``: whether a photo costs more in a night of 100,000 than in one of 1,000.

What is real and what is made up: the listing answers any number of keys over the same few photographs
(`benchmarks.many_keys`). Fetch, persist, report and alerts run on all of them, in nights whose two dates before hold as
many photos again, which are unchanged. Validate and classify run on one shard, so as to end today; what persist reads
of all other shards is theirs over again, under the other photos' ids. Each stage is a process of its own, as under
Airflow.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import large_stage
from benchmarks.photographs import find_photographs
from refund.settings import S3Access

if TYPE_CHECKING:
    import pyarrow as pa

    from tests.postgres import Roles

DAY = date(2026, 11, 21)
LATE_DAYS = 2
RESULTS_FILE = Path(__file__).parent / "results" / "large_night.json"
_CHECKOUT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What one stage of one night cost."""

    stage: str
    night: int  # new photos of the night
    photos: int  # that the stage worked on
    wall_s: float
    cpu_s: float
    peak_mb: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure nights of growing size and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks large", description=__doc__)
    parser.add_argument("--photos", type=int, default=100_000, help="of the largest night")
    parser.add_argument("--steps", type=int, default=3, help="nights, each ten times as large as the one before")
    parser.add_argument("--model", type=Path, help="folder of a model unit; default: the tests' tiny one")
    parser.add_argument("--output", type=Path, default=RESULTS_FILE)
    args = parser.parse_args(arguments)

    from tests.postgres import cluster

    sizes = [max(1, args.photos // 10**step) for step in range(args.steps - 1, -1, -1)]
    stages: list[Stage] = []
    with cluster() as server, tempfile.TemporaryDirectory(prefix="refund-large-") as scratch:
        bodies = Path(scratch) / "bodies"
        bodies.mkdir()
        photographs, where = find_photographs(Path(scratch) / "samples")
        for number, body in enumerate(photographs):
            (bodies / f"{number:05d}").write_bytes(body)
        for photos in sizes:
            for stage in _night(server.roles, bodies, photos=photos, model=args.model):
                stages.append(stage)
                print(_row(stage), flush=True)
    content = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "photographs": where,
        "stages": [{name: getattr(stage, name) for name in Stage.__dataclass_fields__} for stage in stages],
    }
    args.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


def _row(one: Stage) -> str:
    return (
        f"{one.night:>7} {one.stage:<16} {one.photos:>7} photos  {one.wall_s:8.2f} s  "
        f"{1000 * one.wall_s / one.photos:7.3f} ms  {1000 * one.cpu_s / one.photos:7.3f} core-ms  {one.peak_mb:6.0f} MB"
    )


def _night(postgres: Roles, bodies: Path, *, photos: int, model: Path | None) -> Iterator[Stage]:
    """Two nights that are not measured, then the one that lists their photos again."""
    from refund.night.services import open_services
    from refund.settings import Settings
    from refund.store.migrate import migrate
    from tests.conftest import fresh_database

    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="refund-large-"))
        roles = stack.enter_context(fresh_database(postgres))
        migrate(roles.owner)
        days = [DAY - timedelta(days=late) for late in range(LATE_DAYS, -1, -1)]
        bucket = stack.enter_context(_bucket(bodies, days=days, photos=photos))
        access: dict[str, Any] = {"s3": bucket, "database": roles.app, "folder": folder}
        settings = Settings(staging_root=f"file://{folder}/staging", cache_dir=f"{folder}/cache")
        services = stack.enter_context(open_services(settings=settings, s3=bucket, database=roles.app))
        _register(services, model, Path(folder))
        for place, day in enumerate(days):
            told = {**access, "run_id": f"night-{day}", "day": day.isoformat(), "late_days": place}
            listed = photos * (place + 1)
            measured = list(_stages(told, photos=photos, listed=listed))
            if day == DAY:
                yield from measured


def _stages(told: dict[str, Any], *, photos: int, listed: int) -> Iterator[Stage]:
    def run(stage: str, worked: int, **more: Any) -> tuple[Any, Stage]:
        said = _process(large_stage.call(stage, **told, **more))
        answer = said.pop("answer")
        return answer, Stage(stage=stage, night=photos, photos=worked, **said)

    run("health_check", listed)
    shards, fetched = run("fetch", listed)
    yield fetched
    worked = _shard_photos(shards[0])
    yield run("validate", worked, shard=shards[0])[1]
    yield run("classify", worked, shard=shards[0])[1]
    for shard in shards[1:]:
        _make_up(shards[0], shard)
    yield run("persist", listed)[1]
    uris, reported = run("generate_report", listed)
    if "decisions" not in uris:
        msg = f"the night of {photos} photos was not exported: {uris}"
        raise RuntimeError(msg)
    yield reported
    yield run("alert_on_drift", listed)[1]


def _process(told: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.large_stage"]
    done = subprocess.run(command, input=told, capture_output=True, text=True, check=False, cwd=_CHECKOUT)
    if done.returncode:
        msg = f"a stage failed:\n{done.stderr[-4000:]}"
        raise RuntimeError(msg)
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def _folder(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def _shard_photos(shard: str) -> int:
    from refund.night.staged import read_manifest

    return int(read_manifest(_folder(shard) / "manifest").num_rows)


def _make_up(real: str, shard: str) -> None:
    """Stage for a shard what validate and classify would have: the rows of the real one over again, under its ids."""
    import pyarrow.parquet as pq

    from refund.imaging.pack import PHOTOS_FILE
    from refund.night.staged import PREDICTIONS_FILE, STAGE_FILE, read_manifest

    ids = read_manifest(_folder(shard) / "manifest").column("photo_id")
    photos = pq.read_table(_folder(real) / "pack" / PHOTOS_FILE)
    repeated = _over_again(photos, ids)
    good = repeated.filter(repeated.column("reason").is_null())
    predictions = _over_again(pq.read_table(_folder(real) / "predictions" / PREDICTIONS_FILE), good.column("photo_id"))
    counts = {"photos": len(ids), "rejected": len(repeated) - len(good), "classified": len(good)}
    for name, file, table in (("pack", PHOTOS_FILE, repeated), ("predictions", PREDICTIONS_FILE, predictions)):
        target = _folder(shard) / name
        target.mkdir(parents=True)
        pq.write_table(table, target / file)
        noted = json.loads((_folder(real) / name / STAGE_FILE).read_text())
        noted |= {key: value for key, value in counts.items() if key in noted}
        (target / STAGE_FILE).write_text(json.dumps(noted))


def _over_again(table: pa.Table, ids: Any) -> pa.Table:
    """As many rows as ids, from the first on and round again."""
    import pyarrow as pa

    rows = table.take(pa.array([row % len(table) for row in range(len(ids))]))
    return rows.set_column(table.schema.get_field_index("photo_id"), table.schema.field("photo_id"), ids)


def _register(services: Any, model: Path | None, folder: Path) -> None:
    from tests.night.factories import write_model

    if model is None:
        model = folder / "unit"
        write_model(model)
    row = services.registry.register(model, created_by="benchmark")
    services.registry.promote("champion", row.model, by="benchmark", reason="the only one")


@contextmanager
def _bucket(bodies: Path, *, days: list[date], photos: int) -> Iterator[S3Access]:
    command = [sys.executable, "-m", "benchmarks.many_keys", "--bodies", str(bodies), "--photos", str(photos)]
    command += ["--days", ",".join(day.isoformat() for day in days)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_CHECKOUT) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        port = int(server.stdout.readline())
        yield S3Access(bucket="photos", endpoint_url=f"http://127.0.0.1:{port}", access_key="any", secret_key="any")
        server.stdin.close()
