"""What the routes of the desk work with, opened at the first request that needs it and closed with the server."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from threading import Lock
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

if TYPE_CHECKING:
    from refund.desk.engine import Engine
    from refund.desk.pictures import Pictures
    from refund.night.services import Services


class Desk:
    """Stores, engine and pictures of one server process; safe to use from many threads."""

    def __init__(self, open_them: Callable[[], AbstractContextManager[Services]]) -> None:
        self._open_them = open_them
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
            if self._engine is None:
                self._engine = self._stack.enter_context(Engine(self._opened()))
            return self._engine

    @property
    def pictures(self) -> Pictures:
        """What shows photos of the bucket."""
        from refund.desk.pictures import Pictures

        with self._lock:
            if self._pictures is None:
                self._pictures = self._stack.enter_context(Pictures(self._opened()))
            return self._pictures

    def close(self) -> None:
        """End what was started; a request that comes after starts it anew."""
        with self._lock:
            self._services = self._engine = self._pictures = None
            self._stack.close()

    def _opened(self) -> Services:
        if self._services is None:
            self._services = self._stack.enter_context(self._open_them())
        return self._services


def from_airflow() -> AbstractContextManager[Services]:
    """The stores as Airflow's connections name them."""
    from refund.airflow_glue import connections
    from refund.night.services import open_services
    from refund.settings import Settings

    s3, database = connections()
    return open_services(settings=Settings.load(os.environ), s3=s3, database=database)


def _of(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


DeskDep = Annotated[Desk, Depends(_of)]
