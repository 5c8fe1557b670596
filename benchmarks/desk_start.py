"""``python -m benchmarks desk-start``: what the plugin costs a cold API server, in seconds and in memory.

Each round starts two fresh interpreters, one that makes Airflow's app with the plugin and one without, in turn, so that
other load of the machine falls on both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from rich.console import Console

_MAKE = """
import json, sys, time
begun, cpu = time.perf_counter(), time.process_time()
from airflow import plugins_manager
if sys.argv[1] == "without":
    plugins_manager._load_entrypoint_plugins = lambda: ([], {})
from airflow.api_fastapi.app import create_app
app = create_app()
took_s, cpu_s = time.perf_counter() - begun, time.process_time() - cpu
import psutil
mounted = [route.path for route in app.routes if getattr(route, "path", "") == "/refund"]
print(json.dumps({"took_s": took_s, "cpu_s": cpu_s, "rss": psutil.Process().memory_info().rss, "mounted": mounted}))
"""


ROUNDS = 7


def main(rounds: int = ROUNDS) -> int:
    """Measure and show; the process's exit status."""
    console = Console()
    found: dict[str, list[dict[str, float]]] = {"without": [], "with": []}
    with tempfile.TemporaryDirectory() as home:
        for number in range(rounds + 1):
            for which in found if number % 2 else reversed(found):
                measured = _one(which, home)
                if number:  # the first round fills the disk's cache
                    found[which].append(measured)
    for name, unit, factor in (("took_s", "s", 1.0), ("cpu_s", "s of CPU", 1.0), ("rss", "MB", 1e-6)):
        without, added = (median(each[name] * factor for each in found[which]) for which in ("without", "with"))
        console.print(f"{unit}: {without:.2f} without the plugin, {added:.2f} with it: {added - without:+.2f}")
    console.print(f"medians of {rounds} interleaved rounds; load average {os.getloadavg()[0]:.1f}")
    return 0


def _one(which: str, home: str) -> dict[str, float]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "REFUND"))}
    environ |= {"AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    environ["AIRFLOW__CORE__PLUGINS_FOLDER"] = str(Path(home) / "plugins")
    done = subprocess.run(
        [sys.executable, "-c", _MAKE, which], env=environ, capture_output=True, text=True, timeout=300, check=True
    )
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    if bool(answer.pop("mounted")) != (which == "with"):
        msg = f"the app {which} the plugin was made wrongly: {done.stderr[-500:]}"
        raise RuntimeError(msg)
    return answer
