"""Nights on a worker with little memory, whose limits are real: smaller batches, said aloud, and the same verdicts."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from typing import Any

import pytest
from PIL import Image

from refund.errors import MemoryShortageError
from refund.night.classify import classify_shard
from refund.night.fetch import fetch_manifest
from refund.night.free_memory import CONTAINER, FreeMemory
from refund.night.validate import validate_shard
from tests.conftest import REPOSITORY
from tests.night.conftest import World, fill

MB = 1_000_000
VERDICTS = "SELECT photo_id, outcome, reason FROM refund.run_photo WHERE run_id = '{}' ORDER BY photo_id"


def with_memory(world: World, free_mb: int) -> World:
    """The same world on a worker where a container's limit leaves so much for two tasks."""
    free = FreeMemory(free_bytes=free_mb * MB, held_by=CONTAINER)
    settings = replace(world.services.settings, decode_workers=2, inference_threads=2)
    return replace(world, services=replace(world.services, settings=settings, free_memory=lambda: free))


def notes(world: World, run_id: str) -> list[str]:
    return list(world.services.repository.require_run(run_id).notes)


def test_little_memory_is_said_once_for_each_task_and_changes_no_verdict(world: World) -> None:
    fill(world, 5)
    world.put("R-9/bad.jpg", b"no picture")
    assert world.night("usual")["classified"] == 5
    assert notes(world, "usual") == []
    run = world.start("small", force=True, shard_size=3)
    for shard_uri in fetch_manifest(run, world.services):
        validate_shard(shard_uri, run=run, services=with_memory(world, 600).services)
        classify_shard(shard_uri, run=run, services=with_memory(world, 300).services)
    assert world.finish(run)["classified"] == 5
    found = sorted(notes(world, "small"))
    assert [note.partition(":")[0] for note in found] == ["classify met little memory", "validate met little memory"]
    assert "135 MB (one of 2 tasks' shares of 300 MB that the container's limit leaves free), usual are" in found[0]
    assert "photos at once instead of 256" in found[0]
    assert "1 decoding child instead of 2, 16 MB read ahead instead of 64, " in found[1]
    assert world.rows(VERDICTS.format("small")) == world.rows(VERDICTS.format("usual"))


def test_less_than_the_least_ends_the_task_before_anything_is_downloaded(world: World) -> None:
    fill(world, 2)
    run = world.start("run")
    (shard_uri,) = fetch_manifest(run, world.services)
    least = r"may take 72 MB of memory \(80 MB that the container's limit .*\), it needs at least \d+ MB and usually"
    tiny = with_memory(world, 80).services
    with pytest.raises(MemoryShortageError, match=f"validate {least}"):
        validate_shard(shard_uri, run=run, services=tiny)
    validate_shard(shard_uri, run=run, services=world.services)
    with pytest.raises(MemoryShortageError, match=f"classify {least}"):
        classify_shard(shard_uri, run=run, services=tiny)


def test_shards_that_begin_together_note_it_once(world: World) -> None:
    """Another task of the run says it between this one's look at the run and its own word."""
    fill(world, 1)
    run = world.start("run")
    services = with_memory(world, 600).services
    (shard_uri,) = fetch_manifest(run, services)
    seen = services.free_memory

    def while_another_speaks() -> FreeMemory:
        services.repository.add_notes("run", ["validate met little memory: 7 MB"])
        return seen()

    validate_shard(shard_uri, run=run, services=replace(services, free_memory=while_another_speaks))
    assert notes(world, "run") == ["validate met little memory: 7 MB"]


@pytest.mark.parametrize("task", [validate_shard, classify_shard])
def test_memory_that_runs_out_in_a_task_s_own_process_is_said_and_tried_again(world: World, task: Any) -> None:
    fill(world, 1)
    run = world.start("run")
    (shard_uri,) = fetch_manifest(run, world.services)
    validate_shard(shard_uri, run=run, services=world.services)

    def more_than_any_machine_has() -> FreeMemory:
        raise AssertionError(bytearray(1 << 60))

    text = (
        r"(validate|classify) ran out of memory in its own process \(a small piece was refused\)\. The task is tried "
    )
    with pytest.raises(MemoryShortageError, match=text):
        task(shard_uri, run=run, services=replace(world.services, free_memory=more_than_any_machine_has))


@pytest.mark.slow
def test_a_photo_too_large_for_this_worker_is_not_rejected_but_named(world: World) -> None:
    body = io.BytesIO()
    Image.new("RGBA", (4000, 4000), (1, 2, 3, 100)).save(body, "PNG")
    key = world.put("R-1/large.png", body.getvalue())
    run = world.start("run")
    (shard_uri,) = fetch_manifest(run, world.services)
    text = (
        r"this worker has 2\d\d MB for one decoder, decode_memory_bytes allows it 1,500 MB, and 1 of 1 photos need "
        rf"more than there is, for example '{key}'\. .*; or set REFUND_DECODE_MEMORY_BYTES=2\d+, so that such photos"
    )
    with pytest.raises(MemoryShortageError, match=text):
        validate_shard(shard_uri, run=run, services=with_memory(world, 600).services)
    assert validate_shard(shard_uri, run=run, services=world.services).rejected == 0


LIMITED_TASK = """
import json, resource, sys
from datetime import date
from refund.night.classify import classify_shard
from refund.night.services import NightRun, open_services
from refund.night.validate import validate_shard
from refund.params import NightParams
from refund.settings import DatabaseAccess, S3Access, Settings

given = json.loads(sys.stdin.read())
task = {"validate": validate_shard, "classify": classify_shard}[given["task"]]
run = NightRun(run_id=given["run_id"], run_date=date.fromisoformat(given["day"]), params=NightParams())
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + given["limit"], used + given["limit"]))
with open_services(
    settings=Settings(**given["settings"]), s3=S3Access(**given["s3"]), database=DatabaseAccess(**given["database"])
) as services:
    print(json.dumps(task(given["shard_uri"], run=run, services=services).as_xcom()))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not hold a process to RLIMIT_AS")
def test_tasks_under_a_real_limit_end_well_with_smaller_batches(world: World) -> None:
    """RLIMIT_AS counts what is mapped, several times what is used: 1.4 GB are gone before a task begins."""
    fill(world, 300)
    run = world.start("run")
    (shard_uri,) = fetch_manifest(run, world.services)
    settings = {"staging_root": world.services.settings.staging_root, "cache_dir": world.services.settings.cache_dir}
    for task, task_mb in (("validate", 400), ("classify", 150)):
        given = {
            "task": task,
            "run_id": "run",
            "day": run.run_date.isoformat(),
            "shard_uri": shard_uri,
            "limit": 2000 * MB,
            "settings": settings | {"decode_workers": 2, "inference_threads": 2, "task_memory_bytes": task_mb * MB},
            "s3": asdict(world.s3),
            "database": asdict(world.roles.app),
        }
        done = subprocess.run(
            [sys.executable, "-c", LIMITED_TASK],
            input=json.dumps(given),
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY / "plugins"), "MALLOC_ARENA_MAX": "2"},
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert json.loads(done.stdout)["photos" if task == "validate" else "classified"] == 300
    assert [note.partition(":")[0] for note in sorted(notes(world, "run"))] == [
        "classify met little memory",
        "validate met little memory",
    ]
