from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from refund.monitor.drift import DriftStatus
from refund.report.csv_table import render_csv
from refund.report.figures import ReportFigures
from refund.report.page import render_html
from refund.report.rows import CategoryRow, StageRow
from refund.report.text import render_text
from tests.report.factories import TWO_MODELS, empty_night, hostile_night, night, shifted_night


@pytest.mark.parametrize(
    "figures", [night(), empty_night(), night(reference=0), night(models=TWO_MODELS, audits=3), shifted_night()]
)
def test_figures_survive_json(figures: ReportFigures) -> None:
    assert ReportFigures.from_dict(json.loads(json.dumps(figures.to_dict()))) == figures


def test_texts_that_postgres_refuses_are_escaped_in_json() -> None:
    text = json.dumps(hostile_night().to_dict(), ensure_ascii=False, allow_nan=False)
    text.encode("utf-8")  # a lone surrogate would raise
    keys = json.loads(text)["rejections"][0]["example_keys"]
    assert keys[2].startswith(r"incoming/2026-11-21/\u202egpj.exe\x00\ud800\n")
    assert "\x00" not in "".join(keys)


def test_json_carries_the_shares_that_the_record_derives() -> None:
    body = night().to_dict()
    assert body["auto_share"] == pytest.approx(night().auto / night().night_photos)
    assert empty_night().to_dict()["auto_share"] is None


def test_a_report_of_another_schema_version_is_refused() -> None:
    body = night().to_dict() | {"schema_version": 99}
    with pytest.raises(ValueError, match=r"^the report has schema version 99, this code reads 1 to 2; upgrade"):
        ReportFigures.from_dict(body)


def test_rows_that_do_not_add_up_to_the_night_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^the night has 5 photos but 2430 in categories \+ 32 rejected$"):
        replace(night(), night_photos=5)


def test_a_category_that_does_not_add_up_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^'shoes': 3 photos but 1 auto \+ 1 review$"):
        CategoryRow(category="shoes", photos=3, share=1.0, auto=1, review=1, mean_score=0.5)


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^generated_at must be an aware time, got datetime"):
        replace(night(), generated_at=datetime(2026, 11, 22, 2, 0))  # noqa: DTZ001 - the fault under test


def test_a_report_of_the_first_release_can_still_be_read_and_shown() -> None:
    body = json.loads((Path(__file__).parent / "report_v1.json").read_text(encoding="utf-8"))
    figures = ReportFigures.from_dict(body)
    assert (figures.night_photos, figures.mix.status, figures.departments) == (4542, DriftStatus.DRIFT, None)
    assert figures.stages[1] == StageRow(stage="validate", seconds=9.3)
    assert "more shoes (58% instead of 21%)" in render_text(figures)
    assert "Refunds by department" not in render_html(figures)
    assert "refunds,all" not in render_csv(figures)
    assert ReportFigures.from_dict(figures.to_dict()) == figures


def test_what_is_no_number_is_unknown_in_json() -> None:
    figures = night(photos_per_second=float("nan"))
    assert json.loads(json.dumps(figures.to_dict(), allow_nan=False))["photos_per_second"] is None


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -0.1, 1.5])
def test_a_mean_score_that_is_none_is_refused(score: float) -> None:
    with pytest.raises(ValueError, match=rf"^'shoes': mean_score must lie in 0..1, got {score!r}$"):
        CategoryRow(category="shoes", photos=1, share=1.0, auto=1, review=0, mean_score=score)
