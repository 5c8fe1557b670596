"""What Postgres may answer, caused for real: a fault of the moment is retried, one of the set-up fails at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from refund.errors import (
    AccessDeniedError,
    DatabaseNotMigratedError,
    DatabaseUnavailableError,
    FatalRunError,
    RefundError,
)
from refund.settings import DatabaseAccess
from refund.store.database import Database
from tests.conftest import Roles, free_port

BUSY = (
    r"^Postgres at .* could not be reached, broke the connection or was busy: .*{}.*\. The task retries; if it goes on"
)


def run(access: DatabaseAccess, *statements: str) -> None:
    """All statements in one transaction."""
    with Database(access).connect() as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def alone(access: DatabaseAccess, statement: str) -> None:
    """One statement outside a transaction."""
    with Database(access).connect() as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)


@contextmanager
def limited(roles: Roles, change: str, back: str) -> Iterator[None]:
    """The role refund_app under a limit, for connections from now on."""
    alone(roles.admin, f"ALTER ROLE refund_app {change}")
    try:
        yield
    finally:
        alone(roles.admin, f"ALTER ROLE refund_app {back}")


def in_database(roles: Roles, setting: str) -> str:
    return f"IN DATABASE {roles.admin.database} {setting}"


# --- faults of the moment -------------------------------------------------------------------------------------------


def test_too_many_connections_of_the_role(database: Roles) -> None:
    with (
        limited(database, "CONNECTION LIMIT 1", "CONNECTION LIMIT -1"),
        Database(database.app).connect(),
        pytest.raises(DatabaseUnavailableError, match=BUSY.format("too many connections for role")),
    ):
        run(database.app, "SELECT 1")


def test_a_port_that_nobody_listens_on(database: Roles) -> None:
    with pytest.raises(DatabaseUnavailableError, match=BUSY.format("Connection refused")):
        run(replace(database.app, port=free_port()), "SELECT 1")


# what the client still hears depends on whether the server's last words come before its reset
GONE = "({}|server closed the connection unexpectedly)"


def await_end(roles: Roles, pid: int) -> None:
    """Wait until the server has ended a session."""
    while True:
        with Database(roles.admin).connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", (pid,))
            if cursor.fetchone() == (0,):
                return


def test_a_session_that_the_server_ends_while_the_task_reads_its_files(database: Roles) -> None:
    """Publishing is idle in its transaction while the shards are read from the staging."""

    def idle() -> None:
        with Database(database.app).connect() as connection, connection.cursor() as cursor:
            cursor.execute("SET LOCAL idle_in_transaction_session_timeout = '50ms'")
            await_end(database, connection.info.backend_pid)
            cursor.execute("SELECT 1")

    with pytest.raises(DatabaseUnavailableError, match=BUSY.format(GONE.format("idle-in-transaction timeout"))):
        idle()


def test_a_session_that_an_administrator_ends(database: Roles) -> None:
    def ended() -> None:
        with Database(database.app).connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            run(database.admin, f"SELECT pg_terminate_backend({connection.info.backend_pid}, 5000)")
            cursor.execute("SELECT 1")

    says = GONE.format("terminating connection due to administrator command")
    with pytest.raises(DatabaseUnavailableError, match=BUSY.format(says)):
        ended()


@pytest.mark.parametrize(
    ("code", "error"), [("25P03", "IdleInTransactionSessionTimeout"), ("25P04", "TransactionTimeout")]
)
def test_the_last_words_of_an_ended_session_are_a_fault_of_the_moment_too(
    database: Roles, code: str, error: str
) -> None:
    """They come or not by chance, so here the server says them without ending the session."""
    with pytest.raises(DatabaseUnavailableError, match=BUSY.format(f"ended by {error}")):
        run(database.app, f"DO $$ BEGIN RAISE EXCEPTION 'ended by {error}' USING ERRCODE = '{code}'; END $$")


@pytest.mark.parametrize(
    ("limit", "statement", "says"),
    [
        ("statement_timeout = '10ms'", "SELECT pg_sleep(20)", "canceling statement due to statement timeout"),
        (
            "temp_file_limit = 64",
            "SELECT x FROM generate_series(1, 99999) x ORDER BY -x",
            "temporary file size exceeds",
        ),
    ],
)
def test_a_limit_of_the_server(database: Roles, limit: str, statement: str, says: str) -> None:
    with pytest.raises(DatabaseUnavailableError, match=BUSY.format(says)):
        run(database.admin, "SET LOCAL work_mem = '64kB'", f"SET LOCAL {limit}", statement)


def test_two_transactions_that_wait_for_each_other(database: Roles) -> None:
    failed: list[RefundError] = []
    both = threading.Barrier(2, timeout=20)

    def lock(first: int, second: int) -> None:
        try:
            with Database(database.admin).connect() as connection, connection.cursor() as cursor:
                cursor.execute("SET LOCAL deadlock_timeout = '10ms'")
                cursor.execute(f"SELECT pg_advisory_xact_lock({first})")
                both.wait()
                cursor.execute(f"SELECT pg_advisory_xact_lock({second})")
        except RefundError as exc:
            failed.append(exc)

    threads = [threading.Thread(target=lock, args=pair) for pair in ((71, 72), (72, 71))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    (error,) = failed
    with pytest.raises(DatabaseUnavailableError, match=BUSY.format("deadlock detected")):
        raise error


def test_a_serialization_failure(database: Roles) -> None:
    run(database.admin, "CREATE TABLE public.counter AS SELECT 0 AS n")

    def count() -> None:
        with Database(database.admin).connect() as connection, connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("SELECT n FROM public.counter")
            run(database.admin, "UPDATE public.counter SET n = 1")
            cursor.execute("UPDATE public.counter SET n = 2")

    with pytest.raises(DatabaseUnavailableError, match=BUSY.format("could not serialize access")):
        count()


def test_a_lock_that_is_not_given_in_time(database: Roles) -> None:
    with Database(database.admin).connect() as holding, holding.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(73)")
        with pytest.raises(DatabaseUnavailableError, match=BUSY.format("canceling statement due to lock timeout")):
            run(database.app, "SET LOCAL lock_timeout = '10ms'", "SELECT pg_advisory_xact_lock(73)")


def test_a_server_that_takes_no_writes(database: Roles) -> None:
    """As after a failover; a retry reaches the new primary."""
    with (
        limited(
            database,
            in_database(database, "SET default_transaction_read_only = on"),
            in_database(database, "RESET default_transaction_read_only"),
        ),
        pytest.raises(
            DatabaseUnavailableError, match=r"is a standby or read-only and takes no rows: .* The task retries"
        ),
    ):
        run(database.app, "SET TRANSACTION READ ONLY", "UPDATE refund.run SET state = 'failed'")


# --- faults of the set-up -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("over", "says"),
    [
        ({"password": "wrong"}, "password authentication failed"),
        ({"password": ""}, "no password supplied"),
        ({"user": "nobody", "password": "x"}, "password authentication failed"),  # the server does not say who is there
        ({"database": "no_such_database"}, 'database "no_such_database" does not exist'),
    ],
)
def test_a_connection_that_is_refused(
    database: Roles, over: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSFILE", "/dev/null")
    with pytest.raises(AccessDeniedError, match=rf"^Postgres refused .*: .*{says}.* Correct login, password or schema"):
        run(replace(database.app, **over), "SELECT 1")


def test_a_role_that_may_not_log_in(database: Roles) -> None:
    with (
        limited(database, "NOLOGIN", "LOGIN"),
        pytest.raises(AccessDeniedError, match=r"^Postgres refused .*: .*is not permitted to log in.* must exist$"),
    ):
        run(database.app, "SELECT 1")


def test_a_right_that_is_missing(database: Roles) -> None:
    with pytest.raises(
        AccessDeniedError, match=r"does not let .* do this: permission denied for table run\b.*refund migrate$"
    ):
        run(database.app, "DELETE FROM refund.run")


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("SELECT * FROM refund.later", 'relation "refund.later" does not exist'),
        ("SELECT later FROM refund.run", 'column "later" does not exist'),
        ("SELECT refund.later()", r"function refund.later\(\) does not exist"),
        ("CREATE TABLE later.t ()", 'schema "later" does not exist'),
    ],
)
def test_a_schema_of_another_release(database: Roles, statement: str, says: str) -> None:
    with pytest.raises(DatabaseNotMigratedError, match=rf"other than this code knows \({says}.*; run: refund migrate"):
        run(database.owner, statement)


# --- faults of the run ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE refund.run SET state = 'x'; INSERT INTO refund.alert DEFAULT VALUES", "null value in column"),
        ("SELECT 1/0", "division by zero"),
        ("SELECT 'x'::date", "invalid input syntax for type date"),
    ],
)
def test_a_statement_that_can_never_succeed(database: Roles, statement: str, says: str) -> None:
    with pytest.raises(
        FatalRunError, match=rf"refused a statement, so nothing of it was written: {says}.*staged files$"
    ):
        run(database.app, statement)
