"""One task of the night in a process of its own, as a worker runs it, so that it can be killed: what, on stdin as JSON.

Prints ``begun`` and at the end its result as JSON; errors go to stderr as Airflow shows them, ``Name: text``, and the
exit code tells their branch as that of the command line does.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from refund.cli.exit_codes import exit_code
from refund.errors import RefundError
from refund.night.alert_on_drift import raise_alerts
from refund.night.classify import classify_shard
from refund.night.fetch import fetch_manifest
from refund.night.generate_report import write_report
from refund.night.health_check import check_health
from refund.night.persist import persist_run
from refund.night.services import NightRun, Services, open_services
from refund.night.validate import validate_shard
from refund.params import NightParams
from refund.settings import DatabaseAccess, S3Access, Settings

REPOSITORY = Path(__file__).resolve().parents[2]
STAGES: dict[str, Callable[[NightRun, Services, str], Any]] = {
    "health_check": lambda run, services, _: check_health(run, services, plugin_errors={}).as_xcom(),
    "fetch": lambda run, services, _: fetch_manifest(run, services),
    "validate": lambda run, services, shard: validate_shard(shard, run=run, services=services).as_xcom(),
    "classify": lambda run, services, shard: classify_shard(shard, run=run, services=services).as_xcom(),
    "persist": lambda run, services, _: persist_run(run, services),
    "generate_report": lambda run, services, _: write_report(run, services),
    "alert_on_drift": lambda run, services, _: raise_alerts(run, services, task_states={}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a worker's task ended."""

    code: int  # negative: the signal that killed it
    result: Any  # None unless it succeeded
    said: str  # its log, an error as the last lines


class Worker:
    """Starts tasks of one run, each in a process of its own with ``temporary`` as the system's temporary folder."""

    def __init__(self, run: NightRun, services: Services, *, temporary: Path) -> None:
        temporary.mkdir(exist_ok=True)
        self.run_values = {
            "settings": asdict(services.settings),
            "s3": asdict(services.objects.access),
            "database": asdict(services.database.access),
            "run_id": run.run_id,
            "run_date": run.run_date.isoformat(),
            "params": asdict(run.params),
        }
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(temporary.parent),
            "TMPDIR": str(temporary),
            "PYTHONPATH": os.pathsep.join((str(REPOSITORY / "plugins"), str(REPOSITORY))),
            "MPLCONFIGDIR": str(temporary.parent / "matplotlib"),
        }

    def start(self, stage: str, shard: str = "", *, clock_offset_s: float = 0) -> subprocess.Popen[str]:
        """Start a task and wait until its work begins."""
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.stage"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environ,
            cwd=REPOSITORY,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        order = self.run_values | {"stage": stage, "shard": shard, "clock_offset_s": clock_offset_s}
        process.stdin.write(json.dumps(order))
        process.stdin.close()
        process.stdin = None
        begun = process.stdout.readline()
        assert begun == "begun\n", process.communicate(timeout=60)[1]
        return process

    def end(self, process: subprocess.Popen[str]) -> Ended:
        """Wait for a task's end."""
        out, said = process.communicate(timeout=120)
        return Ended(
            code=process.returncode, result=json.loads(out) if process.returncode == 0 else None, said=said.strip()
        )

    def do(self, stage: str, shard: str = "", *, clock_offset_s: float = 0) -> Ended:
        """Start a task and wait for its end."""
        return self.end(self.start(stage, shard, clock_offset_s=clock_offset_s))


def main() -> int:
    """Run the task that standard input names."""
    order = json.load(sys.stdin)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run = NightRun(
        run_id=order["run_id"],
        run_date=date.fromisoformat(order["run_date"]),
        params=NightParams(**order["params"]),
    )
    offset = timedelta(seconds=order["clock_offset_s"])
    with open_services(
        settings=Settings(**order["settings"]),
        s3=S3Access(**order["s3"]),
        database=DatabaseAccess(**order["database"]),
    ) as services:
        print("begun", flush=True)  # noqa: T201
        try:
            clocked = replace(services, now=lambda: datetime.now(UTC) + offset)
            print(json.dumps(STAGES[order["stage"]](run, clocked, order["shard"])))  # noqa: T201
        except RefundError as exc:
            print(f"{type(exc).__name__}: {exc}", file=sys.stderr)  # noqa: T201
            return exit_code(exc)
    return 0


if __name__ == "__main__":
    sys.exit(main())
