"""First task of the night: find everything that would stop it, say all of it at once, and open the run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, TypeVar

from refund import __version__
from refund.errors import ConfigurationError, DiskSpaceError, HealthCheckError, RefundError, RetriableRunError
from refund.monitor.stage_metrics import StageMetrics
from refund.night.services import NightRun, Services, Stopwatch
from refund.night.shard_model import model_in_force
from refund.store.database import EXPECTED_VERSION
from refund.store.staging import WORKING_ROOM_BYTES

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_CLOCK_SKEW = timedelta(seconds=60)  # S3 signatures are refused at 15 minutes; dates go wrong long before that shows


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What a passed check found."""

    model: str  # that shards which start now will use
    taxonomy_version: str
    schema_version: str

    def as_xcom(self) -> dict[str, Any]:
        """Plain values for XCom."""
        return {"model": self.model, "taxonomy_version": self.taxonomy_version, "schema_version": self.schema_version}


def check_health(run: NightRun, services: Services, *, plugin_errors: Mapping[str, str]) -> Health:
    """Check every part the night needs, then open the run's row.

    Args:
        run: the run to open.
        services: the stores to check.
        plugin_errors: import errors of Airflow's plugins, by source; Airflow only logs them.

    Raises:
        HealthCheckError: at least one part is wrong in a way that a retry does not mend; the text lists all.
        RetriableRunError: every fault found is one of the moment.
    """
    watch = Stopwatch()
    faults: list[RefundError | str] = []

    def attempt(check: Callable[[], T]) -> T | None:
        try:
            return check()
        except RefundError as exc:
            faults.append(exc)
            return None

    attempt(services.objects.check_bucket)
    schema_version = attempt(lambda: _schema_version(services))
    model = None
    if schema_version is not None:
        attempt(lambda: _check_clock(services))
        model = attempt(lambda: _check_model(run, services))
    taxonomy_version = attempt(_taxonomy_version)
    _clear_stale_staging(services)
    attempt(lambda: check_disk(services, photos=0))
    for source, message in sorted(plugin_errors.items()):
        faults.append(f"Airflow could not import the plugin {source}: {message}; mend or remove it")
    if faults or schema_version is None or model is None or taxonomy_version is None:
        if all(isinstance(fault, RetriableRunError) for fault in faults):
            raise RetriableRunError("; ".join(str(fault) for fault in faults))
        raise HealthCheckError([str(fault) for fault in faults])

    row = services.repository.begin_run(
        run_id=run.run_id,
        run_date=run.run_date,
        model=model,
        taxonomy_version=taxonomy_version,
        code_version=__version__,
        params=_params(run),
        # Postgres's clock, which also stamps rollbacks, and read after the alias was: see `model_in_force`
        started_at=services.database.now(),
    )
    services.repository.set_stage_metrics(run.run_id, {"health_check": StageMetrics(seconds=watch.seconds)})
    log.info("Night of %s: model %s, taxonomy %s", run.run_date, model, row.taxonomy_version)
    return Health(model=model, taxonomy_version=row.taxonomy_version, schema_version=schema_version)


def check_disk(services: Services, *, photos: int, photo_bytes: int = 0) -> None:
    """Check that the staging disk holds the packs of ``photos`` at ``photo_bytes`` each, and some room to work.

    Raises:
        DiskSpaceError: it does not.
    """
    free_bytes = services.staging.free_bytes()
    needed_bytes = photos * photo_bytes + WORKING_ROOM_BYTES
    if free_bytes is not None and free_bytes < needed_bytes:  # None: a bucket, which does not fill
        raise DiskSpaceError(path=services.settings.staging_root, free_bytes=free_bytes, needed_bytes=needed_bytes)


def _clear_stale_staging(services: Services) -> None:
    """Make room; that it cannot be made is only a fault if room is wanting, which the next check says."""
    before = services.now() - timedelta(days=services.settings.staging_keep_days)
    try:
        removed = services.staging.remove_stale(before)
    except (OSError, RefundError) as exc:
        log.warning("Could not clear old staging: %s", exc)
    else:
        if removed:
            log.info("Removed from staging, untouched since %s: %s", before, ", ".join(removed))


def _schema_version(services: Services) -> str:
    services.database.require_schema()
    return EXPECTED_VERSION


def _check_clock(services: Services) -> None:
    before = services.now()
    skew = services.database.now() - before
    if abs(skew) > MAX_CLOCK_SKEW:
        msg = (
            f"this worker's clock and Postgres's differ by {skew.total_seconds():.0f} s, at most "
            f"{MAX_CLOCK_SKEW.total_seconds():.0f} s is safe; set both by NTP"
        )
        raise ConfigurationError(msg)


def _check_model(run: NightRun, services: Services) -> str:
    """Resolve the run's model, fetch it into the cache and load it, which checks hash, labels and outputs.

    Of a run that is begun again, the model that its shards would now use; its row keeps what it began with.
    """
    from refund.model.load import load_model

    existing = services.repository.get_run(run.run_id)
    found = services.registry.resolve(run.params.model) if existing is None else model_in_force(existing, services)
    key = found.model
    folder = services.registry.fetch(key, services.settings.cache_folder)
    with load_model(folder, threads=1):
        return key


def _taxonomy_version() -> str:
    from refund.model.labels import load_labels
    from refund.model.taxonomy import load_taxonomy

    return load_taxonomy(labels=load_labels()).version


def _params(run: NightRun) -> dict[str, Any]:
    return asdict(run.params) | {"run_date": run.run_date.isoformat()}
