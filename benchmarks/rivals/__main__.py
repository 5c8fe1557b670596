"""``python -m benchmarks.rivals NAME``: a rival answers requests, one JSON object on a line, until its input ends.

The first line tells it the bucket and the network (`photos.Config`). Once it is warm it answers ``{"versions": {…}}``,
or ``{"left_out": why}``. Every further line is ``{"keys": […], "predictions": true or false}``, and the answer
``{"photos": n, "classified": n, "wall_s": s, "cpu_s": s, "predictions": [class index or null for each key]}``.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.rivals.clock import Clock
from benchmarks.rivals.photos import Config, LeftOutError, versions

NAMES = ("tf_data", "one_predict", "ray_data")


def main(name: str) -> None:
    """Serve until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not mix with the answers

    def answer(what: dict[str, Any]) -> None:
        print(json.dumps(what), file=answers, flush=True)

    config = Config.of(json.loads(sys.stdin.readline()))
    try:
        with _opened(name, config) as (run, libraries):
            if config.warm_up:
                run(config.warm_up, Clock())
            answer({"versions": libraries})
            for line in sys.stdin:
                answer(_round(run, json.loads(line)))
    except LeftOutError as error:
        answer({"left_out": str(error)})


@contextmanager
def _opened(name: str, config: Config) -> Iterator[tuple[Any, dict[str, str]]]:
    try:
        rival = importlib.import_module(f"benchmarks.rivals.{name}")
        if prepare := getattr(rival, "set_environment", None):
            prepare()
        libraries = versions(*rival.LIBRARIES)
    except ModuleNotFoundError as error:
        msg = f"{error.name} is not installed beside {sys.executable}"
        raise LeftOutError(msg) from error
    with rival.opened(config) as run:
        yield run, libraries


def _round(run: Any, request: dict[str, Any]) -> dict[str, Any]:
    keys, clock = request["keys"], Clock()
    found = run(keys, clock)
    wall_s, cpu_s = clock.stop()
    counted = {"photos": len(keys), "classified": sum(one is not None for one in found)}
    told = {"predictions": found} if request["predictions"] else {}
    return {**counted, "wall_s": wall_s, "cpu_s": cpu_s, **told}


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in NAMES:
        sys.exit(f"usage: python -m benchmarks.rivals NAME, one of {', '.join(NAMES)}")
    main(sys.argv[1])
