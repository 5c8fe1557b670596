"""Connections to Postgres, with every driver error turned into one that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from refund.errors import (
    AccessDeniedError,
    DatabaseNotMigratedError,
    DatabaseUnavailableError,
    FatalRunError,
    RefundError,
    SettingsError,
)

if TYPE_CHECKING:
    import psycopg2
    import psycopg2.extensions

    from refund.settings import DatabaseAccess

EXPECTED_VERSION = "0009"  # the newest file under migrations/versions; a test holds the two together
CONNECT_TIMEOUT_S = 10
# A server or network that is gone without a word is noticed after a minute. Waiting for a lock is no silence: the
# server's kernel goes on answering.
KEEPALIVE: dict[str, Any] = {
    "keepalives": 1,
    "keepalives_idle": 30,  # seconds
    "keepalives_interval": 10,  # seconds
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,  # milliseconds
}
# libpq gives no SQLSTATE for a connection that was refused, only the server's English text
_REFUSED = (
    "authentication failed",
    "no password supplied",
    "does not exist",
    "no pg_hba.conf entry",
    "permission denied for database",
    "is not permitted to log in",
)
_UNTRUSTED = (
    "certificate verify failed",
    "does not match host name",
    "server does not support SSL",
    "root certificate file",
)

# idle_in_transaction_session_timeout and transaction_timeout, which the driver files under errors of its own making
_SESSION_ENDED = frozenset({"25P03", "25P04"})


class Database:
    """Postgres as one role sees it; opens a connection per `connect` and keeps none itself."""

    def __init__(self, access: DatabaseAccess) -> None:
        self.access = access

    @contextmanager
    def connect(self, *, readonly: bool = False) -> Iterator[psycopg2.extensions.connection]:
        """One transaction in UTC: committed on a clean exit, rolled back on any exception, closed in both cases.

        Raises:
            DatabaseUnavailableError: the server cannot be reached, broke the connection, or was busy.
            AccessDeniedError: password, role, database or a right is wrong.
            DatabaseNotMigratedError: a table, view, column or function of ours is missing.
            FatalRunError: Postgres refused a statement for any other reason (a constraint, a malformed value).
        """
        import psycopg2

        connection = None
        try:
            connection = self._open(readonly=readonly)
            yield connection
            connection.commit()
        except psycopg2.Error as exc:
            raise translate(exc, access=self.access, connecting=connection is None) from exc
        finally:
            if connection is not None:
                connection.close()  # rolls back what was not committed

    def open(self) -> psycopg2.extensions.connection:
        """A connection that the caller keeps and closes, for many small transactions; its errors are the driver's.

        Raises:
            DatabaseUnavailableError, AccessDeniedError, SettingsError: as `connect`.
        """
        import psycopg2

        try:
            return self._open(readonly=False)
        except psycopg2.Error as exc:
            raise translate(exc, access=self.access, connecting=True) from exc

    def _open(self, *, readonly: bool) -> psycopg2.extensions.connection:
        import psycopg2

        connection: psycopg2.extensions.connection = psycopg2.connect(
            host=self.access.host,
            port=self.access.port,
            dbname=self.access.database,
            user=self.access.user,
            password=self.access.password,
            sslmode=self.access.sslmode,
            connect_timeout=CONNECT_TIMEOUT_S,
            **KEEPALIVE | certificates(self.access),
            options="-c timezone=UTC",
            application_name="refund",
        )
        connection.set_session(readonly=readonly, autocommit=False)
        return connection

    def now(self) -> datetime:
        """The server's clock."""
        with self.connect(readonly=True) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT clock_timestamp()")
            (now,) = cursor.fetchall()[0]
            return cast("datetime", now)

    def schema_version(self) -> str | None:
        """The migration that the database is at; None where it was never migrated."""
        with self.connect(readonly=True) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT to_regclass('refund.alembic_version') IS NOT NULL")
            if cursor.fetchone() != (True,):
                return None
            cursor.execute("SELECT version_num FROM refund.alembic_version")
            row = cursor.fetchone()
            return None if row is None else str(row[0])

    def require_schema(self) -> None:
        """Check that the database is at the migration this code was written for.

        Raises:
            DatabaseNotMigratedError: it is not.
        """
        found = self.schema_version()
        if found != EXPECTED_VERSION:
            raise DatabaseNotMigratedError(found=found, expected=EXPECTED_VERSION)


def certificates(access: DatabaseAccess) -> dict[str, Any]:
    """The option of libpq for a certificate authority of one's own; without it libpq looks in ~/.postgresql/root.crt.

    Raises:
        SettingsError: there is no such file; libpq would call it a server that cannot be reached.
    """
    if not access.ca_file:
        return {}
    if access.ca_file != "system" and not Path(access.ca_file).is_file():  # "system" is libpq's own word
        msg = (
            f"the certificates to trust for Postgres, {access.ca_file}, are not there; correct `sslrootcert` in the "
            f"extra of the Airflow connection refund_db, or mount the file where the worker runs"
        )
        raise SettingsError(msg)
    return {"sslrootcert": access.ca_file}


def translate(exc: psycopg2.Error, *, access: DatabaseAccess, connecting: bool = False) -> RefundError:
    """Our error for one of psycopg2's; the caller raises it ``from exc``."""
    import psycopg2
    from psycopg2 import errors

    text = " ".join(str(exc).split()).rstrip(".") or type(exc).__name__
    if connecting and any(phrase in text for phrase in _UNTRUSTED):
        return SettingsError(
            f"the connection to Postgres at {access.place} is not trusted: {text}. Expected a certificate for the host "
            f"{access.host} from an authority in {access.ca_file or 'the default of libpq'}; correct `sslmode` and "
            f"`sslrootcert` in the extra of the Airflow connection refund_db, or the server's certificate"
        )
    if connecting and any(phrase in text for phrase in _REFUSED):
        return AccessDeniedError(
            f"Postgres refused {access.place}: {text}. Correct login, password or schema (the database name) in the "
            f"Airflow connection refund_db (refund migrate takes refund_db_owner, refund sql refund_db_analyst); role "
            f"and database must exist"
        )
    if isinstance(exc, errors.ReadOnlySqlTransaction) or (
        isinstance(exc, errors.FeatureNotSupported) and "during recovery" in text  # what BEGIN READ WRITE is told
    ):
        return DatabaseUnavailableError(
            f"Postgres at {access.place} is a standby or read-only and takes no rows: {text}. The task retries; if it "
            f"goes on, point the Airflow connection refund_db at the primary, or promote this server"
        )
    if isinstance(exc, errors.InsufficientPrivilege):
        return AccessDeniedError(
            f"Postgres does not let {access.place} do this: {text}. Connect as the role that may, or have the owner "
            f"run, with the Airflow connection refund_db_owner: refund migrate"
        )
    if isinstance(
        exc, (errors.UndefinedTable, errors.UndefinedColumn, errors.UndefinedFunction, errors.InvalidSchemaName)
    ):
        return DatabaseNotMigratedError(found=f"other than this code knows ({text})", expected=EXPECTED_VERSION)
    if isinstance(exc, (psycopg2.OperationalError, psycopg2.InterfaceError)) or exc.pgcode in _SESSION_ENDED:
        return DatabaseUnavailableError(
            f"Postgres at {access.place} could not be reached, broke the connection or was busy: {text}. The task "
            f"retries; if it goes on, check that the server runs and is reachable from here"
        )
    return FatalRunError(
        f"Postgres at {access.place} refused a statement, so nothing of it was written: {text}. Expected values that "
        f"fit the schema; look at the run's staged files"
    )
