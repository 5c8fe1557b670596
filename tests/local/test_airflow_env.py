"""The environment of the local Airflow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from refund.local.airflow_env import airflow_environ
from refund.local.credentials import StackCredentials
from refund.local.paths import StackPaths
from refund.local.ports import Ports

PORTS = Ports(postgres=1111, s3=2222, airflow=3333)


def build(base: dict[str, str] | None = None, credentials: StackCredentials | None = None) -> dict[str, str]:
    return airflow_environ(
        paths=StackPaths(home=Path("/h")),
        ports=PORTS,
        credentials=credentials or StackCredentials.draw(),
        dags_folder=Path("/repo/dags"),
        base=base or {},
        cores=2,
    )


def test_the_connections_carry_what_the_adapters_read() -> None:
    credentials = StackCredentials.draw()
    environ = build(credentials=credentials)
    s3 = json.loads(environ["AIRFLOW_CONN_REFUND_S3"])
    assert (s3["conn_type"], s3["login"], s3["password"]) == (
        "aws",
        credentials.s3_access_key,
        credentials.s3_secret_key,
    )
    assert s3["extra"] == {
        "endpoint_url": "http://127.0.0.1:2222",
        "region_name": "us-east-1",
        "service_config": {"s3": {"bucket_name": "refund-photos"}},
    }
    database = json.loads(environ["AIRFLOW_CONN_REFUND_DB"])
    assert database == {
        "conn_type": "postgres",
        "host": "127.0.0.1",
        "port": 1111,
        "schema": "refund",
        "login": "refund_app",
        "password": credentials.postgres_app,
        "extra": {"sslmode": "prefer"},
    }


def test_the_owner_of_the_schema_is_unknown_to_tasks() -> None:
    credentials = StackCredentials.draw()
    text = json.dumps(build(credentials=credentials))
    assert credentials.postgres_app in text
    assert credentials.postgres_owner not in text
    assert credentials.postgres_superuser not in text


def test_airflow_reaches_everything_over_loopback_without_a_proxy() -> None:
    environ = build({"http_proxy": "http://proxy:1"})
    assert environ["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:3333/execution/"
    assert environ["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].startswith("postgresql+psycopg2://airflow:")
    assert environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC"].endswith("@127.0.0.1:1111/airflow")
    assert environ["NO_PROXY"] == environ["no_proxy"] == "127.0.0.1,localhost"
    assert environ["http_proxy"] == "http://proxy:1", "the outside is still reached as the user does"


@pytest.mark.parametrize(
    "name",
    ["AIRFLOW__CORE__EXECUTOR_X", "AIRFLOW_CONN_OTHER", "AWS_PROFILE", "PGHOST", "PYTHONPATH", "REFUND_PORT_S3",
     "GITHUB_TOKEN", "KUBECONFIG", "SECRET_REFUND_KEY"],
)  # fmt: skip
def test_nothing_else_of_the_callers_shell_leaks_in(name: str) -> None:
    assert set(build({name: "x"})) == set(build())


@pytest.mark.parametrize(
    "name",
    ["HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "https_proxy", "HTTPS_PROXY", "SSL_CERT_FILE",
     "REQUESTS_CA_BUNDLE"],
)  # fmt: skip
def test_what_programs_need_of_the_machine_passes(name: str) -> None:
    assert build({name: "x"})[name] == "x"


def test_operator_settings_pass_but_the_places_are_the_stacks() -> None:
    environ = build({"REFUND_MAX_BYTES": "5", "REFUND_STAGING_ROOT": "file:///elsewhere", "PATH": "/bin"})
    assert environ["REFUND_MAX_BYTES"] == "5"
    assert environ["PATH"] == "/bin"
    assert environ["REFUND_STAGING_ROOT"] == "file:///h/staging"
    assert environ["AIRFLOW__CORE__PLUGINS_FOLDER"] == "/h/airflow/plugins", "the installed package registers itself"
