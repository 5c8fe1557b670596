"""Classifies photos that people send, by the night's own steps, with everything started once."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Self
from uuid import uuid4

from refund.desk.champion import Champion
from refund.desk.lanes import Job, Lane, Waiting, closing
from refund.desk.recorder import Recorder
from refund.desk.throttle import Throttle, UploadRoom
from refund.keys import path_safe

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from refund.desk.verdict import Verdict
    from refund.night.services import Services
    from refund.store.trials import Trial

log = logging.getLogger(__name__)

_MOST_LANES = 2  # each costs a decoder of about 100 MB; two cores serve 16 people at once


class Engine:
    """Decoding in isolation and the champion, kept between requests; safe to use from many threads.

    Nothing runs before the first photo, and nothing is left after `close`.
    """

    def __init__(self, services: Services) -> None:
        settings = services.settings
        self.services = services
        self.throttle = Throttle(settings.desk_requests_per_minute)
        self.room = UploadRoom(max_bytes=settings.max_bytes)
        lanes = min(_MOST_LANES, settings.cores)
        self._lock = Lock()
        self._waiting = Waiting(lanes=lanes)
        self._champion = Champion(services, lanes=lanes)
        self._lanes = [
            Lane(number, waiting=self._waiting, champion=self._champion, settings=settings) for number in range(lanes)
        ]
        self._recorder = Recorder(services.database)
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def classify(self, photos: Sequence[tuple[bytes, int]]) -> list[Future[Verdict]]:
        """Queue photos, each with how many classes to tell; a verdict for each, also for those that are rejected.

        A future raises `DeskError` or an error of ours where that photo could not be looked at.

        Raises:
            DeskError: 503, too many photos wait, or the engine is closed; none of these is taken.
        """
        with self._lock:
            if not self._closed:
                for lane in self._lanes:
                    if lane.ident is None:
                        lane.start()
        jobs = [Job(body=body, top_k=top_k) for body, top_k in photos]
        self._waiting.put(jobs)
        return [job.verdict for job in jobs]

    def works(self) -> bool:
        """Whether photos that wait are on their way, be it slowly."""
        return any(lane.works() for lane in self._lanes)

    def record(self, trial: Trial) -> Future[int | None]:
        """Have the trial written; gives its number, or None where that failed."""
        return self._recorder.add(trial)

    def keep(self, body: bytes, *, filename: str, at: datetime) -> str:
        """Store an upload that its sender asked to keep; its key.

        Raises:
            RefundError: the bucket does not take it.
        """
        key = f"kept/{at.date().isoformat()}/{uuid4()}/{path_safe(filename)}"
        self.services.objects.put(key, body)
        return key

    def close(self) -> None:
        """End the lanes with their decoders, and write the trials that wait."""
        with self._lock:
            self._closed = True
        for job in self._waiting.close():
            if job.verdict.set_running_or_notify_cancel():
                job.verdict.set_exception(closing())
        for lane in self._lanes:
            if lane.ident is not None:
                lane.join()
        self._champion.close()
        self._recorder.close()
