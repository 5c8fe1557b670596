"""Postgres and S3 over TLS for real: trusted with our authority, refused without it, each error with its way out."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from refund.errors import AccessDeniedError, RefundError, SettingsError
from refund.settings import DatabaseAccess, S3Access
from refund.store.database import Database
from refund.store.migrate import migrate
from refund.store.objects import ObjectStore
from tests.deploy.conftest import Written


@pytest.fixture(scope="session")
def migrated(tls_postgres: DatabaseAccess) -> DatabaseAccess:
    """The database after `refund migrate` over TLS, which goes through SQLAlchemy."""
    migrate(tls_postgres)
    return tls_postgres


def role(access: DatabaseAccess, written: Written, name: str) -> DatabaseAccess:
    return replace(access, user=f"refund_{name}", password=written.env[f"POSTGRES_{name.upper()}_PASSWORD"])


def select(access: DatabaseAccess, statement: str) -> object:
    with Database(access).connect(readonly=True) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()


def test_the_tasks_role_connects_over_verified_tls(migrated: DatabaseAccess, written: Written) -> None:
    with Database(role(migrated, written, "app")).connect(readonly=True) as connection:
        assert connection.info.ssl_in_use
    with pytest.raises(RefundError):  # and without TLS nobody does
        Database(replace(migrated, sslmode="disable", ca_file=None)).now()


@pytest.mark.parametrize("name", ["app", "analyst"])
def test_refund_roles_do_not_reach_airflows_database(migrated: DatabaseAccess, written: Written, name: str) -> None:
    with pytest.raises(AccessDeniedError, match="permission denied for database"):
        Database(replace(role(migrated, written, name), database="airflow")).now()


def test_airflows_role_does_not_reach_the_refund_database(migrated: DatabaseAccess, written: Written) -> None:
    airflow = replace(migrated, user="airflow", password=written.env["POSTGRES_AIRFLOW_PASSWORD"])
    assert select(replace(airflow, database="airflow"), "SELECT current_user") == [("airflow",)]
    with pytest.raises(AccessDeniedError, match="permission denied for database"):
        Database(airflow).now()


def test_the_analyst_reads_the_views_alone(migrated: DatabaseAccess, written: Written) -> None:
    analyst = role(migrated, written, "analyst")
    assert select(analyst, "SELECT count(*) FROM reporting.runs") == [(0,)]
    with pytest.raises(AccessDeniedError):
        select(analyst, "SELECT 1 FROM refund.run")


def test_airflows_own_async_driver_takes_the_authority_from_the_environment(
    tls_postgres: DatabaseAccess, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The URL of AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC; asyncpg knows no option for the authority in a URL."""
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import create_async_engine

    async def ask() -> str:
        engine = create_async_engine(
            f"postgresql+asyncpg://airflow:{written.env['POSTGRES_AIRFLOW_PASSWORD']}@localhost:{tls_postgres.port}"
            f"/airflow?ssl=verify-full"
        )
        async with engine.connect() as connection:
            answer = str((await connection.execute(text("SELECT current_user"))).scalar_one())
        await engine.dispose()
        return answer

    monkeypatch.setenv("PGSSLROOTCERT", str(tls_postgres.ca_file))
    assert asyncio.run(ask()) == "airflow"
    monkeypatch.setenv("PGSSLROOTCERT", str(written.tls("s3.crt")))  # not an authority of this server
    with pytest.raises(OSError, match="certificate verify failed"):
        asyncio.run(ask())


def test_a_stranger_postgres_is_not_trusted(tls_postgres: DatabaseAccess, written: Written) -> None:
    other = replace(tls_postgres, ca_file=str(written.tls("s3.crt")))
    with pytest.raises(SettingsError) as caught:
        Database(other).now()
    assert str(caught.value).startswith(
        f"the connection to Postgres at refund_owner@localhost:{other.port}/refund is not"
    )
    assert str(caught.value).endswith(
        f"Expected a certificate for the host localhost from an authority in {other.ca_file}; correct `sslmode` and "
        "`sslrootcert` in the extra of the Airflow connection refund_db, or the server's certificate"
    )
    with pytest.raises(SettingsError, match="certificate verify failed"):
        migrate(other)


