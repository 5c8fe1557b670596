"""Airflow under the environment that the switch makes sends its metrics to an OpenTelemetry collector."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from refund.local.observability import observability_environ
from tests.sinks import http_sink

_GAUGE = """
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics.stats_utils import get_stats_factory

stats.initialize(factory=get_stats_factory(), export_legacy_names=True)
stats.gauge("refund.photos", 4711)
"""


@pytest.mark.slow
def test_a_gauge_arrives_at_a_collector(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("REFUND_", "AIRFLOW", "OTEL_"))}
    with http_sink() as sink:
        switched = observability_environ({"REFUND_METRICS": f"http://127.0.0.1:{sink.port}"}, home=tmp_path)
        done = subprocess.run(
            [sys.executable, "-c", _GAUGE],
            env=kept | switched | {"AIRFLOW_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
    assert {path for _, path, _ in sink.requests} == {"/v1/metrics"}
    assert any(b"airflow.refund.photos" in body for _, _, body in sink.requests)
    assert "deprecated" not in done.stderr
