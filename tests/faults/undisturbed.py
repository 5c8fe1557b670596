"""What every fault is measured against: the same night undisturbed, and a world in which nothing stays behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import psutil
import pytest

from refund.errors import RefundError
from refund.night.fetch import fetch_manifest
from refund.night.services import open_services
from refund.settings import DatabaseAccess
from tests.conftest import Roles, migrated_database
from tests.faults.tables import night_tables
from tests.night.conftest import World
from tests.night.factories import jpeg

RUN_ID = "scheduled__2026-11-22T02:00:00+00:00"


def fill(world: World, count: int = 6) -> None:
    """Good photos, and one of each of three kinds that must be rejected."""
    for seed in range(count):
        world.put(f"R-{seed // 2}/{seed}.jpg", jpeg(seed))
    world.put("R-9/notes.jpg", b"this is not an image")
    world.put("R-9/small.jpg", jpeg(1, width=20, height=20))
    world.put("R-9/empty.jpg", b"")


def said(error: RefundError) -> str:
    """The error as Airflow's log shows it."""
    return f"{type(error).__name__}: {error}"


@contextmanager
def through(world: World, access: DatabaseAccess) -> Iterator[World]:
    """The same world, Postgres reached at another address."""
    with open_services(settings=world.services.settings, s3=world.s3, database=access) as services:
        yield replace(world, services=services)


def undisturbed(world: World, *, runs: tuple[dict[str, Any], ...] = ({},), postgres: Roles | None = None) -> Any:
    """The tables that the same bucket gives in a database of its own, where nothing goes wrong.

    Each of ``runs`` is one night with these parameters, one after the other; ``run_id`` names it.
    """
    with migrated_database(postgres or world.roles) as roles:
        settings = replace(world.services.settings, staging_root=(world.folder / "undisturbed").as_uri())
        with open_services(settings=settings, s3=world.s3, database=roles.app) as services:
            twin = replace(world, services=services, roles=roles)
            for folder in sorted(world.folder.glob("model-*")):
                services.registry.register(folder, created_by="test")
            twin.promote("tiny@1")
            for params in runs:
                twin.night(**{"run_id": RUN_ID} | params)
            return night_tables(roles.app)


def staging_folder(world: World) -> Path:
    """Where the runs' staged files lie."""
    return Path(url2pathname(urlsplit(world.services.staging.root).path))


def keys(world: World) -> set[str]:
    return {item.key for item in world.services.objects.list("")}


def check_clean(world: World, *, run_id: str = RUN_ID) -> None:
    """Nothing is left but what the night is for: no staged file, no process, no object that no row knows."""
    assert list(staging_folder(world).glob("*")) == []
    temporary = world.folder / "tmp"
    assert not temporary.is_dir() or list(temporary.iterdir()) == []
    assert sorted(path.name for path in world.services.settings.cache_folder.iterdir()) == ["tiny@1"]
    quarantined = {key for (key,) in world.rows("SELECT quarantine_key FROM refund.run_photo") if key}
    found = keys(world)
    assert {key for key in found if key.startswith("quarantine/")} == quarantined
    assert len(quarantined) == len(world.rows("SELECT FROM refund.run_photo WHERE outcome = 'rejected'"))
    reports = {key for key in found if key.startswith("reports/")}
    assert {Path(key).name for key in reports} == {"report.html", "report.csv"}
    assert len(reports) == 2
    assert [Path(key).name for key in found if key.startswith("exports/")] == ["decisions.parquet"]
    ours = ("quarantine/", "reports/", "exports/", "incoming/", "models/")
    others = {key for key in found if not key.startswith(ours)}
    assert others == set()
    await_no_process(str(world.folder))


def await_no_process(word: str, *, within_s: float = 15) -> None:
    """No process has ``word`` in its command line any more: decoding interpreters name their pack there."""
    deadline = time.monotonic() + within_s
    while left := [process for process in psutil.process_iter(["cmdline"]) if word in " ".join(_words(process))]:
        assert time.monotonic() < deadline, f"still there after {within_s} s: {left}"
        psutil.wait_procs(left, timeout=0.2)


def _words(process: psutil.Process) -> list[str]:
    return process.info["cmdline"] or []


def one_shard(world: World, run: Any) -> str:
    """Fetch, which must plan a single shard; its URI."""
    (shard,) = fetch_manifest(run, world.services)
    return shard


class Disk:
    """A file system in memory, whose room can be taken and given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def leave_free(self, free_bytes: int) -> None:
        """Make it as large as what lies on it and this many bytes, rounded up to pages."""
        used = shutil.disk_usage(self.folder).used
        _mount("-o", f"remount,size={used + free_bytes}", str(self.folder))


@contextmanager
def tmpfs(folder: Path) -> Iterator[Disk]:
    """A tmpfs of 1 GB at ``folder``, which takes memory only for what is written; skips where it cannot be mounted."""
    folder.mkdir(exist_ok=True)
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a disk that fills is a tmpfs of the test's own: mounting one needs root on Linux")
    try:
        _mount("-t", "tmpfs", "-o", "size=1g", "tmpfs", str(folder))
    except (subprocess.CalledProcessError, FileNotFoundError) as exc:
        pytest.skip(f"a disk that fills is a tmpfs of the test's own, which cannot be mounted here: {exc}")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)


def _mount(*args: str) -> None:
    subprocess.run(["mount", *args], check=True, capture_output=True)