def test_a_postgres_without_tls_is_not_trusted(postgres_plain: DatabaseAccess, written: Written) -> None:
    with pytest.raises(SettingsError, match="server does not support SSL"):
        Database(replace(postgres_plain, sslmode="verify-full", ca_file=str(written.tls("ca.crt")))).now()


@pytest.fixture
def postgres_plain(postgres: object) -> DatabaseAccess:
    """The other tests' server, which has no certificate."""
    return postgres.owner  # type: ignore[attr-defined]


def test_missing_certificates_for_postgres_are_named(tls_postgres: DatabaseAccess, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        Database(replace(tls_postgres, ca_file=f"{tmp_path}/ca.crt")).now()
    assert str(caught.value) == (
        f"the certificates to trust for Postgres, {tmp_path}/ca.crt, are not there; correct `sslrootcert` in the extra "
        "of the Airflow connection refund_db, or mount the file where the worker runs"
    )


# --- S3 ------------------------------------------------------------------------------------------------------------


def test_both_s3_clients_trust_our_authority(tls_s3: S3Access) -> None:
    store = ObjectStore(tls_s3)
    store.put("tls/a.txt", b"over tls")
    assert [seen.key for seen in store.list("tls/")] == ["tls/a.txt"]  # boto3
    assert store._get_fast("tls/a.txt", etag=None, size_bytes=None) == b"over tls"  # obstore, without its way out
    assert store.get("tls/a.txt") == b"over tls"


def test_a_stranger_s3_is_not_trusted(tls_s3: S3Access) -> None:
    from obstore.exceptions import GenericError

    stranger = ObjectStore(replace(tls_s3, ca_file=None))
    with pytest.raises(GenericError):
        stranger._get_fast("tls/a.txt", etag=None, size_bytes=None)
    with pytest.raises(SettingsError) as caught:
        stranger.put("tls/b.txt", b"")
    assert str(caught.value).startswith(f"S3 at {tls_s3.endpoint_url} is not trusted, so it was not asked to ")
    assert str(caught.value).endswith(
        "Expected a certificate for that host from an authority in the certificates of the system; correct `verify` in "
        "the extra of the Airflow connection refund_s3, or the server's certificate"
    )


def test_missing_certificates_for_s3_are_named(tls_s3: S3Access, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        ObjectStore(replace(tls_s3, ca_file=f"{tmp_path}/ca.crt")).put("a", b"")
    assert str(caught.value) == (
        f"the certificates to trust for S3, {tmp_path}/ca.crt, cannot be read: No such file or directory; correct "
        "`verify` in the extra of the Airflow connection refund_s3, or mount the file where the worker runs"
    )
    (tmp_path / "key.pem").write_text("-----BEGIN PRIVATE KEY-----\n")
    with pytest.raises(SettingsError) as caught:
        ObjectStore(replace(tls_s3, ca_file=f"{tmp_path}/key.pem")).get("a")
    assert str(caught.value) == (
        f"{tmp_path}/key.pem, named by `verify` in the extra of the Airflow connection refund_s3, holds no "
        "certificate; expected PEM text with -----BEGIN CERTIFICATE-----"
    )


def test_the_init_service_makes_the_bucket_once(tls_s3: S3Access) -> None:
    from botocore.exceptions import ClientError

    from deploy.make_bucket import make_bucket
    from refund.store.s3_clients import Patience, boto3_client

    client = boto3_client(tls_s3, Patience())
    assert make_bucket(client, bucket="made-by-init", region="us-east-1") is True
    assert make_bucket(client, bucket="made-by-init", region="us-east-1") is False
    wrong = boto3_client(replace(tls_s3, secret_key="wrong"), Patience())
    with pytest.raises(ClientError):
        make_bucket(wrong, bucket="made-by-init", region="us-east-1")
