"""Starts one program with exactly the environment that a private file holds.

Run as a script by the supervisor, so that secrets stand neither in its configuration nor on a command line. What passes
from the environment that `refund up` was called in is decided by `refund.local.airflow_env`. Standard library only.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main(arguments: list[str]) -> None:
    """``launch.py ENVIRONMENT.json PROGRAM ARGUMENT…``: replaces this process, so the supervisor's pid stays true."""
    file, *command = arguments
    environment = json.loads(Path(file).read_text(encoding="utf-8"))
    os.execve(command[0], command, environment)  # noqa: S606  no shell: that is the point


if __name__ == "__main__":
    main(sys.argv[1:])
