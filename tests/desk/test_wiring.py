"""The stores of the desk: opened once, and anew when a failure finds other connections than they were opened by."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import pytest

from refund.desk.wiring import Desk
from refund.errors import ConfigurationError

PATIENCE_S = 30.0


class Connections:
    """What Airflow would name, and what was opened by it and closed."""

    def __init__(self) -> None:
        self.name: str | None = "first"
        self.opened: list[str] = []
        self.closed: list[str] = []
        self.ending: SimpleQueue[str] = SimpleQueue()
        self.may_close = Event()
        self.may_close.set()
        self.refuses_to_close = False

    def named(self) -> str:
        if self.name is None:
            raise ConfigurationError("Airflow has no connection refund_db")
        return self.name

    @contextmanager
    def open(self) -> Iterator[Any]:
        name = self.named()
        self.opened.append(name)
        yield SimpleNamespace(name=name)
        self.ending.put(name)
        assert self.may_close.wait(PATIENCE_S)
        if self.refuses_to_close:
            msg = "it does not let go"
            raise OSError(msg)
        self.closed.append(name)


def wait_for_the_end() -> None:
    """Until what was open under connections of before is closed."""
    for thread in threading.enumerate():
        if thread.name == "desk-ending":
            thread.join(PATIENCE_S)


@pytest.fixture
def connections() -> Connections:
    return Connections()


@pytest.fixture
def desk(connections: Connections) -> Desk:
    return Desk(connections.open, named_by=connections.named)


def test_nothing_is_opened_before_it_is_needed_and_then_once(desk: Desk, connections: Connections) -> None:
    assert connections.opened == []
    assert desk.services is desk.services
    assert connections.opened == ["first"]
    desk.close()
    assert connections.closed == ["first"]
    assert desk.services is not None
    assert connections.opened == ["first", "first"]


def test_a_connection_that_was_missing_is_found_once_it_is_there(desk: Desk, connections: Connections) -> None:
    connections.name = None
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="Airflow has no connection refund_db"):
            _ = desk.services
    connections.name = "first"
    assert desk.services is not None


def test_after_a_failure_changed_connections_open_the_stores_anew(desk: Desk, connections: Connections) -> None:
    first = desk.services
    connections.name = "second"
    assert desk.services is first  # nothing failed: requests under way keep what they have
    desk.doubt()
    assert desk.services is not first
    assert connections.opened == ["first", "second"]
    wait_for_the_end()
    assert connections.closed == ["first"]


def test_nobody_waits_for_the_end_of_what_was_open(desk: Desk, connections: Connections) -> None:
    first = desk.services
    connections.may_close.clear()  # as with pictures that are being fetched from a bucket that does not answer
    connections.name = "second"
    desk.doubt()
    second = desk.services
    assert second is not first
    assert desk.services is second
    assert connections.ending.get(timeout=PATIENCE_S) == "first"
    closing = Thread(target=desk.close)
    closing.start()
    assert connections.ending.get(timeout=PATIENCE_S) == "second"
    assert desk.services is not second  # also while the server waits for the end
    assert closing.is_alive()
    assert connections.closed == []
    connections.may_close.set()
    closing.join(PATIENCE_S)
    wait_for_the_end()
    assert sorted(connections.closed) == ["first", "second"]


def test_what_cannot_be_closed_is_told_in_the_log_alone(
    desk: Desk, connections: Connections, caplog: pytest.LogCaptureFixture
) -> None:
    assert desk.services
    connections.refuses_to_close = True
    connections.name = "second"
    desk.doubt()
    assert desk.services.name == "second"
    wait_for_the_end()
    assert "What the desk had open under connections of before could not be closed" in caplog.text
    assert "it does not let go" in caplog.text


def test_after_a_failure_the_same_connections_leave_the_stores_open(desk: Desk, connections: Connections) -> None:
    first = desk.services
    desk.doubt()
    assert desk.services is first
    assert connections.closed == []


def test_a_failure_with_the_connection_gone_is_told_until_it_is_back(desk: Desk, connections: Connections) -> None:
    first = desk.services
    connections.name = None
    desk.doubt()
    for _ in range(2):
        with pytest.raises(ConfigurationError):
            _ = desk.services
    connections.name = "first"
    assert desk.services is first
