"""Decodes in isolation and classifies photos that come one by one, in a few lanes that never wait for each other.

A photo over which a decoder hangs holds up its own lane alone. A lane is a thread with a `DecoderPool` of one worker
and a runtime of the model. While its decoder is at work on one photo the lane runs the network over the one before.
"""

from __future__ import annotations

import logging
import tempfile
import time
import traceback
from collections import deque
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition, Thread
from typing import TYPE_CHECKING

from refund.desk.problems import DeskError, one_line
from refund.desk.verdict import MAX_TOP_K, Verdict
from refund.errors import DecoderPoolError, MemoryShortageError
from refund.params import NightParams

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from refund.desk.champion import Champion, Loaded
    from refund.imaging.pool import DecoderPool
    from refund.records import PhotoFacts
    from refund.settings import Settings

log = logging.getLogger(__name__)

MOST_WAITING = 64  # photos that no lane has taken yet
LANE_PHOTOS = 8  # a lane takes at once: more would only wait there instead, behind whatever hangs
_STUCK_AFTER_S = 60.0  # a decoder starts, or a model is fetched, in less, also on a busy machine
_PREFIX = "refund-desk-"


@dataclass(slots=True, eq=False, kw_only=True)
class Job:
    """One photo on its way; ``body`` is let go of as soon as it is decoded."""

    body: bytes = field(repr=False)
    top_k: int
    verdict: Future[Verdict] = field(default_factory=Future)


