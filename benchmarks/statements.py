"""Takes down the statements that our own code sends to Postgres, how long each took, and the plan of each."""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import re
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from refund.store.database import Database

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg2

_READS = re.compile(r"\s*(SELECT|WITH|VALUES|CREATE TEMPORARY TABLE)\b", re.IGNORECASE)


@dataclass(slots=True, kw_only=True)
class Statement:
    """One statement of the code, however often it was sent."""

    name: str  # module and constant that hold it
    sql: str  # with its values, as the server got it the first time
    streams: bool  # through a server-side cursor: answers row by row, however many there are
    ms: list[float] = field(default_factory=list)  # of each time: sent, worked out, answered; of a stream all its rows
    plan: str = ""

    @property
    def reads(self) -> bool:
        """Whether it only reads, or fills a table of the moment, so that its plan can be taken by running it."""
        return _READS.match(self.sql) is not None

    @property
    def best_ms(self) -> float:
        """The least it took."""
        return min(self.ms)

    @property
    def median_ms(self) -> float:
        """What it took in the middle."""
        return statistics.median(self.ms)


class Ledger:
    """The statements in the order in which each was first sent."""

    def __init__(self) -> None:
        self.statements: dict[str, Statement] = {}
        self._names = _constants()

    def note(self, query: str, sent: str, ms: float, *, streams: bool) -> Statement:
        """Write one down; ``query`` is the text before the values were put in."""
        name = self._names.get(_flat(query)) or _flat(query)[:60]
        statement = self.statements.setdefault(name, Statement(name=name, sql=sent, streams=streams))
        statement.ms.append(ms)
        return statement


class RecordingDatabase(Database):
    """A database that writes down every statement sent through it."""

    def __init__(self, access: Any, ledger: Ledger) -> None:
        super().__init__(access)
        self.ledger = ledger

    def _open(self, *, readonly: bool) -> psycopg2.extensions.connection:
        connection = super()._open(readonly=readonly)
        connection.cursor_factory = _recording_cursor(self.ledger)
        return connection


def _recording_cursor(ledger: Ledger) -> Any:
    from psycopg2.extensions import cursor

    class RecordingCursor(cursor):
        """Times each statement; what comes through a server-side cursor is added as it is asked for."""

        def execute(self, query: Any, values: Any = None) -> None:
            sent = self.mogrify(query, values).decode()
            start = time.perf_counter()
            super().execute(query, values)
            ms = 1000 * (time.perf_counter() - start)
            self.statement = ledger.note(query, sent, ms, streams=self.name is not None)

        def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
            start = time.perf_counter()
            found: list[tuple[Any, ...]] = super().fetchmany(size)
            if self.name is not None:
                self.statement.ms[-1] += 1000 * (time.perf_counter() - start)
            return found

    return RecordingCursor


def take_plans(database: Database, statements: Sequence[Statement]) -> None:
    """Run every statement that reads once more under EXPLAIN, and keep what the server says.

    In the order in which they were sent and in one transaction: the export reads tables that it made a moment before.
    """
    with contextlib.closing(database.open()) as connection, connection.cursor() as cursor:
        for number, statement in enumerate(statements):
            if statement.reads:
                cursor_for = f"DECLARE plan_{number} CURSOR FOR " if statement.streams else ""
                cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, SETTINGS) {cursor_for}{statement.sql}")
                statement.plan = "\n".join(line for (line,) in cursor.fetchall())
            elif statement.sql.startswith("ANALYZE"):
                cursor.execute(statement.sql)


def time_query(database: Database, name: str, sql: str, *, repeats: int, limit_s: int) -> Statement:
    """Run a query that a person would type; one that takes longer than ``limit_s`` is stopped and counts as that."""
    from psycopg2 import errors

    statement = Statement(name=name, sql=sql, streams=False)
    for _ in range(repeats):
        if sum(statement.ms) > 1000 * limit_s / 2:
            break
        start = time.perf_counter()
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(contextlib.closing(database.open()))
            cursor = stack.enter_context(connection.cursor())
            cursor.execute("SET statement_timeout = %s", (1000 * limit_s,))
            try:
                cursor.execute(sql)
                cursor.fetchall()
            except errors.QueryCanceled:
                statement.ms.append(1000.0 * limit_s)
                return statement
        statement.ms.append(1000 * (time.perf_counter() - start))
    return statement


def write_plans(folder: Path, statements: Sequence[Statement], *, facts: str) -> None:
    """One text file per statement: what it is, what it took, its text and its plan."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.txt"):
        old.unlink()
    for statement in statements:
        if statement.plan:
            text = (
                f"-- {statement.name}\n-- {facts}\n-- best {statement.best_ms:.0f} ms, median "
                f"{statement.median_ms:.0f} ms of {len(statement.ms)}\n{statement.sql.strip()}\n\n{statement.plan}\n"
            )
            (folder / f"{_file_name(statement.name)}.txt").write_text(text, encoding="utf-8")


def _file_name(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:80]


def _constants() -> Mapping[str, str]:
    """The name of every text that a module of the stores holds, by the text without its line breaks."""
    import refund.store

    return {
        _flat(value): f"{name}.{constant}"
        for name in _modules(refund.store)
        for constant, value in vars(importlib.import_module(f"refund.store.{name}")).items()
        if constant.isupper() and isinstance(value, str)
    }


def _modules(package: Any) -> Iterator[str]:
    for module in pkgutil.iter_modules(package.__path__):
        if module.name != "migrations":
            yield module.name


def _flat(sql: str) -> str:
    return " ".join(sql.split())
