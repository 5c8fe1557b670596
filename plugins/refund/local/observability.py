"""Turns the local stack's two switches, REFUND_METRICS and REFUND_LINEAGE, into Airflow's own settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from refund.errors import SettingsError

METRICS_VARIABLE = "REFUND_METRICS"
LINEAGE_VARIABLE = "REFUND_LINEAGE"
LINEAGE_FILE = "lineage.jsonl"  # in the stack's folder
_METRICS_FORMS = "statsd://host:8125[/prefix], or http://host:4318 for an OpenTelemetry collector (OTLP)"
_LINEAGE_FORMS = f"file (then {LINEAGE_FILE} in the stack's folder), file:///folder/file, or http://host:5000[/path]"
_OTLP_INTERVAL_MS = "10000"  # instead of 60 s: a night of a laptop is over by then
_STATSD_PORT = 8125


def observability_environ(base: Mapping[str, str], *, home: Path) -> dict[str, str]:
    """What both switches in ``base`` mean to Airflow; neither is on unless it is set. ``home`` is the stack's folder.

    Raises:
        SettingsError: a switch is set to something else than its forms.
    """
    metrics, lineage = base.get(METRICS_VARIABLE, "").strip(), base.get(LINEAGE_VARIABLE, "").strip()
    return _metrics(metrics) | _lineage(lineage, home=home)


def _metrics(value: str) -> dict[str, str]:
    if not value:
        return {}
    url = _address(METRICS_VARIABLE, value, _METRICS_FORMS)
    if url.scheme == "statsd":
        host = url.hostname or ""
        return {
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": host,
            "AIRFLOW__METRICS__STATSD_IPV6": str(":" in host),
            "AIRFLOW__METRICS__STATSD_PORT": str(url.port or _STATSD_PORT),
            "AIRFLOW__METRICS__STATSD_PREFIX": url.path.strip("/") or "airflow",
        }
    if url.scheme in ("http", "https"):
        return {
            "AIRFLOW__METRICS__OTEL_ON": "True",
            "OTEL_EXPORTER_OTLP_ENDPOINT": value.rstrip("/"),  # the exporter appends /v1/metrics
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_METRIC_EXPORT_INTERVAL": _OTLP_INTERVAL_MS,
            "OTEL_SERVICE_NAME": "airflow",
        }
    raise _refused(METRICS_VARIABLE, value, _METRICS_FORMS)


def _lineage(value: str, *, home: Path) -> dict[str, str]:
    if not value:
        return {"AIRFLOW__OPENLINEAGE__DISABLED": "True"}
    if value == "file" or value.startswith("file:"):
        path = home / LINEAGE_FILE if value == "file" else _file(value)
        transport = {"type": "file", "log_file_path": str(path), "append": True}
    else:
        url = _address(LINEAGE_VARIABLE, value, _LINEAGE_FORMS)
        if url.scheme not in ("http", "https"):
            raise _refused(LINEAGE_VARIABLE, value, _LINEAGE_FORMS)
        transport = {"type": "http", "url": f"{url.scheme}://{url.netloc}"}
        if endpoint := url.path.strip("/"):
            transport["endpoint"] = endpoint
    return {
        "AIRFLOW__OPENLINEAGE__DISABLED": "False",
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport),
        "AIRFLOW__OPENLINEAGE__NAMESPACE": "refund",
        # in a thread: a fork that hangs on a slow server would keep the task from being marked complete
        "AIRFLOW__OPENLINEAGE__EXECUTE_IN_THREAD": "True",
        "AIRFLOW__OPENLINEAGE__EMISSION_POLICY": json.dumps(
            [{"scope": {}, "controls": {"include_source_code": False}}]
        ),
    }


def _file(value: str) -> Path:
    url = urlsplit(value)
    path = Path(unquote(url.path))
    if url.netloc not in ("", "localhost") or not path.is_absolute() or url.query or url.fragment:
        raise _refused(LINEAGE_VARIABLE, value, _LINEAGE_FORMS)
    if path.is_dir() or not path.parent.is_dir():
        seen = "is a folder" if path.is_dir() else f"lies in {path.parent}, which does not exist"
        msg = f"{LINEAGE_VARIABLE} names {path}, which {seen}; expected a file in a folder that exists: make it first"
        raise SettingsError(msg)
    return path


def _address(variable: str, value: str, forms: str) -> SplitResult:
    try:
        url = urlsplit(value)
        unusable = not url.hostname or url.port == 0
    except ValueError:  # no number, or no port that there is
        raise _refused(variable, value, forms) from None
    if url.username is not None or url.password is not None:
        msg = (
            f"{variable} holds a login, which Airflow would write into its logs with the address; expected {forms}, "
            f"without one. For a server that asks for a login set Airflow's own settings (docs/observability.md)"
        )
        raise SettingsError(msg)
    if unusable or url.query or url.fragment:
        raise _refused(variable, value, forms)
    return url


def _refused(variable: str, value: str, forms: str) -> SettingsError:
    return SettingsError(f"{variable} must read {forms}; got {value!r}. Unset it to switch it off")
