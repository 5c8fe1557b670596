"""Starts `refund.model.convert` as a program: ``python -m refund.model.convert_child JOB.json``."""

from __future__ import annotations

import sys
from pathlib import Path

from refund.model.convert import Job, run

if __name__ == "__main__":
    run(Job.read(Path(sys.argv[1])))
