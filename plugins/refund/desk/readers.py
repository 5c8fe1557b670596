"""How many look through the history at once: each takes a thread for seconds, and Airflow needs its threads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from refund.desk.problems import DeskError

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

log = logging.getLogger(__name__)

MOST_LOOKS = 8
MOST_TABLES = 4  # beside the looks
PATIENCE_S = 60.0  # with a client that does not take the next piece of a table


class Readers:
    """Who reads in this server process; nobody waits for a turn, for the wait would hold a thread as well."""

    def __init__(self, *, most_looks: int = MOST_LOOKS, most_tables: int = MOST_TABLES) -> None:
        self._looks = BoundedSemaphore(most_looks)
        self._tables = BoundedSemaphore(most_tables)

    @contextmanager
    def look(self) -> Iterator[None]:
        """Read a page, or counts.

        Raises:
            DeskError: 503, as many do as may.
        """
        with _turn(self._looks, what="looks into the history"):
            yield

    @contextmanager
    def table(self) -> Iterator[None]:
        """Read a whole table.

        Raises:
            DeskError: 503, as many do as may.
        """
        with _turn(self._tables, what="downloads of the history"):
            yield


@contextmanager
def _turn(turns: BoundedSemaphore, *, what: str) -> Iterator[None]:
    if not turns.acquire(blocking=False):
        raise DeskError(
            status=503,
            error="busy",
            message=f"As many {what} are under way as the desk has at once.",
            what_to_do="Ask again in a moment.",
            headers={"Retry-After": "5"},
        )
    try:
        yield
    finally:
        turns.release()


class Table(StreamingResponse):
    """A table that is sent as it is read. However it ends, ``source`` is closed: its turn and connection are free then.

    A client that takes nothing for `PATIENCE_S` is cut off.
    """

    def __init__(
        self, content: Iterator[bytes], *, source: Generator[bytes, None, None], headers: dict[str, str]
    ) -> None:
        super().__init__(content, media_type="text/csv; charset=utf-8", headers=headers)
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""

        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(PATIENCE_S):
                await send(message)

        try:
            await super().__call__(scope, receive, send_in_time)
        except TimeoutError:  # the server closes a connection whose answer is not whole
            log.warning("a table was cut off: its client took nothing for %g s", PATIENCE_S)
        finally:
            # Whoever waits here may be cancelled, because the client went away; the closing must not be.
            await asyncio.shield(run_in_threadpool(self._source.close))


def _of(request: Request) -> Readers:
    readers: Readers = request.app.state.readers
    return readers


ReadersDep = Annotated[Readers, Depends(_of)]
