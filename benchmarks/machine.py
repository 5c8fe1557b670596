"""What kind of machine a figure was measured on, and with which versions; nothing that names the machine."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

_LIBRARIES = (
    "refund",
    "numpy",
    "scipy",
    "pillow",
    "ai-edge-litert",
    "obstore",
    "boto3",
    "psycopg2-binary",
    "pyarrow",
    "keras",
)


def machine() -> dict[str, Any]:
    """As JSON values."""
    found = {}
    for name in (*_LIBRARIES, "tensorflow-cpu", "tensorflow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        "libraries": found,
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
