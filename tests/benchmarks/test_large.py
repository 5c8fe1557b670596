"""The benchmarks of large nights, on small ones: that they run, and count what they say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import large_night, ten_million

pytestmark = pytest.mark.slow
STAGES = ["fetch", "validate", "classify", "persist", "generate_report", "alert_on_drift"]


def test_a_large_night_is_measured_stage_by_stage(tmp_path: Path) -> None:
    output = tmp_path / "large.json"
    assert large_night.main(["--photos", "60", "--steps", "1", "--output", str(output)]) == 0
    stages = json.loads(output.read_text())["stages"]
    assert [stage["stage"] for stage in stages] == STAGES
    assert {stage["stage"]: stage["photos"] for stage in stages} == {
        "fetch": 180, "validate": 60, "classify": 60, "persist": 180, "generate_report": 180, "alert_on_drift": 180,
    }  # fmt: skip
    assert all(stage["cpu_s"] > 0 and stage["peak_mb"] > 0 for stage in stages)


def test_every_statement_of_the_report_is_timed_and_its_plan_kept(tmp_path: Path) -> None:
    output, plans = tmp_path / "ten_million.json", tmp_path / "plans"
    sizes = ["--rows", "1200", "--nights", "40", "--repeats", "1", "--plans-from", "0"]
    assert ten_million.main([*sizes, "--plans", str(plans), "--output", str(output)]) == 0
    found = json.loads(output.read_text())
    names = {statement["name"] for statement in found["statements"]}
    assert {"nights.CATEGORIES", "drift.SORTED", "nights.REFUNDS", "exports.STAGE_PHOTOS"} <= names, names
    assert found["beside"]
    assert found["typed"]
    kept = {file.name for file in plans.iterdir()}
    assert {"drift-sorted.txt", "exports-stage-photos.txt", "exports-night-refunds.txt"} <= kept, kept
