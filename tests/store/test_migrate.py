"""The first migration on a real Postgres: what it makes, and what each role may and may not do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg2
import pytest
from psycopg2 import errors

from refund.errors import AccessDeniedError, DatabaseNotMigratedError, DatabaseUnavailableError, FatalRunError
from refund.settings import DatabaseAccess
from refund.store.database import EXPECTED_VERSION, Database
from refund.store.migrate import migrate
from tests.conftest import Roles, free_port

OURS = """
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname IN ('refund', 'reporting') AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
"""


@contextmanager
def raw(access: DatabaseAccess) -> Iterator[Any]:
    """A cursor whose driver errors are not translated."""
    connection = psycopg2.connect(
        host=access.host, port=access.port, dbname=access.database, user=access.user, password=access.password
    )
    try:
        yield connection.cursor()
    finally:
        connection.close()


def rows(access: DatabaseAccess, sql: str) -> list[tuple[Any, ...]]:
    with raw(access) as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())


def test_an_empty_database_is_brought_to_the_expected_version_and_the_second_time_nothing_happens(
    empty_database: Roles,
) -> None:
    assert Database(empty_database.owner).schema_version() is None
    assert migrate(empty_database.owner) == ["0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009"]
    assert migrate(empty_database.owner) == []
    for access in (empty_database.owner, empty_database.app):
        Database(access).require_schema()


def test_the_version_that_code_expects_is_the_newest_migration() -> None:
    from alembic.script import ScriptDirectory

    from refund.store.migrate import _config

    assert ScriptDirectory.from_config(_config(applied=[])).get_current_head() == EXPECTED_VERSION


def test_nights_of_the_first_release_keep_their_model_as_the_one_that_decided(empty_database: Roles) -> None:
    from alembic import command

    from refund.store.migrate import _config, _engine

    engine, config = _engine(empty_database.owner), _config(applied=[])
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA refund")
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
    execute(
        empty_database.app,
        "INSERT INTO refund.model (model, name, version, uri, sha256, card, created_by) "
        "VALUES ('net@1', 'net', '1', 's3://b/m', repeat('0', 64), '{}', 'ada')",
        "INSERT INTO refund.run (run_id, run_date, state, model, taxonomy_version, code_version, params, photos, "
        "classified, rejected, unchanged, started_at, published_at) "
        "SELECT run_id, '2026-11-21', 'published', 'net@1', 't', '0.1.0', '{}', 1, classified, 1 - classified, 0, "
        "now(), now() FROM (VALUES ('classified one', 1), ('rejected one', 0)) AS run (run_id, classified)",
    )
    assert migrate(empty_database.owner) == ["0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009"]
    assert rows(empty_database.analyst, "SELECT run_id, models FROM reporting.runs ORDER BY 1") == [
        ("classified one", ["net@1"]),
        ("rejected one", []),
    ]


def test_an_unmigrated_database_is_named_with_the_command_to_run(empty_database: Roles) -> None:
    with pytest.raises(DatabaseNotMigratedError) as caught:
        Database(empty_database.owner).require_schema()
    assert str(caught.value) == ("the database has schema version none, this code expects 0009; run: refund migrate")


def test_a_database_newer_than_the_code_is_left_alone(empty_database: Roles) -> None:
    migrate(empty_database.owner)
    with Database(empty_database.owner).connect() as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE refund.alembic_version SET version_num = '0999'")
    with pytest.raises(DatabaseNotMigratedError, match=r"version 0999, this code expects 0009.*upgrade the code"):
        migrate(empty_database.owner)


def test_a_failing_migration_leaves_nothing_behind(empty_database: Roles) -> None:
    with Database(empty_database.owner).connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA reporting")  # what 0001 is about to create
    with pytest.raises(Exception, match='schema "reporting" already exists'):
        migrate(empty_database.owner)
    assert rows(empty_database.owner, "SELECT 1 FROM pg_namespace WHERE nspname = 'refund'") == []


def test_missing_roles_are_named_with_the_statements_that_make_them(empty_database: Roles) -> None:
    with Database(empty_database.admin).connect() as connection, connection.cursor() as cursor:
        cursor.execute("ALTER ROLE refund_app RENAME TO refund_gone")
    try:
        with pytest.raises(AccessDeniedError) as caught:
            migrate(empty_database.owner)
    finally:
        with Database(empty_database.admin).connect() as connection, connection.cursor() as cursor:
            cursor.execute("ALTER ROLE refund_gone RENAME TO refund_app")
    assert str(caught.value) == (
        "the roles refund_app are missing and refund_owner may not create roles. As an administrator run: "
        "CREATE ROLE refund_app LOGIN PASSWORD '…'; Then run again: refund migrate"
    )


def test_a_role_that_does_not_own_the_database_is_told_how_to_own_it(empty_database: Roles) -> None:
    with pytest.raises(AccessDeniedError, match=r"refund_app does not own the database .*ALTER DATABASE .* OWNER TO"):
        migrate(empty_database.app)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"password": "wrong"}, "password authentication failed"),
        ({"database": "nowhere"}, 'database "nowhere" does not exist'),
        ({"password": None}, "no password supplied"),
    ],
)
def test_a_refused_login_says_which_connection_to_correct(postgres: Roles, change: dict[str, Any], says: str) -> None:
    access = replace(postgres.app, **change)
    with pytest.raises(AccessDeniedError) as caught, Database(access).connect():
        pass
    assert says in str(caught.value)
    assert (
        "Airflow connection refund_db (refund migrate takes refund_db_owner, refund sql refund_db_analyst); role and "
        "database must exist"
    ) in str(caught.value)
    assert not access.password or f"{access.password}@" not in str(caught.value)


def test_a_server_that_is_not_there_is_a_fault_of_the_moment(postgres: Roles) -> None:
    access = replace(postgres.app, port=free_port())
    with pytest.raises(DatabaseUnavailableError, match=rf"{access.port}/postgres could not be reached.*check that"):
        migrate(access)


def test_every_table_view_and_column_has_a_comment(database: Roles) -> None:
    assert len(rows(database.owner, f"SELECT c.relname {OURS}")) >= 20
    assert rows(database.owner, f"SELECT c.relname {OURS} AND obj_description(c.oid, 'pg_class') IS NULL") == []
    assert (
        rows(
            database.owner,
            f"""SELECT o.relname, a.attname FROM (SELECT c.oid, c.relname {OURS}) o
            JOIN pg_attribute a ON a.attrelid = o.oid AND a.attnum > 0 AND NOT a.attisdropped
            WHERE col_description(o.oid, a.attnum) IS NULL""",
        )
        == []
    )


def test_every_view_can_be_read_by_the_analyst(database: Roles) -> None:
    views = rows(database.owner, f"SELECT c.relname {OURS} AND n.nspname = 'reporting'")
    assert views
    for (view,) in views:
        assert rows(database.analyst, f"SELECT * FROM reporting.{view}") == []


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM refund.photo",
        "SELECT * FROM refund.alembic_version",
        "SELECT refund.ensure_partitions('2026-01-01', '2026-01-01')",
        "DELETE FROM reporting.photos",
        "UPDATE reporting.drift SET status = 'ok'",
        "CREATE TEMPORARY TABLE t (a int)",
        "CREATE TABLE reporting.t (a int)",
        "CREATE TABLE public.t (a int)",
        "CREATE SCHEMA mine",
    ],
)
def test_the_analyst_reads_reporting_and_nothing_else(database: Roles, statement: str) -> None:
    with (
        raw(database.analyst) as cursor,
        pytest.raises((errors.InsufficientPrivilege, errors.ObjectNotInPrerequisiteState)),
    ):
        cursor.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE refund.photo",
        "ALTER TABLE refund.photo ADD COLUMN x int",
        "TRUNCATE refund.photo",
        "DELETE FROM refund.photo",
        "DELETE FROM refund.run",
        "UPDATE refund.prediction SET confidence = 1",
        "UPDATE refund.decision SET category = 'x'",
        "UPDATE refund.audit SET actor = 'x'",
        "DELETE FROM refund.audit",
        "UPDATE refund.model SET sha256 = sha256",
        "UPDATE refund.alembic_version SET version_num = 'x'",
        "INSERT INTO refund.alembic_version VALUES ('x')",
        "CREATE TABLE refund.t (a int)",
        "CREATE VIEW reporting.v AS SELECT 1",
        "CREATE OR REPLACE FUNCTION refund.ensure_partitions(a date, b date) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    ],
)
def test_the_application_cannot_alter_drop_delete_or_rewrite(database: Roles, statement: str) -> None:
    with raw(database.app) as cursor, pytest.raises(errors.InsufficientPrivilege):
        cursor.execute(statement)


def test_partitions_are_made_once_per_month_and_table(database: Roles) -> None:
    with raw(database.app) as cursor:
        for expected in (8, 0):
            cursor.execute("SELECT refund.ensure_partitions('2091-12-31', '2092-01-01')")
            assert cursor.fetchone() == (expected,)
        cursor.execute("SELECT refund.ensure_partitions('9999-12-31', '9999-12-31')")
        assert cursor.fetchone() == (4,)


def test_a_missing_right_is_told_in_our_words(database: Roles) -> None:
    with pytest.raises(AccessDeniedError, match=r"does not let refund_app@.*permission denied for table prediction"):
        execute(database.app, "DELETE FROM refund.prediction")


def test_sessions_are_in_utc(database: Roles) -> None:
    with Database(database.app).connect() as connection, connection.cursor() as cursor:
        cursor.execute("SHOW timezone")
        assert cursor.fetchone() == ("UTC",)


def test_a_transaction_that_fails_leaves_nothing(database: Roles) -> None:
    insert = "INSERT INTO refund.audit (actor, action, subject) VALUES ('a', 'b', 'c')"
    with pytest.raises(FatalRunError, match="refused a statement, so nothing of it was written: division by zero"):
        execute(database.app, insert, "SELECT 1 / 0")
    assert rows(database.owner, "SELECT count(*) FROM refund.audit") == [(0,)]


def test_a_connection_that_the_server_ends_is_a_fault_of_the_moment(database: Roles) -> None:
    with pytest.raises(DatabaseUnavailableError, match="broke the connection or was busy"):
        execute(
            database.app, "SET application_name = 'doomed'", lambda: _end_sessions_named(database, "doomed"), "SELECT 1"
        )


def _end_sessions_named(database: Roles, name: str) -> None:
    execute(
        database.admin,
        f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = '{name}'",
    )


def execute(access: DatabaseAccess, *steps: str | Callable[[], None]) -> None:
    """Run statements (and calls between them) in one transaction."""
    with Database(access).connect() as connection, connection.cursor() as cursor:
        for step in steps:
            if isinstance(step, str):
                cursor.execute(step)
            else:
                step()
