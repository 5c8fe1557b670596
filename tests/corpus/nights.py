"""A night over hostile files on real stores: put them in the bucket, run the tasks, watch the memory, read the rows."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import psutil

from tests.conftest import REPOSITORY
from tests.corpus.specimen import ACCEPTED, Specimen
from tests.corpus.task import peak_bytes
from tests.night.conftest import DAY, World

FOLDER = "incoming/2026-11-21/R-1/"
_SAMPLE_S = 0.05
_PATIENCE_S = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusNight:
    """What a night made of the corpus."""

    verdicts: dict[str, list[str]]  # name: its verdicts in the tables; one each, if all is well
    details: dict[str, str]
    pixels: dict[str, list[str | None]]  # name: SHA-256 of the pixels in the pack, None for a rejected photo
    counts: dict[str, int]
    status: int  # exit status of the task's process
    task_peak_bytes: int
    decoding_peak_bytes: int  # of the decoding interpreter and its children together


def run_night(world: World, specimens: Sequence[Specimen], **settings: Any) -> CorpusNight:
    """One night over ``specimens`` alone, with two decoding children."""
    _put(world, specimens)
    services = replace(world.services, settings=replace(world.services.settings, decode_workers=2, **settings))
    run = replace(world, services=services).start("corpus")
    order = {
        "run_id": run.run_id,
        "run_date": DAY.isoformat(),
        "params": {},
        "settings": asdict(services.settings),
        "s3": asdict(world.s3),
        "database": asdict(world.roles.app),
    }
    with subprocess.Popen(
        [sys.executable, "-m", "tests.corpus.task"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=REPOSITORY,
        env={"PYTHONPATH": f"{REPOSITORY / 'plugins'}:{REPOSITORY}", "PATH": ""},
        text=True,
    ) as process:
        watch = _Watch(process.pid)
        try:
            said, errors = process.communicate(json.dumps(order), timeout=_PATIENCE_S)
        finally:
            process.kill()
            watch.stop()
    assert process.returncode == 0, f"the task's process ended with {process.returncode}: {errors[-3000:]}"
    answer = json.loads(said)
    verdicts: dict[str, list[str]] = {}
    details = {}
    for key, outcome, reason, detail in world.rows(
        "SELECT p.key, r.outcome, r.reason, r.detail FROM refund.run_photo r JOIN refund.photo p USING (photo_date, "
        "photo_id) WHERE r.run_id = 'corpus'"
    ):
        name = key.removeprefix(FOLDER)
        verdicts.setdefault(name, []).append(ACCEPTED if outcome == "classified" else reason or outcome)
        details[name] = detail
    return CorpusNight(
        verdicts=verdicts,
        details=details,
        pixels={key.removeprefix(FOLDER): found for key, found in answer["pixels"].items()},
        counts=answer["counts"],
        status=process.returncode,
        task_peak_bytes=answer["peak_bytes"],
        decoding_peak_bytes=watch.peak_bytes,
    )


def _put(world: World, specimens: Sequence[Specimen]) -> None:
    """Lay the files into the bucket of the moto server, which runs in this process: ten times as fast as over HTTP.

    The night lists, downloads and copies them over HTTP.
    """
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    bucket = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    for specimen in specimens:
        bucket.put_object(world.s3.bucket, f"{FOLDER}{specimen.name}", specimen.body)


class _Watch:
    """Reads the kernel's own high-water marks of a process's descendants, so that no peak between samples is missed."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peaks: dict[int, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(_SAMPLE_S):
            try:
                descendants = psutil.Process(self._pid).children(recursive=True)
            except psutil.NoSuchProcess:
                return
            for process in descendants:
                self._peaks[process.pid] = max(self._peaks.get(process.pid, 0), peak_bytes(process.pid))

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def peak_bytes(self) -> int:
        """The sum of every descendant's own peak: at least what they had together at any moment."""
        return sum(self._peaks.values())
