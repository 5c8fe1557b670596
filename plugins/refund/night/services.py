"""What the stages work with: the run they belong to, and the stores they read and write."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refund.keys import path_safe
from refund.night.free_memory import FreeMemory, read_free_memory
from refund.params import NightParams
from refund.settings import DatabaseAccess, S3Access, Settings
from refund.store.database import Database
from refund.store.objects import ObjectStore
from refund.store.registry import Registry
from refund.store.repository import Repository
from refund.store.staging import Staging

if TYPE_CHECKING:
    from refund.store.records import RunRow


@dataclass(frozen=True, slots=True, kw_only=True)
class NightRun:
    """One run of ``refund_nightly``: who it is and what it was told to do."""

    run_id: str  # Airflow's
    run_date: date  # the night it publishes
    params: NightParams
    begun_at: datetime | None = None  # when it began, or began again after tasks of it were cleared; None: not known

    def sighted_at(self, started_at: datetime) -> datetime:
        """The time of what this run finds; the same however often a task of it is tried again by itself.

        Args:
            started_at: when the run began first.
        """
        return started_at if self.begun_at is None else max(started_at, self.begun_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Every store and setting a stage may use; made at the edge, passed inwards."""

    settings: Settings
    objects: ObjectStore
    database: Database
    repository: Repository
    staging: Staging
    registry: Registry
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    free_memory: Callable[[], FreeMemory] = read_free_memory

    def report_copy(self, html_uri: str) -> str:
        """The report's copy on this machine where ``report_dir`` is set, else its URI."""
        if not self.settings.report_dir:
            return html_uri
        return str(Path(self.settings.report_dir) / html_uri.partition("/reports/")[2])


@contextmanager
def open_services(*, settings: Settings, s3: S3Access, database: DatabaseAccess) -> Iterator[Services]:
    """Open the stores of one task. Nothing is connected before its first use."""
    objects = ObjectStore(s3)
    connected = Database(database)
    repository = Repository(connected)
    yield Services(
        settings=settings,
        objects=objects,
        database=connected,
        repository=repository,
        staging=Staging(settings.staging_root, s3=s3),
        registry=Registry(objects=objects, database=connected),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLayout:
    """Where a run keeps its staged files; the names that `refund.schemas` describes."""

    staging: Staging
    run_id: str

    @property
    def root(self) -> str:
        """The run's folder."""
        return self.staging.uri(path_safe(self.run_id))

    @property
    def plan(self) -> str:
        """``plan.json``: written last by fetch, so a run with a plan has all its manifests."""
        return self.staging.uri(path_safe(self.run_id), "plan.json")

    @property
    def unchanged(self) -> str:
        """The folder of ``unchanged.parquet``."""
        return self.staging.uri(path_safe(self.run_id), "unchanged")

    def shard(self, number: int) -> str:
        """The folder of one shard."""
        return self.staging.uri(path_safe(self.run_id), f"shard-{number:05d}")


class ShardLayout:
    """The folders of one shard, from the URI that tasks hand each other."""

    def __init__(self, shard_uri: str) -> None:
        self.uri = shard_uri
        self.manifest = f"{shard_uri}/manifest"
        self.pack = f"{shard_uri}/pack"
        self.predictions = f"{shard_uri}/predictions"


def begun_params(row: RunRow) -> NightParams:
    """The parameters that a run began with: cleared later, under other defaults, it goes on with these."""
    return NightParams.from_mapping(row.params)


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Elapsed seconds, to the millisecond."""
        return round(time.perf_counter() - self._start, 3)


def dump(values: dict[str, Any]) -> bytes:
    """JSON bytes as staged files hold them."""
    return json.dumps(values, sort_keys=True, default=str).encode()
