"""The line in front of the threads that fetch pictures: bounded, also for each person, and each picture once in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from threading import Lock
from typing import Literal
from uuid import UUID

from refund.desk.picture_decoder import unavailable
from refund.desk.problems import DeskError
from refund.errors import RejectedPhotoError

Size = Literal["small", "large"]
Key = tuple[date, UUID, Size]
Found = bytes | RejectedPhotoError

MOST = 64  # pictures that wait or are being made
MOST_OF_ONE = 40  # of them asked for first by one person
_THREADS = 4  # fetching for one decoder; the server's own are few, and every page of Airflow needs them


@dataclass(slots=True, eq=False, kw_only=True)
class _Work:
    person: str  # who asked first
    future: Future[Found]
    waiters: int = 0


class PictureLine:
    """Makes pictures in a few threads; safe to use from many threads and event loops."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._under_way: dict[Key, _Work] = {}
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="refund-pictures")

    async def wait(self, key: Key, make: Callable[[], Found], *, person: str) -> Found:
        """What ``make`` gives, or gives already to somebody who asked for the same.

        Raises:
            DeskError: 503, too many wait, or the line is closed.
        """
        work = self._join(key, make, person)
        try:
            # shielded: the end of one request is not that of others which wait along
            return await asyncio.shield(asyncio.wrap_future(work.future))
        except asyncio.CancelledError:
            if work.future.cancelled():  # not this request: the line was closed
                raise _ending() from None
            raise
        finally:
            self._leave(key, work)

    def close(self) -> None:
        """Make nothing more, after what is in hand."""
        self._threads.shutdown(cancel_futures=True)

    def _join(self, key: Key, make: Callable[[], Found], person: str) -> _Work:
        with self._lock:
            work = self._under_way.get(key)
            if work is None:
                self._admit(person)
                try:
                    future = self._threads.submit(make)
                except RuntimeError as exc:  # closed
                    raise _ending() from exc
                work = self._under_way[key] = _Work(person=person, future=future)
            work.waiters += 1
        return work

    def _admit(self, person: str) -> None:
        own = sum(work.person == person for work in self._under_way.values())
        if own >= MOST_OF_ONE:
            raise _busy(what="pictures that you asked for", seen=own, most=MOST_OF_ONE)
        if len(self._under_way) >= MOST:
            raise _busy(what="pictures", seen=len(self._under_way), most=MOST)

    def _leave(self, key: Key, work: _Work) -> None:
        """The last to leave takes it out of the line: it is made, or nobody waits for it any more."""
        with self._lock:
            work.waiters -= 1
            if work.waiters:
                return
            del self._under_way[key]
        work.future.cancel()  # unless a thread is at it


def _busy(*, what: str, seen: int, most: int) -> DeskError:
    return DeskError(
        status=503,
        error="busy",
        message=f"{seen} {what} are not made yet, at most {most} may wait.",
        what_to_do="Ask again in a moment.",
        headers={"Retry-After": "2"},
    )


def _ending() -> DeskError:
    return unavailable(message="The desk is ending.")
