"""refund_analyst reads the views of schema reporting and nothing else: asked of the catalogue, then tried."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import psycopg2
import pytest
from psycopg2 import errors

from refund.local.postgres import ANALYST_LIMITS, NO_LARGE_OBJECTS
from refund.settings import DatabaseAccess
from refund.store.migrate import migrate
from tests.conftest import REPOSITORY, Roles, fresh_database
from tests.store.factories import Photo, night, register_models, rows

ROLE = "refund_analyst"
PUBLISHED = Photo(key="incoming/2026-11-21/R1/a.jpg", refund_id="R1")
REPLACED = Photo(key="incoming/2026-11-21/R1/b.jpg", etag="old", refund_id="R1")
NEWER = Photo(key="incoming/2026-11-21/R1/b.jpg", etag="new", refund_id="R1")


def connect(access: DatabaseAccess) -> Any:
    connection = psycopg2.connect(
        host=access.host, port=access.port, user=access.user, password=access.password, dbname=access.database
    )
    connection.autocommit = True
    return closing(connection)


@pytest.fixture(scope="module")
def served(postgres: Roles) -> Iterator[Roles]:
    """A database with a night in it, set up as docs/operations.md tells the administrator."""
    with fresh_database(postgres) as roles:
        migrate(roles.owner)
        with connect(roles.admin) as connection, connection.cursor() as cursor:
            for statement in (*ANALYST_LIMITS, NO_LARGE_OBJECTS):
                cursor.execute(statement.replace("DATABASE refund ", f"DATABASE {roles.admin.database} "))
        register_models(roles)
        night(roles.app, "r1", PUBLISHED, REPLACED)
        night(roles.app, "r2", NEWER)
        yield roles


def test_the_administrators_statements_are_the_same_wherever_they_stand() -> None:
    for place in ("docs/operations.md", "deploy/postgres/roles.sql"):
        text = (REPOSITORY / place).read_text(encoding="utf-8")
        for statement in (*ANALYST_LIMITS, NO_LARGE_OBJECTS):
            assert f"\n{statement};\n" in text, place


# Every right that the catalogue knows of, for everything that does not belong to Postgres itself. information_schema
# and pg_catalog show what their reader may see anyway.
RIGHTS = f"""
WITH ours AS (
  SELECT oid, nspname FROM pg_namespace WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast'))
SELECT 'relation', n.nspname || '.' || c.relname, wanted
FROM pg_class c JOIN ours n ON n.oid = c.relnamespace,
     unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS wanted
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND has_table_privilege('{ROLE}', c.oid, wanted)
UNION ALL
SELECT 'column', n.nspname || '.' || c.relname || '.' || a.attname, wanted
FROM pg_class c JOIN ours n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
     AND NOT a.attisdropped, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) AS wanted
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND has_column_privilege('{ROLE}', c.oid, a.attnum, wanted)
  AND NOT has_table_privilege('{ROLE}', c.oid, wanted)
