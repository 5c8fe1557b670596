"""Nights with marked secrets in every connection, after which everything they left is searched for them."""

from __future__ import annotations

import base64
import json
import traceback
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from refund.errors import RefundError
from refund.local import stack
from refund.night.services import open_services
from refund.settings import DatabaseAccess, S3Access, Settings
from tests.conftest import Roles, free_port
from tests.faults.catalogue import Test, Watch, fault
from tests.faults.live import REFERENCE, Ground
from tests.faults.marks import Search, secrets_of

SECRET = 's3cr3t/+%"=\\ ü?&'


def live(test: Test) -> Test:
    """Mark a test of the live stack; those before are quick."""
    return pytest.mark.live(pytest.mark.slow(test))


# --- the search finds, and records and errors show nothing ---------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    [
        SECRET,
        f"postgresql://refund_app:{urllib.parse.quote(SECRET, safe='')}@db/refund",
        json.dumps({"password": SECRET}),
        json.dumps({"password": SECRET}, ensure_ascii=False),
        *(base64.b64encode(f"{'x' * offset}:{SECRET}:".encode()).decode() for offset in range(3)),
        base64.urlsafe_b64encode(f"AWS:{SECRET}".encode()).decode(),
        "\\x" + f"bytes {SECRET} bytes".encode().hex(),
    ],
)
def test_the_search_finds_a_secret_however_it_is_written(written: str, tmp_path: Path) -> None:
    search = Search({"password": SECRET, "other": "0123456789abcdef"})
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "attempt=1.log").write_text(f'{{"event": "connecting with {written}"}}\n')
    assert search.in_files([tmp_path]) == ({"logs/attempt=1.log": {"password"}}, 1)


def test_the_search_finds_a_secret_in_a_table(empty_database: Roles) -> None:
    import psycopg2

    access = empty_database.owner
    connection = psycopg2.connect(
        host=access.host, port=access.port, dbname=access.database, user=access.user, password=access.password
    )
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA af CREATE TABLE xcom (value jsonb, raw bytea) CREATE TABLE empty (value text)")
        cursor.execute("INSERT INTO af.xcom VALUES (%s, %s)", (json.dumps({"uri": "abc"}), b"...mark-in-bytes..."))
    connection.close()
    search = Search({"first": "mark-in-bytes", "second": "mark-nowhere"})
    assert search.in_database(access) == ({"af.xcom": {"first"}}, {"af.xcom": 1, "af.empty": 0})


def test_what_is_secret_in_the_stack_s_file() -> None:
    values = {"s3_access_key": "a", "s3_secret_key": "b", "airflow_passwords": {"admin": "c"}}
    assert secrets_of(values) == {"s3_secret_key": "b", "airflow_passwords.admin": "c"}


def test_no_record_shows_a_secret(tmp_path: Path) -> None:
    s3 = S3Access(bucket="b", access_key="key", secret_key=SECRET)
    database = DatabaseAccess(host="h", password=SECRET)
    settings = Settings.load({"AIRFLOW_CONN_REFUND_DB": SECRET})
    search = Search({"secret": SECRET})
    with open_services(settings=settings, s3=s3, database=database) as services:
        for shown in (s3, database, settings, services):
            assert search.found(f"{shown!r} {shown} {vars(type(shown)).keys()}") == set()


@pytest.mark.parametrize("wrong", ["password", "user", "database", "port", "host", "sslmode"])
def test_no_error_of_a_wrong_database_connection_shows_a_secret(wrong: str, postgres: Roles) -> None:
    changes = {
        "password": {}, "user": {"user": "nobody"}, "database": {"database": "nosuch"}, "port": {"port": free_port()},
        "host": {"host": "nosuch.invalid"}, "sslmode": {"sslmode": "verify-full", "ca_file": "/nosuch.pem"},
    }  # fmt: skip
    access: DatabaseAccess = replace(postgres.app, **changes[wrong])  # type: ignore[arg-type]
    if wrong != "database":
        access = replace(access, password=SECRET)
    secrets = {"password": access.password or ""}
    s3 = S3Access(bucket="b")
    with (
        open_services(settings=Settings(), s3=s3, database=access) as services,
        pytest.raises(RefundError) as caught,
    ):
        services.repository.get_run("r")
    assert (access.ca_file or access.place) in str(caught.value)
    assert Search(secrets).found("".join(traceback.format_exception(caught.value))) == set()


def test_no_error_of_a_wrong_s3_connection_shows_a_secret(s3_nanio: S3Access, postgres: Roles) -> None:
    secret = "wrong-but-secret-0123456789"
    for access in (
        replace(s3_nanio, secret_key=secret),
        replace(s3_nanio, access_key="nobody", secret_key=secret),
        replace(s3_nanio, secret_key=secret, endpoint_url=f"http://127.0.0.1:{free_port()}"),
    ):
        with (
            open_services(settings=Settings(), s3=access, database=postgres.app) as services,
            pytest.raises(RefundError) as caught,
        ):
            services.objects.check_bucket()
        assert access.place in str(caught.value)
        assert Search({"secret": secret}).found("".join(traceback.format_exception(caught.value))) == set()


