"""Hands the stores of an arena to another process of the benchmark, by a file that only its owner can read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from refund.night.services import Services, open_services
from refund.settings import DatabaseAccess, S3Access, Settings


def write_access(services: Services, path: Path) -> Path:
    """Write down where the stores are; the file has passwords, of servers that live as long as the benchmark."""
    path.touch(mode=0o600)
    path.write_text(
        json.dumps(
            {
                "settings": {"cache_dir": services.settings.cache_dir, "staging_root": services.settings.staging_root},
                "s3": asdict(services.objects.access),
                "database": asdict(services.database.access),
            }
        )
    )
    return path


@contextmanager
def read_services(path: Path, **settings: Any) -> Iterator[Services]:
    """The stores that `write_access` wrote down, with these settings besides."""
    given = json.loads(path.read_text())
    with open_services(
        settings=Settings(**given["settings"], **settings),
        s3=S3Access(**given["s3"]),
        database=DatabaseAccess(**given["database"]),
    ) as services:
        yield services