UNION ALL
SELECT 'sequence', n.nspname || '.' || c.relname, wanted
FROM pg_class c JOIN ours n ON n.oid = c.relnamespace, unnest(ARRAY['SELECT', 'USAGE', 'UPDATE']) AS wanted
WHERE c.relkind = 'S' AND has_sequence_privilege('{ROLE}', c.oid, wanted)
UNION ALL
SELECT 'function', n.nspname || '.' || p.proname, 'EXECUTE'
FROM pg_proc p JOIN ours n ON n.oid = p.pronamespace WHERE has_function_privilege('{ROLE}', p.oid, 'EXECUTE')
UNION ALL
SELECT 'schema', nspname, wanted FROM ours, unnest(ARRAY['USAGE', 'CREATE']) AS wanted
WHERE nspname NOT LIKE 'pg_temp%' AND nspname NOT LIKE 'pg_toast%' AND has_schema_privilege('{ROLE}', oid, wanted)
UNION ALL
SELECT 'database', 'this one', wanted FROM unnest(ARRAY['CONNECT', 'CREATE', 'TEMPORARY']) AS wanted
WHERE has_database_privilege('{ROLE}', current_database(), wanted)
UNION ALL
SELECT 'tablespace', spcname, 'CREATE' FROM pg_tablespace WHERE has_tablespace_privilege('{ROLE}', oid, 'CREATE')
UNION ALL
SELECT 'foreign server', srvname, 'USAGE' FROM pg_foreign_server WHERE has_server_privilege('{ROLE}', oid, 'USAGE')
UNION ALL
SELECT 'large object', oid::text, 'any' FROM pg_largeobject_metadata
UNION ALL
SELECT 'owned', objid::regclass::text, deptype::text FROM pg_shdepend
WHERE refobjid = '{ROLE}'::regrole AND deptype = 'o'
UNION ALL
SELECT 'member of', r.rolname, '' FROM pg_roles r WHERE r.rolname <> '{ROLE}' AND pg_has_role('{ROLE}', r.oid, 'MEMBER')
"""


def test_the_catalogue_knows_of_no_other_right_than_to_read_the_views(served: Roles) -> None:
    views = rows(served.owner, "SELECT viewname FROM pg_views WHERE schemaname = 'reporting'")
    assert len(views) >= 17
    expected = {("relation", f"reporting.{view}", "SELECT") for (view,) in views}
    expected |= {("schema", "reporting", "USAGE"), ("database", "this one", "CONNECT")}
    expected |= {("schema", "public", "USAGE")}  # there is nothing in it
    assert set(rows(served.admin, RIGHTS)) == expected
    assert rows(served.owner, "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace") == []


def test_the_role_has_no_attribute_and_can_become_no_other(served: Roles) -> None:
    attributes = "rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls"
    assert rows(served.admin, f"SELECT {attributes} FROM pg_roles WHERE rolname = '{ROLE}'") == [(False,) * 5]
    for other in ("refund_owner", "refund_app", "postgres", "pg_read_all_data"):
        with connect(served.analyst) as connection, pytest.raises(errors.InsufficientPrivilege):
            connection.cursor().execute(f"SET ROLE {other}")


# What everybody may execute of Postgres's own functions and what of it changes or reads something outside a query.
DANGEROUS = f"""
SELECT proname FROM pg_proc
WHERE pronamespace = 'pg_catalog'::regnamespace AND has_function_privilege('{ROLE}', oid, 'EXECUTE') AND proname ~
  '^(pg_read_(binary_)?file|pg_ls_.*|pg_stat_file|lo_(creat|create|from_bytea|import|export)|pg_file_.*|pg_reload_conf|'
  'pg_rotate_logfile|pg_switch_wal|pg_create_.*|pg_promote|pg_terminate_backend|pg_cancel_backend|pg_execute_.*)$'
