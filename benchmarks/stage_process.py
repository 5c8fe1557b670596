"""One stage in a process of its own, as Airflow runs tasks: ``python -m benchmarks.stage_process ACCESS CALL``.

CALL is JSON: the ``stage``, ``run_id``, ``prefix`` and, for validate and classify, the ``shard``. The stage's answer is
printed as one line of JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.arena import DAY
from benchmarks.handover import read_services
from refund.night.services import NightRun
from refund.params import NightParams


def main(access: str, call: str) -> None:
    """Do as told."""
    given = json.loads(call)
    params = NightParams(prefix=given["prefix"], late_days=0)
    run = NightRun(run_id=given["run_id"], run_date=DAY, params=params)
    with read_services(Path(access)) as services:
        print(json.dumps(_answer(given, run, services)))


def _answer(given: dict[str, Any], run: NightRun, services: Any) -> Any:
    # Each task imports its own stage and no other, so here too.
    match given["stage"]:
        case "fetch":
            from refund.night.fetch import fetch_manifest

            return fetch_manifest(run, services)
        case "validate":
            from refund.night.validate import validate_shard

            return validate_shard(given["shard"], run=run, services=services).as_xcom()
        case "classify":
            from refund.night.classify import classify_shard

            return classify_shard(given["shard"], run=run, services=services).as_xcom()
        case "persist":
            from refund.night.persist import persist_run

            return persist_run(run, services)
    msg = f"stage must be fetch, validate, classify or persist, got {given['stage']!r}"
    raise ValueError(msg)


if __name__ == "__main__":
    main(*sys.argv[1:])
