"""Where Airflow meets the night: its connections become our settings, our errors become its, its run becomes ours."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from refund.errors import ConfigurationError, ReconciliationError, RefundError, RetriableRunError, SettingsError
from refund.model_params import ModelParams
from refund.params import NightParams, Params, parse_run_date
from refund.settings import DatabaseAccess, S3Access, Settings

if TYPE_CHECKING:
    from airflow.sdk import Connection, Param

    from refund.night.services import NightRun, Services

log = logging.getLogger(__name__)

S3_CONNECTION = "refund_s3"
DATABASE_CONNECTION = "refund_db"


@dataclass(frozen=True, slots=True, kw_only=True)
class NightTask:
    """What a task of the night is given."""

    run: NightRun
    services: Services


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityTask:
    """What the task of ``refund_quality`` is given."""

    run_id: str
    at: datetime  # when the run was due: the same whenever the task is tried again
    ending: date  # last run date of the window
    services: Services


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTask:
    """What the task of ``refund_model`` is given."""

    params: ModelParams
    services: Services
    by: str  # who triggered the run
    request: str  # names the run, the same however often its task is cleared


_JSON_TYPES: Mapping[type, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}


def trigger_form(record: type[Params] = NightParams) -> dict[str, Param]:
    """The fields of Airflow's trigger form: one typed, bounded and described ``Param`` per parameter of a record."""
    from airflow.sdk import Param

    form = {}
    for entry in record.describe():
        schema: dict[str, Any] = {"type": _JSON_TYPES.get(type(entry["default"]), ["null", "string"])}
        schema |= {
            keyword: entry[key]
            for key, keyword in (("min", "minimum"), ("max", "maximum"), ("format", "format"))
            if key in entry
        }
        if "choices" in entry:
            schema["enum"] = list(entry["choices"])
        form[entry["name"]] = Param(entry["default"], description=entry["help"], **schema)
    return form


@contextmanager
def night_task() -> Iterator[NightTask]:
    """The current task's run and stores; errors raised inside leave as Airflow's.

    Raises:
        AirflowFailException: a `ConfigurationError` or `FatalRunError` was raised: no retry would help.
        AirflowException: a `RetriableRunError` was raised: the task's retries apply.
    """
    from airflow.sdk import get_current_context

    with airflow_errors():
        run = night_run(get_current_context())
        with task_services() as services:
            try:
                yield NightTask(run=run, services=services)
            except ReconciliationError as exc:
                from refund.night.alert_on_drift import alert_reconciliation

                alert_reconciliation(run, services, exc)
                raise


@contextmanager
def quality_task() -> Iterator[QualityTask]:
    """The window and stores of the current task of ``refund_quality``; errors as in `night_task`.

    The window ends with the parameter ``week_ending``, else with the day before the run was due.
    """
    from airflow.sdk import get_current_context

    with airflow_errors():
        context = get_current_context()
        dag_run: Any = context["dag_run"]
        given = context["params"].get("week_ending")
        ending = parse_run_date(given) if given else (dag_run.run_after - timedelta(days=1)).date()
        with task_services() as services:
            yield QualityTask(run_id=dag_run.run_id, at=dag_run.run_after, ending=ending, services=services)


@contextmanager
def model_task() -> Iterator[ModelTask]:
    """The parameters of the current run of ``refund_model``, the stores, and who triggered it; errors as `night_task`.

    Raises:
        AirflowFailException: a `ConfigurationError` or `FatalRunError` was raised: no retry would help.
        AirflowException: a `RetriableRunError` was raised.
    """
    from airflow.sdk import get_current_context

    with airflow_errors():
        context = get_current_context()
        params = ModelParams.from_mapping({key: value for key, value in context["params"].items() if value is not None})
        with task_services() as services:
            dag_run: Any = context["dag_run"]
            request = f"{dag_run.dag_id} {dag_run.run_id}"
            yield ModelTask(params=params, services=services, by=triggered_by(dag_run), request=request)


def triggered_by(dag_run: Any) -> str:
    """The user who triggered the run, as Airflow knows them; ``airflow:<dag_id>`` where nobody did."""
    return dag_run.triggering_user_name or f"airflow:{dag_run.dag_id}"


