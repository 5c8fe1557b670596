"""Where Airflow meets the night: its connections, its runs and its errors, each translated and in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from refund import airflow_glue
from refund.errors import (
    ConfigurationError,
    DatabaseUnavailableError,
    FatalRunError,
    HealthCheckError,
    NoModelError,
    RefundError,
    RetriableRunError,
    SettingsError,
)
from refund.params import NightParams
from refund.settings import DatabaseAccess, S3Access


@pytest.fixture(autouse=True)
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An Airflow home of these tests' own: importing Airflow writes a configuration file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
        yield


# --- the run date --------------------------------------------------------------------------------------------------


BEGUN = datetime(2026, 11, 22, 2, 0, 7, tzinfo=UTC)


def dag_run(*, partition_key: str | None = None, run_after: datetime | None = None) -> SimpleNamespace:
    return SimpleNamespace(
        run_id="manual__1",
        partition_key=partition_key,
        run_after=run_after or datetime(2026, 11, 22, 2, 0, tzinfo=UTC),
        start_date=BEGUN,
        logical_date=None,  # as for every run by hand: nothing may lean on it
    )


@pytest.mark.parametrize(
    ("run_date", "partition_key", "expected"),
    [
        ("2026-01-31", "2026-11-21", date(2026, 1, 31)),  # what a person typed wins
        (None, "2026-11-20", date(2026, 11, 20)),
        (None, None, date(2026, 11, 21)),  # the day before
        (None, "", date(2026, 11, 21)),
    ],
)
def test_the_run_date(run_date: str | None, partition_key: str | None, expected: date) -> None:
    assert airflow_glue.run_date_of(NightParams(run_date=run_date), dag_run(partition_key=partition_key)) == expected


@pytest.mark.parametrize(
    ("run_after", "expected"),
    [
        (datetime(2026, 11, 22, 0, 0, tzinfo=UTC), date(2026, 11, 21)),
        (datetime(2026, 11, 22, 23, 59, 59, tzinfo=UTC), date(2026, 11, 21)),
        (datetime(2028, 3, 1, 1, 0, tzinfo=UTC), date(2028, 2, 29)),
    ],
)
def test_a_run_by_hand_is_of_the_day_before(run_after: datetime, expected: date) -> None:
    assert airflow_glue.run_date_of(NightParams(), dag_run(run_after=run_after)) == expected


@pytest.mark.parametrize("partition_key", ["2026-11-21T02:00:00", "20261121", "shoes|eu"])
def test_a_malformed_partition_key_is_refused(partition_key: str) -> None:
    with pytest.raises(SettingsError) as caught:
        airflow_glue.run_date_of(NightParams(), dag_run(partition_key=partition_key))
    assert str(caught.value) == f"run date must read YYYY-MM-DD, for example 2026-11-21; got {partition_key!r}"


def test_the_run_of_a_task_context() -> None:
    params = {entry["name"]: entry["default"] for entry in NightParams.describe()} | {"review_threshold": 0.7}
    run = airflow_glue.night_run({"params": params, "dag_run": dag_run(partition_key="2026-11-21")})
    assert (run.run_id, run.run_date) == ("manual__1", date(2026, 11, 21))
    assert run.params == NightParams(review_threshold=0.7)
    assert run.begun_at == BEGUN


def test_what_a_run_finds_is_seen_when_it_began_last() -> None:
    first = datetime(2026, 11, 22, 2, 0, 9, tzinfo=UTC)
    run = airflow_glue.night_run({"params": {}, "dag_run": dag_run()})
    assert run.sighted_at(first) == first  # the row is made a little after Airflow begins
    cleared = SimpleNamespace(**{**vars(dag_run()), "start_date": first + timedelta(days=4)})
    assert airflow_glue.night_run({"params": {}, "dag_run": cleared}).sighted_at(first) == first + timedelta(days=4)


def test_airflow_tells_tasks_when_the_run_began_and_forgets_it_when_an_ended_run_is_cleared() -> None:
    """What `NightRun.begun_at` rests on."""
    from airflow.models.dagrun import DagRun
    from airflow.sdk.api.datamodels._generated import DagRun as TaskDagRun
    from airflow.utils.state import DagRunState

    assert "start_date" in TaskDagRun.model_fields
    run = DagRun(dag_id="d", run_id="r", start_date=BEGUN, state=DagRunState.RUNNING)
    run.set_state(DagRunState.RUNNING)
    assert run.start_date == BEGUN
    run.set_state(DagRunState.FAILED)
    assert run.start_date == BEGUN
    run.set_state(DagRunState.QUEUED)  # as clear_task_instances has it
    assert run.start_date is None
    run.set_state(DagRunState.RUNNING)
    assert run.start_date > BEGUN


def test_a_param_of_the_wrong_type_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"^batch_size must be of type int, got \[8\]$"):
        airflow_glue.night_run({"params": {"batch_size": [8]}, "dag_run": dag_run()})


# --- connections ---------------------------------------------------------------------------------------------------


def connection(**fields: Any) -> Any:
    from airflow.sdk import Connection

    extra = fields.pop("extra", None)
    return Connection(conn_id="tested", extra=None if extra is None else json.dumps(extra), **fields)


BUCKET = {"service_config": {"s3": {"bucket_name": "photos"}}}


def test_a_whole_s3_connection() -> None:
    extra = {**BUCKET, "endpoint_url": "http://127.0.0.1:9000", "region_name": "eu-central-1"}
    assert airflow_glue.s3_access(connection(conn_type="aws", login="key", password="secret", extra=extra)) == S3Access(
        bucket="photos",
        endpoint_url="http://127.0.0.1:9000",
        region="eu-central-1",
        access_key="key",
        secret_key="secret",
    )


def test_an_s3_connection_without_keys_leaves_them_to_the_worker() -> None:
    assert airflow_glue.s3_access(connection(conn_type="aws", extra=BUCKET)) == S3Access(bucket="photos")


@pytest.mark.parametrize("extra", [None, {}, {"service_config": {}}, {"service_config": {"s3": {"bucket_name": ""}}}])
def test_an_s3_connection_without_a_bucket_is_refused(extra: dict[str, Any] | None) -> None:
    with pytest.raises(SettingsError) as caught:
        airflow_glue.s3_access(connection(conn_type="aws", login="key", password="secret", extra=extra))
    assert str(caught.value) == (
        'the connection refund_s3 names no bucket; set its extra to {"service_config": {"s3": {"bucket_name": "…"}}}'
    )


@pytest.mark.parametrize("half", [{"login": "key"}, {"password": "secret"}])
def test_half_a_key_pair_is_refused(half: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as caught:
        airflow_glue.s3_access(connection(conn_type="aws", extra=BUCKET, **half))
    assert str(caught.value) == (
        "the connection refund_s3 has only half of the key pair (login, password); set both or none"
    )


def test_an_s3_connection_may_name_certificates_to_trust() -> None:
    found = airflow_glue.s3_access(connection(conn_type="aws", extra=BUCKET | {"verify": "/run/tls/ca.crt"}))
    assert found == S3Access(bucket="photos", ca_file="/run/tls/ca.crt")


@pytest.mark.parametrize("verify", [False, True, "", 1])
def test_checking_certificates_cannot_be_switched_off(verify: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        airflow_glue.s3_access(connection(conn_type="aws", extra=BUCKET | {"verify": verify}))
    assert str(caught.value) == (
        "`verify` in the extra of the connection refund_s3 must be the path of a PEM file with the certificates to "
        f"trust, got {verify!r}; leave it out to trust the system's. They are always checked"
    )


def test_a_database_connection_may_name_certificates_to_trust() -> None:
    extra = {"sslmode": "verify-full", "sslrootcert": "/run/tls/ca.crt"}
    found = airflow_glue.database_access(connection(conn_type="postgres", host="db", login="refund_app", extra=extra))
    assert (found.sslmode, found.ca_file) == ("verify-full", "/run/tls/ca.crt")


def test_a_whole_database_connection() -> None:
    found = airflow_glue.database_access(
        connection(
            conn_type="postgres",
            host="db.example",
            port=6432,
            schema="returns",
            login="refund_app",
            password="secret",
            extra={"sslmode": "verify-full"},
        )
    )
    assert found == DatabaseAccess(
        host="db.example", port=6432, database="returns", user="refund_app", password="secret", sslmode="verify-full"
    )


def test_a_short_database_connection_has_defaults() -> None:
    found = airflow_glue.database_access(connection(conn_type="postgres", host="db.example", login="refund_app"))
    assert found == DatabaseAccess(host="db.example", port=5432, database="refund", user="refund_app")


@pytest.mark.parametrize("fields", [{}, {"host": "db.example"}, {"login": "refund_app"}])
def test_a_database_connection_without_host_or_login_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as caught:
        airflow_glue.database_access(connection(conn_type="postgres", **fields))
    assert str(caught.value) == "the connection refund_db needs a host and a login (the role refund_app)"


def test_connections_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a worker or ``refund`` beside it reads them."""
    s3 = {"conn_type": "aws", "login": "key", "password": "p%40ss/word", "extra": BUCKET}
    database = {"conn_type": "postgres", "host": "db.example", "login": "refund_app", "password": "p@ss:word"}
    monkeypatch.setenv("AIRFLOW_CONN_REFUND_S3", json.dumps(s3))
    monkeypatch.setenv("AIRFLOW_CONN_REFUND_DB", json.dumps(database))
    found_s3, found_database = airflow_glue.connections()
    assert (found_s3.bucket, found_s3.secret_key) == ("photos", "p%40ss/word")
    assert (found_database.host, found_database.password) == ("db.example", "p@ss:word")


