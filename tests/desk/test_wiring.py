"""The stores of the desk: opened once, and anew when a failure finds other connections than they were opened by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from refund.desk.wiring import Desk
from refund.errors import ConfigurationError


class Connections:
    """What Airflow would name, and what was opened by it and closed."""

    def __init__(self) -> None:
        self.name: str | None = "first"
        self.opened: list[str] = []
        self.closed: list[str] = []

    def named(self) -> str:
        if self.name is None:
            raise ConfigurationError("Airflow has no connection refund_db")
        return self.name

    @contextmanager
    def open(self) -> Iterator[Any]:
        name = self.named()
        self.opened.append(name)
        yield SimpleNamespace(name=name)
        self.closed.append(name)


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
    assert (connections.opened, connections.closed) == (["first", "second"], ["first"])


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
