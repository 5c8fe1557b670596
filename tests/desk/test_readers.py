"""How many read the history at once, and that a table gives its turn and connection back however it ends."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from typing import Any
from urllib.parse import urlsplit

import pytest

from refund.desk import readers
from refund.desk.problems import DeskError
from refund.desk.readers import Readers, Table
from refund.store import history as rows
from refund.store.database import Database
from tests.desk.conftest import DeskWorld, desk_in
from tests.desk.serving import serve
from tests.night.conftest import World


@pytest.fixture(scope="module")
def desk(shared_world: World) -> Iterator[DeskWorld]:
    with desk_in(shared_world) as made:
        yield made


def test_nobody_waits_for_a_turn(desk: DeskWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    client = desk.sign_in()
    taken = Readers(most_looks=1, most_tables=1)
    monkeypatch.setitem(desk.app.state._state, "readers", taken)
    with taken.look():
        for path in ("/api/history", "/api/history/statistics"):
            answer = client.get(path)
            assert (answer.status_code, answer.json()["error"], answer.headers["retry-after"]) == (503, "busy", "5")
            assert answer.json()["message"] == "As many looks into the history are under way as the desk has at once."
        assert client.get("/api/history.csv").status_code == 200
    with taken.table():
        answer = client.get("/api/history.csv")
        assert (answer.status_code, answer.json()["error"], answer.headers["retry-after"]) == (503, "busy", "5")
        assert answer.json()["message"] == "As many downloads of the history are under way as the desk has at once."
        assert client.get("/api/history").status_code == 200
    assert client.get("/api/history.csv").status_code == 200


def test_as_many_as_there_are_turns_read_at_once() -> None:
    turns = Readers()
    with ExitStack() as stack:
        for _ in range(readers.MOST_LOOKS):
            stack.enter_context(turns.look())
        for _ in range(readers.MOST_TABLES):
            stack.enter_context(turns.table())
        with pytest.raises(DeskError), turns.look():
            pass
    with turns.look(), turns.table():
        pass


def endless(closed: threading.Event) -> Any:
    """What reads rows without end, and says when it is closed."""

    def read(_: Database, __: Any) -> Generator[dict[str, Any], None, None]:
        try:
            while True:
                yield dict.fromkeys(rows.NIGHT_COLUMNS, "x" * 100)
        finally:
            closed.set()

    return read


@pytest.fixture
def closed(desk: DeskWorld, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when the table of the desk, which has no end, is closed; there may be one at a time."""
    event = threading.Event()
    monkeypatch.setattr(rows, "night_rows", endless(event))
    monkeypatch.setitem(desk.app.state._state, "readers", Readers(most_tables=1))
    desk.sign_in()
    return event


def begun(url: str) -> socket.socket:
    """A connection on which a table has begun to arrive."""
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname, parts.port or 80), timeout=30)
    connection.sendall(f"GET {parts.path}/api/history.csv HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert connection.recv(12) == b"HTTP/1.1 200"
    return connection


def has_a_turn(turns: Readers) -> bool:
    try:
        with turns.table():
            return True
    except DeskError:
        return False


def gets_a_turn(turns: Readers) -> bool:
    """Whether there is a turn soon: it is given back just after the rows are closed."""
    deadline = time.monotonic() + 30
    while not has_a_turn(turns):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_a_client_that_goes_away_frees_its_turn(desk: DeskWorld, closed: threading.Event) -> None:
    with serve(desk.app) as url:
        with closing(begun(url)):
            assert not has_a_turn(desk.app.state.readers)
        assert closed.wait(30)
        assert gets_a_turn(desk.app.state.readers)


def test_a_client_that_takes_nothing_is_cut_off(
    desk: DeskWorld, closed: threading.Event, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(readers, "PATIENCE_S", 0.3)
    with serve(desk.app) as url, closing(begun(url)):
        assert closed.wait(30)
        assert gets_a_turn(desk.app.state.readers)
    assert "a table was cut off: its client took nothing for 0.3 s" in caplog.text


def test_a_table_is_closed_also_when_its_request_is_cancelled() -> None:
    closed = threading.Event()

    def lines() -> Iterator[bytes]:
        try:
            yield b"first"
            yield b"second"
        finally:
            closed.set()

    async def cancelled() -> None:
        sending = asyncio.Event()

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                sending.set()
                await asyncio.Event().wait()

        async def receive() -> Any:
            return {"type": "http.request"}

        source: Any = lines()
        scope = {"type": "http", "asgi": {"spec_version": "2.4"}}
        task = asyncio.create_task(Table(source, source=source, headers={})(scope, receive, send))
        await sending.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert closed.is_set()


def test_a_transaction_that_nobody_reads_on_is_ended_by_postgres(desk: DeskWorld) -> None:
    with rows._reading(desk.services.database) as cursor:
        cursor.execute("SHOW idle_in_transaction_session_timeout")
        assert cursor.fetchone() == ("1min",)
