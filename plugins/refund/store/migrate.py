"""Brings a database to the schema that this code expects; run by its owner, once per release (`refund migrate`).

Alembic's version table is ``refund.alembic_version``, not one in ``public``: a role that may create the schema may
write it whatever ``public`` allows, and all that is ours lies in two schemas. So the schema is created here, before
Alembic looks for its table.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from refund.errors import AccessDeniedError, DatabaseNotMigratedError
from refund.store.database import CONNECT_TIMEOUT_S, EXPECTED_VERSION, KEEPALIVE, Database, certificates, translate
from refund.store.partitions import ensure_partitions_ahead

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

    from refund.settings import DatabaseAccess

LOCK_KEY = 7_336_863  # "refund" on a telephone keypad, less one; one migration at a time per database

ROLES_MISSING = """
SELECT ARRAY(SELECT wanted FROM unnest(ARRAY['refund_app', 'refund_analyst']) AS wanted
             WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted)),
       (SELECT rolcreaterole OR rolsuper FROM pg_roles WHERE rolname = current_user)
"""

OWNS_DATABASE = "SELECT pg_has_role(datdba, 'USAGE') FROM pg_database WHERE datname = current_database()"


def migrate(access: DatabaseAccess) -> list[str]:
    """Apply the migrations that are missing, all in one transaction; return their names, oldest first.

    Then make the month partitions ahead, by the server's date, also where no migration was missing. ``access`` must be
    the database's owner. Two at once are safe: the second waits and finds nothing to do.

    Raises:
        AccessDeniedError: the role does not own the database, or roles are missing that it may not create.
        DatabaseNotMigratedError: the database is newer than this code.
        PartitionError: a partition that somebody made by hand is in the way of one; the migrations were applied.
        DatabaseUnavailableError: the server cannot be reached.
    """
    import psycopg2
    from alembic import command
    from sqlalchemy.exc import DBAPIError

    _check_rights(access)
    engine = _engine(access)
    applied: list[str] = []
    config = _config(applied=applied)
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK_KEY})")
            connection.exec_driver_sql("CREATE SCHEMA IF NOT EXISTS refund")
            _check_not_newer(connection, config)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except DBAPIError as exc:
        if isinstance(exc.orig, psycopg2.Error):
            raise translate(exc.orig, access=access) from exc
        raise
    finally:
        engine.dispose()
    ensure_partitions_ahead(Database(access))
    return applied


def _check_rights(access: DatabaseAccess) -> None:
    with Database(access).connect(readonly=True) as connection, connection.cursor() as cursor:
        cursor.execute(OWNS_DATABASE)
        row = cursor.fetchone()
        if not (row and row[0]):
            msg = (
                f"{access.user} does not own the database {access.database}, so it can neither create the schema nor "
                f"set its rights. As an administrator run: ALTER DATABASE {access.database} OWNER TO {access.user};"
            )
            raise AccessDeniedError(msg)
        cursor.execute(ROLES_MISSING)
        missing, may_create = cursor.fetchone() or ([], True)
    if missing and not may_create:
        statements = " ".join(f"CREATE ROLE {name} LOGIN PASSWORD '…';" for name in missing)
        msg = (
            f"the roles {' and '.join(missing)} are missing and {access.user} may not create roles. As an "
            f"administrator run: {statements} Then run again: refund migrate"
        )
        raise AccessDeniedError(msg)


def _engine(access: DatabaseAccess) -> Any:
    from sqlalchemy import URL, create_engine
    from sqlalchemy.pool import NullPool

    url = URL.create(
        "postgresql+psycopg2",  # spelled out: SQLAlchemy 2.1 reads a bare postgresql:// as psycopg 3
        username=access.user,
        password=access.password,
        host=access.host,
        port=access.port,
        database=access.database,
    )
    options = {"sslmode": access.sslmode, "connect_timeout": CONNECT_TIMEOUT_S, "options": "-c timezone=UTC"}
    return create_engine(url, poolclass=NullPool, connect_args=options | KEEPALIVE | certificates(access))


def _config(*, applied: list[str]) -> Config:
    from alembic.config import Config

    config = Config()  # no alembic.ini: nothing to configure, and no logging to overwrite
    folder = Path(__file__).resolve().parent / "migrations"
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["applied"] = applied
    return config


def _check_not_newer(connection: Connection, config: Config) -> None:
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    found = MigrationContext.configure(connection, opts={"version_table_schema": "refund"}).get_current_revision()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise DatabaseNotMigratedError(found=found, expected=EXPECTED_VERSION)