"""


def test_of_postgres_own_functions_none_reads_files_or_leaves_anything(served: Roles) -> None:
    """Those left check for themselves: sessions of the same role alone, and the attribute REPLICATION."""
    names = sorted({name for (name,) in rows(served.admin, DANGEROUS)})
    slots = ["pg_create_logical_replication_slot", "pg_create_physical_replication_slot"]
    assert names == ["pg_cancel_backend", *slots, "pg_terminate_backend"]
    with connect(served.analyst) as connection, pytest.raises(errors.InsufficientPrivilege):
        connection.cursor().execute("SELECT pg_create_physical_replication_slot('mine')")
    with connect(served.app) as other, other.cursor() as cursor, connect(served.analyst) as connection:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
        with pytest.raises(errors.InsufficientPrivilege):
            connection.cursor().execute("SELECT pg_terminate_backend(%s)", (pid,))


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM refund.photo",
        "SELECT * FROM refund.photo_202611",
        "SELECT last_value FROM refund.run_number_seq",
        "SELECT nextval('refund.run_number_seq')",
        "SELECT refund.ensure_partitions('2026-01-01', '2026-01-01')",
        "SELECT refund.ensure_partitions_ahead('2026-01-01')",
        "SELECT refund.audit_ratio(gen_random_uuid())",
        "INSERT INTO reporting.drift (run_id) VALUES ('r1')",
        "UPDATE reporting.runs SET state = 'failed'",
        "DELETE FROM reporting.reports",
        "CREATE TABLE reporting.t (a int)",
        "CREATE TABLE public.t (a int)",
        "CREATE TEMPORARY TABLE t (a int)",
        "CREATE SCHEMA mine",
        "CREATE FUNCTION reporting.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "DO $$ BEGIN PERFORM count(*) FROM refund.photo; END $$",
        "SELECT lo_create(0)",
        "SELECT lo_from_bytea(0, 'x')",
        "SELECT pg_read_file('PG_VERSION')",
        "SELECT pg_ls_dir('.')",
        "COPY reporting.photos TO '/tmp/photos.csv'",
        "COPY (SELECT 1) TO PROGRAM 'cat'",
        "CREATE EXTENSION dblink",
        "ALTER ROLE refund_analyst CREATEDB",
        "COMMENT ON VIEW reporting.photos IS 'mine'",
        "BEGIN; LOCK TABLE refund.run",
        "TRUNCATE refund.run",
    ],
)
def test_what_is_tried_all_the_same_is_refused(served: Roles, statement: str) -> None:
    with connect(served.analyst) as connection, connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = off")  # a default guards against mistakes alone
        with pytest.raises(
            (errors.InsufficientPrivilege, errors.FeatureNotSupported, errors.ObjectNotInPrerequisiteState)
        ):
            cursor.execute(statement)


def test_the_limits_hold_without_being_asked_for(served: Roles) -> None:
    names = ("default_transaction_read_only", "statement_timeout", "idle_in_transaction_session_timeout")
    with connect(served.analyst) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT " + ", ".join(f"current_setting('{name}')" for name in names))
        assert cursor.fetchone() == ("on", "5min", "10min")
    assert rows(served.app, "SELECT current_setting('statement_timeout')") == [("0",)]


def test_a_condition_of_the_reader_sees_only_columns_of_the_view(served: Roles) -> None:
    """A condition may be evaluated on rows that the view leaves out, so it may see that they exist: no secret here.

    It reaches no column that the view does not show, and statistics of the tables are not shown at all.
    """
    with connect(served.analyst) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM reporting.photos WHERE length(key) > 0")
        assert cursor.fetchone() == (2,)
        for column in ("etag", "superseded_by", "bucket", "ctid"):
            with pytest.raises(errors.UndefinedColumn):
                cursor.execute(f"SELECT 1 FROM reporting.photos WHERE {column}::text <> ''")
        cursor.execute("SELECT count(*) FROM pg_stats WHERE schemaname = 'refund'")
        assert cursor.fetchone() == (0,)
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE usename <> current_user AND query NOT LIKE '<ins%'")
        assert cursor.fetchone() == (0,)


def test_other_databases_are_closed_where_the_administrator_closed_them(served: Roles) -> None:
    """As deploy/postgres/roles.sql does for those of its server; a new database of ours is closed by its migration."""
    with fresh_database(replace_database(served)) as other:
        migrate(other.owner)
        public = (
            "SELECT count(*) FROM pg_database, aclexplode(datacl) WHERE datname = current_database() AND grantee = 0"
        )
        assert rows(other.owner, public) == [(0,)]
    text = (REPOSITORY / "deploy" / "postgres" / "roles.sql").read_text(encoding="utf-8")
    for database in ("airflow", "refund", "postgres", "template1"):
        assert f"REVOKE ALL ON DATABASE {database} FROM PUBLIC;" in text


def replace_database(roles: Roles) -> Roles:
    """The same roles, as they reach the maintenance database."""
    return Roles(
        admin=replace(roles.admin, database="postgres"),
        owner=replace(roles.owner, database="postgres"),
        app=replace(roles.app, database="postgres"),
        analyst=replace(roles.analyst, database="postgres"),
    )
