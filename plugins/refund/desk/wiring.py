"""What the routes of the desk work with, opened at the first request that needs it and closed with the server."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from threading import Lock, Thread
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

if TYPE_CHECKING:
    from refund.desk.engine import Engine
    from refund.desk.pictures import Pictures
    from refund.night.services import Services

log = logging.getLogger(__name__)


class Desk:
    """Stores, engine and pictures of one server process; safe to use from many threads."""

    def __init__(
        self,
        open_them: Callable[[], AbstractContextManager[Services]],
        *,
        named_by: Callable[[], object] = lambda: None,
    ) -> None:
        """Nothing is opened yet.

        Args:
            open_them: opens the stores.
            named_by: what names them now; asked again after a failure, and where it differs they are opened anew.
        """
        self._open_them = open_them
        self._named_by = named_by
        self._names: object = None
        self._doubted = False
        self._lock = Lock()
        self._stack = ExitStack()
        self._services: Services | None = None
        self._engine: Engine | None = None
        self._pictures: Pictures | None = None

    @property
    def services(self) -> Services:
        """The stores.

        Raises:
            ConfigurationError: a connection or a setting is missing or malformed; the next request tries again.
        """
        with self._lock:
            return self._opened()

    @property
    def engine(self) -> Engine:
        """What classifies; nothing of it is started before its first photo."""
        from refund.desk.engine import Engine

        with self._lock:
            services = self._opened()  # first: it may end an engine of stores that are no longer named
            if self._engine is None:
                self._engine = self._stack.enter_context(Engine(services))
            return self._engine

    @property
    def pictures(self) -> Pictures:
        """What shows photos of the bucket."""
        from refund.desk.pictures import Pictures

        with self._lock:
            services = self._opened()
            if self._pictures is None:
                self._pictures = self._stack.enter_context(Pictures(services))
            return self._pictures

    def doubt(self) -> None:
        """Have the next request see whether the connections are still those that the stores were opened by."""
        self._doubted = True

    def close(self) -> None:
        """End what was started; a request that comes after starts it anew."""
        with self._lock:
            old = self._let_go()
        old.close()

    def _opened(self) -> Services:
        if self._services is not None and self._doubted:
            if self._named_by() != self._names:
                # It may wait for a bucket that does not answer, and whoever asks now waits for none of that.
                Thread(target=_end, args=(self._let_go(),), name="desk-ending", daemon=True).start()
            self._doubted = False
        if self._services is None:
            self._names = self._named_by()
            self._services = self._stack.enter_context(self._open_them())
        return self._services

    def _let_go(self) -> ExitStack:
        """All that was opened, for the caller to close without the lock: what is asked for next is opened anew."""
        self._services = self._engine = self._pictures = None
        old, self._stack = self._stack, ExitStack()
        return old


def _end(old: ExitStack) -> None:
    try:
        old.close()
    except Exception:
        log.exception("What the desk had open under connections of before could not be closed")


def desk_of_airflow() -> Desk:
    """The desk on the stores that Airflow's connections name."""
    from refund.airflow_glue import connections

    return Desk(_open_named, named_by=connections)


def _open_named() -> AbstractContextManager[Services]:
    from refund.airflow_glue import connections
    from refund.night.services import open_services
    from refund.settings import Settings

    s3, database = connections()
    return open_services(settings=Settings.load(os.environ), s3=s3, database=database)


def _of(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


DeskDep = Annotated[Desk, Depends(_of)]
