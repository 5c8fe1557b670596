"""The night's tasks from fetch to persist in a process of their own, whose memory can be measured: run by test_corpus.

Reads what to do as JSON from standard input; writes what came of it as JSON to standard output.
"""

from __future__ import annotations

import hashlib
import json
import sys
from datetime import date
from typing import Any

from refund.imaging.pack import PHOTOS_FILE, PIXELS_FILE, open_pixels, read_photos
from refund.night.classify import classify_shard
from refund.night.fetch import fetch_manifest
from refund.night.persist import persist_run
from refund.night.services import NightRun, Services, ShardLayout, open_services
from refund.night.staged import read_manifest
from refund.night.validate import validate_shard
from refund.params import NightParams
from refund.settings import DatabaseAccess, S3Access, Settings


def night(order: dict[str, Any]) -> dict[str, Any]:
    run = NightRun(
        run_id=order["run_id"], run_date=date.fromisoformat(order["run_date"]), params=NightParams(**order["params"])
    )
    packs: dict[str, list[str | None]] = {}
    with open_services(
        settings=Settings(**order["settings"]),
        s3=S3Access(**order["s3"]),
        database=DatabaseAccess(**order["database"]),
    ) as services:
        for shard_uri in fetch_manifest(run, services):
            validate_shard(shard_uri, run=run, services=services)
            for key, verdict in _pack(shard_uri, services):
                packs.setdefault(key, []).append(verdict)
            classify_shard(shard_uri, run=run, services=services)
        counts = persist_run(run, services)
    return {"counts": counts, "pixels": packs, "peak_bytes": peak_bytes("self")}


def _pack(shard_uri: str, services: Services) -> list[tuple[str, str | None]]:
    """Key of each photo, and the SHA-256 of its pixels where it has some."""
    layout = ShardLayout(shard_uri)
    with (
        services.staging.readable_folder(layout.manifest) as manifest,
        services.staging.readable_folder(layout.pack) as pack,
    ):
        keys = read_manifest(manifest).column("key").to_pylist()
        reasons = read_photos(pack / PHOTOS_FILE).column("reason").to_pylist()
        pixels = open_pixels(pack / PIXELS_FILE)
        return [
            (key, None if reason else hashlib.sha256(pixels[slot].tobytes()).hexdigest())
            for slot, (key, reason) in enumerate(zip(keys, reasons, strict=True))
        ]


def peak_bytes(pid: int | str) -> int:
    """The most memory that a process ever had resident, by the kernel's own count (VmHWM); 0 when it has ended."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as status:  # noqa: PTH123  (sampled often)
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


if __name__ == "__main__":
    json.dump(night(json.load(sys.stdin)), sys.stdout)
