from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime

import pytest

from refund.report.figures import CategoryRow, ReportFigures
from tests.report.factories import TWO_MODELS, empty_night, hostile_night, night


@pytest.mark.parametrize("figures", [night(), empty_night(), night(reference=0), night(models=TWO_MODELS, audits=3)])
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
    with pytest.raises(ValueError, match=r"^the report has schema version 99, this code reads 1; upgrade the code$"):
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


def test_a_report_of_the_first_release_can_still_be_read() -> None:
    body = {name: value for name, value in night().to_dict().items() if name not in ("models", "audits")}
    assert ReportFigures.from_dict(body) == night()
