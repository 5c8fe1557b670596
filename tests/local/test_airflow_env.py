"""The environment of the local Airflow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from refund.errors import SettingsError
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
     "REQUESTS_CA_BUNDLE", "AIRFLOW_CONN_REFUND_SMTP", "AIRFLOW_CONN_REFUND_SLACK", "AIRFLOW_CONN_REFUND_APPRISE"],
)  # fmt: skip
def test_what_programs_need_of_the_machine_and_where_alerts_go_passes(name: str) -> None:
    assert build({name: "x"})[name] == "x"


def test_operator_settings_pass_but_the_places_are_the_stacks() -> None:
    environ = build({"REFUND_MAX_BYTES": "5", "REFUND_STAGING_ROOT": "file:///elsewhere", "PATH": "/bin"})
    assert environ["REFUND_MAX_BYTES"] == "5"
    assert environ["PATH"] == "/bin"
    assert environ["REFUND_STAGING_ROOT"] == "file:///h/staging"
    assert environ["AIRFLOW__CORE__PLUGINS_FOLDER"] == "/h/airflow/plugins", "the installed package registers itself"


def observed(**base: str) -> dict[str, str]:
    """The part of the environment that the two switches make."""
    return {
        name: value
        for name, value in build(base).items()
        if name.startswith(("AIRFLOW__METRICS__", "AIRFLOW__OPENLINEAGE__", "OTEL_"))
    }


def test_metrics_and_lineage_are_off_unless_asked_for() -> None:
    assert observed() == observed(REFUND_METRICS="", REFUND_LINEAGE=" ") == {"AIRFLOW__OPENLINEAGE__DISABLED": "True"}


@pytest.mark.parametrize(
    ("value", "host", "port", "prefix", "ipv6"),
    [
        ("statsd://127.0.0.1:9125", "127.0.0.1", "9125", "airflow", "False"),
        ("statsd://metrics.example.org/refund/", "metrics.example.org", "8125", "refund", "False"),
        ("statsd://[::1]:8125", "::1", "8125", "airflow", "True"),
    ],
)
def test_one_setting_sends_metrics_to_statsd(value: str, host: str, port: str, prefix: str, ipv6: str) -> None:
    assert observed(REFUND_METRICS=value) == {
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_HOST": host,
        "AIRFLOW__METRICS__STATSD_IPV6": ipv6,
        "AIRFLOW__METRICS__STATSD_PORT": port,
        "AIRFLOW__METRICS__STATSD_PREFIX": prefix,
        "AIRFLOW__OPENLINEAGE__DISABLED": "True",
    }


def test_one_setting_sends_metrics_to_an_opentelemetry_collector() -> None:
    found = observed(REFUND_METRICS="http://127.0.0.1:4318/")
    assert found["AIRFLOW__METRICS__OTEL_ON"] == "True"
    assert found["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://127.0.0.1:4318"
    assert "AIRFLOW__METRICS__STATSD_ON" not in found


def test_one_setting_writes_lineage_into_the_stacks_folder_or_another(tmp_path: Path) -> None:
    for value, path in (("file", "/h/lineage.jsonl"), ((tmp_path / "a b.jsonl").as_uri(), str(tmp_path / "a b.jsonl"))):
        found = observed(REFUND_LINEAGE=value)
        assert found["AIRFLOW__OPENLINEAGE__DISABLED"] == "False"
        transport = json.loads(found["AIRFLOW__OPENLINEAGE__TRANSPORT"])
        assert transport == {"type": "file", "log_file_path": path, "append": True}


def test_one_setting_sends_lineage_to_a_server() -> None:
    for value, transport in (
        ("http://127.0.0.1:5000", {"type": "http", "url": "http://127.0.0.1:5000"}),
        ("https://l.example.org/api/v2/", {"type": "http", "url": "https://l.example.org", "endpoint": "api/v2"}),
    ):
        assert json.loads(observed(REFUND_LINEAGE=value)["AIRFLOW__OPENLINEAGE__TRANSPORT"]) == transport


def test_lineage_leaves_out_source_code_by_a_policy_that_the_provider_takes() -> None:
    policy = json.loads(observed(REFUND_LINEAGE="file")["AIRFLOW__OPENLINEAGE__EMISSION_POLICY"])
    assert policy == [{"scope": {}, "controls": {"include_source_code": False}}]


@pytest.mark.parametrize(
    "value",
    ["yes", "statsd:127.0.0.1", "statsd://", "statsd://h:port", "statsd://h:99999", "statsd://h:0", "udp://h:1",
     "http://", "http://h:4318?token=x", "http://[::1"],
)  # fmt: skip
def test_a_wrong_metrics_switch_is_refused_with_the_forms_it_has(value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        build({"REFUND_METRICS": value})
    assert str(caught.value) == (
        "REFUND_METRICS must read statsd://host:8125[/prefix], or http://host:4318 for an OpenTelemetry collector "
        f"(OTLP); got {value!r}. Unset it to switch it off"
    )


@pytest.mark.parametrize(
    "value", ["on", "file:relative", "file://server/x", "ftp://h/x", "http://", "s3://bucket/x", "file:///tmp/x?y"]
)
def test_a_wrong_lineage_switch_is_refused_with_the_forms_it_has(value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        build({"REFUND_LINEAGE": value})
    assert str(caught.value) == (
        "REFUND_LINEAGE must read file (then lineage.jsonl in the stack's folder), file:///folder/file, or "
        f"http://host:5000[/path]; got {value!r}. Unset it to switch it off"
    )


def test_a_lineage_file_that_cannot_be_written_is_told_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"is a folder; expected a file in a folder that exists: make it first"):
        build({"REFUND_LINEAGE": tmp_path.as_uri()})
    with pytest.raises(SettingsError, match=r"lies in .*gone, which does not exist; expected a file in a folder"):
        build({"REFUND_LINEAGE": (tmp_path / "gone" / "x.jsonl").as_uri()})


@pytest.mark.parametrize("variable", ["REFUND_METRICS", "REFUND_LINEAGE"])
def test_a_login_in_an_address_is_refused_and_not_repeated(variable: str) -> None:
    with pytest.raises(SettingsError, match="holds a login, which Airflow would write into its logs") as caught:
        build({variable: "https://user:hunter2@example.org"})
    assert "hunter2" not in str(caught.value)