# --- nights in which a secret is wrong -----------------------------------------------------------------------------


@contextmanager
def other_s3_key(ground: Ground) -> Iterator[None]:
    """The S3 server knows another secret key than the connection holds."""
    options = ground.home / "run" / "nanio.toml"
    right = options.read_text()
    try:
        options.write_text(right.replace(ground.secrets["s3_secret_key"], "0" * 40))
        ground.restart_s3()
        yield
    finally:
        options.write_text(right)
        ground.restart_s3()


@contextmanager
def other_database_password(ground: Ground) -> Iterator[None]:
    """Postgres knows another password of refund_app than the connection holds."""
    try:
        ground.as_superuser("ALTER ROLE refund_app PASSWORD 'another'")
        yield
    finally:
        ground.as_superuser(f"ALTER ROLE refund_app PASSWORD '{ground.secrets['postgres_app']}'")


@fault(
    part="S3",
    what="the secret key of the connection refund_s3 is wrong",
    seen="HealthCheckError: … SignatureDoesNotMatch",
    recovery="correct the connection, clear `health_check` with its downstream tasks",
    after="nothing of the night; once cleared the rows of an undisturbed night",
)
@live
def test_a_night_with_a_wrong_s3_key_fails_at_once(faults_ground: Ground, watch: Watch) -> None:
    night = faults_ground.photos("wrong-s3-key", 4)
    before = faults_ground.keys()
    with other_s3_key(faults_ground):
        faults_ground.start(night)
        faults_ground.await_end(night, state="failed")
    found = faults_ground.instances(night)
    assert (found["health_check"]["state"], found["health_check"]["try_number"]) == ("failed", 1)
    assert found["persist"]["state"] == "upstream_failed"
    watch.check_seen(faults_ground.log(night, "health_check", attempt=1))
    assert faults_ground.rows(night)["run_photo"] == []

    faults_ground.clear(night, "health_check")
    faults_ground.await_end(night)
    faults_ground.check_as_undisturbed(night, before=before)


@fault(
    part="Postgres",
    what="the password of the connection refund_db is wrong",
    seen="HealthCheckError: … password authentication failed",
    recovery="correct the connection, run the date again",
    after="nothing of the night",
)
@live
def test_a_night_with_a_wrong_database_password_fails_at_once(faults_ground: Ground, watch: Watch) -> None:
    night = faults_ground.photos("wrong-database-password", 4)
    with other_database_password(faults_ground):
        faults_ground.start(night)
        faults_ground.await_end(night, state="failed")
    found = faults_ground.instances(night)
    assert {found[task]["try_number"] for task in ("health_check", "alert_on_drift")} == {1}
    watch.check_seen(faults_ground.log(night, "health_check", attempt=1))
    assert faults_ground.driver.sql("SELECT * FROM refund.run WHERE run_id = %s", (night.run_id,)) == []


@live
def test_nothing_that_the_nights_left_holds_a_secret(faults_ground: Ground) -> None:
    """Runs last in this module: searches what all nights on this stack left, the failed ones too."""
    ground = faults_ground
    search = Search(secrets_of(ground.secrets))
    cluster = Path(str(stack.status(ground.home).postgres_folder))
    held, count = search.in_files({ground.home, cluster} - ({cluster} if ground.home in cluster.parents else set()))
    # where they belong, each of mode 0600; that they are found there shows that the search finds
    assert held == {
        "secrets.json": set(search.names),
        "run/airflow_environment.json": {
            "postgres_airflow",
            "postgres_app",
            "s3_secret_key",
            *(
                name
                for name in search.names
                if name.startswith("airflow_") and not name.startswith("airflow_passwords.")
            ),
        },
        "run/airflow_passwords.json": {name for name in search.names if name.startswith("airflow_passwords.")},
        "run/nanio.toml": {"s3_secret_key"},
    }
    assert all((ground.home / name).stat().st_mode & 0o077 == 0 for name in held)
    assert count > 100

    for database, tables in (
        ("airflow", {"public.xcom", "public.rendered_task_instance_fields", "public.dag_run", "public.log"}),
        ("refund", {"refund.audit", "refund.run", "refund.report"}),
        (REFERENCE, {"refund.run"}),
    ):
        found, rows = search.in_database(replace(ground.superuser, database=database))
        assert found == {}
        assert all(rows[table] for table in tables), rows
    with ground.driver.services() as services:  # the server keeps them as files, which were read above
        assert {item.key.partition("/")[0] for item in services.objects.list("")} >= {"reports", "quarantine", "models"}

    assert any("airflow worker" in line for line in ground.visible.command_lines)
    assert search.found("\n".join(ground.visible.command_lines)) == set()
    assert len(ground.visible.decoders) > 1, "the interpreter and its children"
    for environment in ground.visible.decoders.values():
        assert search.found(environment) == set()
        assert not [name for name in environment.split(b"\0") if name.startswith((b"AIRFLOW", b"REFUND", b"AWS"))]