# --- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "is_final"),
    [
        (RetriableRunError("the server is busy"), False),
        (DatabaseUnavailableError("Postgres at db:5432 cannot be reached"), False),
        (ConfigurationError("no bucket"), True),
        (NoModelError(wanted="nosuch@1"), True),
        (HealthCheckError(["the bucket is missing", "the clock is off"]), True),
        (FatalRunError("counts differ"), True),
        (RefundError("of no branch"), True),
    ],
)
def test_our_errors_tell_airflow_whether_to_retry(error: RefundError, *, is_final: bool) -> None:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    with pytest.raises(AirflowException) as caught, airflow_glue.airflow_errors():
        raise error
    assert isinstance(caught.value, AirflowFailException) == is_final  # that one is never tried again
    assert str(caught.value) == f"{type(error).__name__}: {error}"
    assert caught.value.__cause__ is error


def test_other_errors_pass_as_they_are() -> None:
    """A fault of our own code keeps its type and its traceback; Airflow retries it."""
    with pytest.raises(ZeroDivisionError), airflow_glue.airflow_errors():
        _ = 1 / 0


# --- the trigger form ----------------------------------------------------------------------------------------------


def test_the_trigger_form_has_a_typed_bounded_field_for_every_parameter() -> None:
    form = {name: param.schema for name, param in airflow_glue.trigger_form().items()}
    assert list(form) == list(NightParams.__dataclass_fields__)
    assert form["run_date"] == {"type": ["null", "string"], "format": "date"}
    assert form["prefix"] == form["model"] == {"type": "string"}
    assert form["batch_size"] == {"type": "integer", "minimum": 1, "maximum": 256}
    assert form["shard_size"] == {"type": "integer", "minimum": 1, "maximum": 100_000}
    assert form["top_k"] == {"type": "integer", "minimum": 1, "maximum": 10}
    assert form["review_threshold"] == {"type": "number", "minimum": 0.0, "maximum": 1.0}
    assert form["late_days"] == {"type": "integer", "minimum": 0, "maximum": 60}
    assert form["force"] == form["dry_run"] == {"type": "boolean"}


def test_every_field_of_the_form_is_described_and_its_default_fits_it() -> None:
    for name, param in airflow_glue.trigger_form().items():
        assert param.description, name
        assert param.resolve() == getattr(NightParams(), name)


@pytest.mark.parametrize(
    ("name", "value"), [("top_k", 11), ("batch_size", 0), ("review_threshold", 1.5), ("force", "yes"), ("model", None)]
)
def test_the_form_refuses_what_the_night_would_refuse(name: str, value: object) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    with pytest.raises(ParamValidationError):
        airflow_glue.trigger_form()[name].resolve(value)