@contextmanager
def task_services() -> Iterator[Services]:
    """The stores as Airflow's connections name them, for any task or callback."""
    from refund.night.services import open_services

    s3, database = connections()
    with open_services(settings=Settings.load(os.environ), s3=s3, database=database) as services:
        yield services


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Turn our errors into those that tell Airflow whether to retry; the text stays."""
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    try:
        yield
    except RetriableRunError as exc:
        raise AirflowException(f"{type(exc).__name__}: {exc}") from exc  # noqa: EM102 -- the text is the error's own
    except RefundError as exc:
        raise AirflowFailException(f"{type(exc).__name__}: {exc}") from exc  # noqa: EM102 -- the text is the error's own


def night_run(context: Mapping[str, Any]) -> NightRun:
    """The run that a task context belongs to.

    The run date is the parameter ``run_date``, else the partition key that the schedule or a backfill gave, else the
    day before ``run_after``; never the logical date, which is None for runs by hand.

    The run's start date is when it began last: Airflow takes it away when tasks of an ended run are cleared and sets it
    when the run begins again; a task that is tried again by itself does not change it.

    Raises:
        SettingsError: a parameter or the partition key is malformed.
    """
    from refund.night.services import NightRun

    params = NightParams.from_mapping({key: value for key, value in context["params"].items() if value is not None})
    dag_run = context["dag_run"]
    return NightRun(
        run_id=dag_run.run_id,
        run_date=run_date_of(params, dag_run),
        params=params,
        begun_at=dag_run.start_date,
    )


def run_date_of(params: NightParams, dag_run: Any) -> date:
    """See `night_run`."""
    if params.run_date is not None:
        return parse_run_date(params.run_date)
    if dag_run.partition_key:
        return parse_run_date(dag_run.partition_key)
    before: date = (dag_run.run_after - timedelta(days=1)).date()
    return before


def connections() -> tuple[S3Access, DatabaseAccess]:
    """Read the two Airflow connections, the only source of credentials.

    Raises:
        ConfigurationError: a connection is missing or lacks a field.
    """
    return s3_access(read_connection(S3_CONNECTION)), database_access(read_connection(DATABASE_CONNECTION))


def s3_access(connection: Connection) -> S3Access:
    """Read a connection of type ``aws`` as Airflow's Amazon provider lays it out.

    Login and password are the key pair; without them the worker's own role is used. The extra holds ``region_name``,
    ``endpoint_url``, ``service_config.s3.bucket_name`` and, for a certificate authority of one's own, ``verify``: the
    path of its PEM file.

    Raises:
        SettingsError: no bucket is named, only half of the key pair is there, or ``verify`` is no path.
    """
    extra = connection.extra_dejson
    bucket = extra.get("service_config", {}).get("s3", {}).get("bucket_name")
    if not bucket:
        msg = (
            f"the connection {S3_CONNECTION} names no bucket; set its extra to "
            '{"service_config": {"s3": {"bucket_name": "…"}}}'
        )
        raise SettingsError(msg)
    if bool(connection.login) != bool(connection.password):
        msg = f"the connection {S3_CONNECTION} has only half of the key pair (login, password); set both or none"
        raise SettingsError(msg)
    verify = extra.get("verify")
    if verify is not None and (not isinstance(verify, str) or not verify):
        msg = (
            f"`verify` in the extra of the connection {S3_CONNECTION} must be the path of a PEM file with the "
            f"certificates to trust, got {verify!r}; leave it out to trust the system's. They are always checked"
        )
        raise SettingsError(msg)
    return S3Access(
        bucket=bucket,
        endpoint_url=extra.get("endpoint_url") or None,
        region=extra.get("region_name") or "us-east-1",
        access_key=connection.login or None,
        secret_key=connection.password or None,
        ca_file=verify,
    )


def database_access(connection: Connection) -> DatabaseAccess:
    """Read a connection of type ``postgres``; its extra may hold libpq's ``sslmode`` and ``sslrootcert``.

    Raises:
        SettingsError: host or login is missing.
    """
    if not connection.host or not connection.login:
        msg = f"the connection {DATABASE_CONNECTION} needs a host and a login (the role refund_app)"
        raise SettingsError(msg)
    return DatabaseAccess(
        host=connection.host,
        port=connection.port or 5432,
        database=connection.schema or "refund",
        user=connection.login,
        password=connection.password or None,
        sslmode=connection.extra_dejson.get("sslmode", "prefer"),
        ca_file=connection.extra_dejson.get("sslrootcert") or None,
    )


def published_only(run: NightRun, counts: dict[str, int]) -> dict[str, int]:
    """Give the counts of a night to Airflow's metrics, as gauges ``refund.photos``, ``refund.classified`` and so on.

    A dry run ends as skipped, so that no asset event tells of decisions that were not published.

    Raises:
        AirflowSkipException: the run is a dry run.
    """
    from airflow.sdk.exceptions import AirflowSkipException
    from airflow.sdk.observability import stats

    if run.params.dry_run:
        msg = f"dry run: nothing was published of {counts}"
        raise AirflowSkipException(msg)
    for outcome, photos in counts.items():
        stats.gauge(f"refund.{outcome}", photos)
    return counts


def plugin_errors() -> dict[str, str]:
    """Import errors of Airflow's plugins as this worker sees them, by source."""
    from airflow.plugins_manager import get_import_errors

    return dict(get_import_errors())


def task_states() -> dict[str, str]:
    """The state of every task instance of the current run but this one; mapped ones as ``task_id_index``."""
    from airflow.sdk import get_current_context

    context = get_current_context()
    instance, run_id = context["ti"], context["dag_run"].run_id
    states = instance.get_task_states(dag_id=instance.dag_id, run_ids=[run_id])[run_id]
    return {name: str(state) for name, state in states.items() if name != instance.task_id}


def on_deadline_missed(context: Mapping[str, Any] | None = None, **_: Any) -> None:
    """Raise and send an alert for a night that is still running at its deadline; called by Airflow, outside any task.

    Airflow runs it where its tasks run, but denies it connections of its database (docs/alerts.md).
    """
    from refund.airflow_channels import open_channels
    from refund.night.alert_on_drift import alert_overdue
    from refund.night.notify import send_pending

    dag_run = (context or {}).get("dag_run") or {}
    with task_services() as services:
        run_id = str(dag_run.get("run_id") or dag_run.get("dag_run_id") or "unknown")
        run_date = parse_run_date(dag_run["partition_key"]) if dag_run.get("partition_key") else None
        begun_at = datetime.fromisoformat(str(dag_run["start_date"])) if dag_run.get("start_date") else None  # ISO 8601
        alert_overdue(run_id=run_id, run_date=run_date, begun_at=begun_at, services=services)
        send_pending(services, open_channels(services.settings))


def read_connection(conn_id: str) -> Connection:
    """Read one Airflow connection.

    Raises:
        ConfigurationError: there is none of that name.
    """
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        found: Connection = Connection.get(conn_id)
    except AirflowNotFoundException as exc:
        msg = (
            f"Airflow has no connection {conn_id}; add it under Admin > Connections, or as "
            f"AIRFLOW_CONN_{conn_id.upper()} (docs/operations.md shows both)"
        )
        raise ConfigurationError(msg) from exc
    return found