class Waiting:
    """The queue in front of the lanes."""

    def __init__(self, *, lanes: int, most: int = MOST_WAITING) -> None:
        self._lanes, self._most = lanes, most
        self._jobs: deque[Job] = deque()
        self._changed = Condition()
        self._closed = False

    def put(self, jobs: Sequence[Job]) -> None:
        """Queue all of them or none.

        Raises:
            DeskError: 503, too many wait already, or the queue is closed.
        """
        with self._changed:
            if self._closed:
                raise closing()
            if len(self._jobs) + len(jobs) > self._most:
                raise DeskError(
                    status=503,
                    error="busy",
                    message=f"{len(self._jobs)} photos wait for their turn already, at most {self._most} may.",
                    what_to_do="Send it again in a moment.",
                    headers={"Retry-After": "2"},
                )
            self._jobs.extend(jobs)
            self._changed.notify(len(jobs))

    def take(self) -> list[Job]:
        """A lane's share of what waits, at least one photo; empty once the queue is closed."""
        with self._changed:
            while not self._jobs and not self._closed:
                self._changed.wait()
            share = min(LANE_PHOTOS, -(-len(self._jobs) // self._lanes))
            return [self._jobs.popleft() for _ in range(share)]

    def close(self) -> list[Job]:
        """Give nothing more; the photos that nobody took."""
        with self._changed:
            self._closed = True
            left = list(self._jobs)
            self._jobs.clear()
            self._changed.notify_all()
        return left


class Lane(Thread):
    """Takes photos from the queue until that is closed, and ends its decoder then."""

    def __init__(self, number: int, *, waiting: Waiting, champion: Champion, settings: Settings) -> None:
        super().__init__(name=f"desk-lane-{number}", daemon=True)
        self._number = number
        self._waiting, self._champion, self._settings = waiting, champion, settings
        self._params = NightParams(top_k=MAX_TOP_K)
        self._stack = ExitStack()  # the decoder and its folder
        self._pool: DecoderPool | None = None
        self._pixels: NDArray[np.uint8] | None = None
        self._size: tuple[int, int] | None = None
        self._moved_at = float("-inf")  # took photos or was through with one

    def works(self) -> bool:
        """Whether it has moved lately, as it does in turn over photos of which every decoder hangs.

        True says nothing of a lane that waits for photos; ask while one waits.
        """
        patience_s = _STUCK_AFTER_S + 2 * self._settings.desk_decode_timeout_s  # a hanging photo is tried twice
        return self.is_alive() and time.monotonic() - self._moved_at < patience_s

    def run(self) -> None:
        """Serve."""
        try:
            while taken := self._waiting.take():
                self._moved_at = time.monotonic()
                jobs = [job for job in taken if job.verdict.set_running_or_notify_cancel()]
                if jobs:
                    self._serve(jobs)
                del taken, jobs  # and with them the photos, while this thread waits for the next
        finally:
            self._end_decoder()

    def _serve(self, jobs: list[Job]) -> None:
        try:
            loaded = self._champion.current()
            pool, pixels = self._decoder(loaded.size)
            for facts in pool.decode((slot, job.body) for slot, job in enumerate(jobs)):
                job = jobs[facts.slot]
                job.body = b""
                self._moved_at = time.monotonic()
                try:
                    try:
                        verdict = self._judge(job, facts, pixels, loaded)
                    finally:
                        pixels[facts.slot] = 0  # before anybody hears of it: nothing of a photo stays, not even small
                    job.verdict.set_result(verdict)
                except Exception as exc:  # noqa: BLE001  (told to whoever sent this photo)
                    job.verdict.set_exception(exc)
        except (DecoderPoolError, MemoryShortageError) as exc:
            log.error("The decoder of %s ended: %s", self.name, one_line(exc))
            self._fail(jobs, _decoder_ended())
        except Exception as exc:  # noqa: BLE001  (told to whoever sent these photos; the lane goes on)
            self._fail(jobs, exc)

    def _fail(self, jobs: list[Job], exc: Exception) -> None:
        self._end_decoder()
        traceback.clear_frames(exc.__traceback__)  # whoever keeps the error keeps where it happened, and no photo
        for job in jobs:
            job.body = b""
            if not job.verdict.done():
                job.verdict.set_exception(exc)

    def _judge(self, job: Job, facts: PhotoFacts, pixels: NDArray[np.uint8], loaded: Loaded) -> Verdict:
        from refund.night.try_photos import score_photos

        if not facts.ok:
            return Verdict(facts=facts)
        began_s = time.perf_counter()
        model = loaded.views[self._number]
        scored = score_photos(pixels, [facts], model=model, taxonomy=loaded.taxonomy, params=self._params)
        return Verdict.of(
            facts,
            scored[facts.slot],
            model=loaded.key,
            taxonomy=loaded.taxonomy,
            top_k=job.top_k,
            predict_ms=round((time.perf_counter() - began_s) * 1000, 3),
        )

    def _decoder(self, size: tuple[int, int]) -> tuple[DecoderPool, NDArray[np.uint8]]:
        """The running decoder, made anew where the model takes another size or the last one ended."""
        from refund.imaging.pack import PIXELS_FILE, create_pixels, open_pixels
        from refund.imaging.pool import DecoderPool
        from refund.store.scratch import scratch_folder

        if self._pool is not None and self._pixels is not None and self._size == size:
            return self._pool, self._pixels
        self._end_decoder()
        settings = self._settings
        try:
            folder = self._stack.enter_context(scratch_folder(Path(tempfile.gettempdir()), prefix=_PREFIX))
            path = folder / PIXELS_FILE
            create_pixels(path, count=LANE_PHOTOS, size=size)
            pool = self._stack.enter_context(
                DecoderPool(
                    path,
                    limits=settings.limits,
                    workers=1,
                    memory_bytes=settings.decode_memory_bytes,
                    timeout_s=settings.desk_decode_timeout_s,
                    size=size,
                )
            )
            pixels = open_pixels(path, "r+")
        except BaseException:
            self._end_decoder()
            raise
        self._pool, self._pixels, self._size = pool, pixels, size
        return pool, pixels

    def _end_decoder(self) -> None:
        self._pool = self._pixels = self._size = None
        self._stack.close()


def closing() -> DeskError:
    """What whoever sends a photo is told while the server ends."""
    return DeskError(
        status=503,
        error="closing",
        message="This server is shutting down.",
        what_to_do="Send it again in a moment.",
        headers={"Retry-After": "5"},
    )


def _decoder_ended() -> DeskError:
    return DeskError(
        status=503,
        error="decoder_ended",
        message="The isolated decoder ended while the photo waited for it; another is started.",
        what_to_do="Send it again in a moment; if it goes on, Airflow's log says why under this request_id's time.",
        headers={"Retry-After": "2"},
    )
