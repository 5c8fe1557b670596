"""One stage of `benchmarks.large_night` in a process of its own, so that its memory is its own."""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measure import own_cpu_s
from refund.night.services import NightRun, open_services
from refund.params import NightParams
from refund.settings import DatabaseAccess, S3Access, Settings

if TYPE_CHECKING:
    from refund.night.services import Services

SHARD_SIZE = 4000  # as NightParams; told here because the made-up files are of shards of any size


def call(stage: str, *, s3: S3Access, database: DatabaseAccess, folder: str, **more: Any) -> str:
    """What the process is told."""
    return json.dumps({"stage": stage, "s3": asdict(s3), "database": asdict(database), "folder": folder, **more})


def main() -> None:
    """Read one call from standard input, do the stage, print what it cost and what it answered."""
    given = json.loads(sys.stdin.read())
    settings = Settings(staging_root=f"file://{given['folder']}/staging", cache_dir=f"{given['folder']}/cache")
    run = NightRun(
        run_id=given["run_id"],
        run_date=date.fromisoformat(given["day"]),
        params=NightParams(late_days=given["late_days"], shard_size=SHARD_SIZE),
    )
    access, database = S3Access(**given["s3"]), DatabaseAccess(**given["database"])
    with open_services(settings=settings, s3=access, database=database) as services:
        work = _works(run, services, given)[given["stage"]]
        before_s, began = own_cpu_s(), time.perf_counter()
        answer = work()
        wall_s, cpu_s = time.perf_counter() - began, own_cpu_s() - before_s
    print(json.dumps({"wall_s": wall_s, "cpu_s": cpu_s, "peak_mb": _peak_mb(), "answer": answer}))


def _works(run: NightRun, services: Services, given: dict[str, Any]) -> dict[str, Any]:
    return {
        "health_check": lambda: _health_check(run, services),
        "fetch": lambda: _fetch(run, services),
        "validate": lambda: _validate(given["shard"], run, services),
        "classify": lambda: _classify(given["shard"], run, services),
        "persist": lambda: _persist(run, services),
        "generate_report": lambda: _report(run, services),
        "alert_on_drift": lambda: _alerts(run, services),
    }


def _health_check(run: NightRun, services: Services) -> None:
    from refund.night.health_check import check_health

    check_health(run, services, plugin_errors={})


def _fetch(run: NightRun, services: Services) -> Any:
    from refund.night.fetch import fetch_manifest

    return fetch_manifest(run, services)


def _validate(shard: str, run: NightRun, services: Services) -> Any:
    from refund.night.validate import validate_shard

    return validate_shard(shard, run=run, services=services).as_xcom()


def _classify(shard: str, run: NightRun, services: Services) -> Any:
    from refund.night.classify import classify_shard

    return classify_shard(shard, run=run, services=services).as_xcom()


def _persist(run: NightRun, services: Services) -> Any:
    from refund.night.persist import persist_run

    return persist_run(run, services)


def _report(run: NightRun, services: Services) -> Any:
    from refund.night.generate_report import write_report

    return write_report(run, services)


def _alerts(run: NightRun, services: Services) -> Any:
    from refund.night.alert_on_drift import raise_alerts

    return raise_alerts(run, services, task_states={"persist": "success"})


def _peak_mb() -> float:
    """Of this process, and the largest of its children beside it; 0.0 for itself where there is no /proc."""
    try:  # not ru_maxrss, which begins with what the process had that started this one
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        own_kb = int(status.partition("VmHWM:")[2].split()[0])
    except OSError:
        own_kb = 0
    return (own_kb + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024


if __name__ == "__main__":
    main()
