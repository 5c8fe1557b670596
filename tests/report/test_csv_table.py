from __future__ import annotations

import csv
import io

import pytest

from refund.report.csv_table import COLUMNS, guarded, render_csv, unguarded
from refund.report.figures import ReportFigures
from refund.report.rows import ReasonRow
from tests.report.factories import empty_night, hostile_night, night, shifted_night


def rows(figures: ReportFigures) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(render_csv(figures))))


def value(figures: ReportFigures, section: str, name: str, measure: str) -> str:
    found = [r["value"] for r in rows(figures) if (r["section"], r["name"], r["measure"]) == (section, name, measure)]
    assert len(found) == 1
    return found[0]


def test_one_figure_per_row_under_a_header() -> None:
    assert render_csv(night()).startswith(",".join(COLUMNS) + "\r\n")
    assert value(night(), "category", "shoes", "photos") == "520"
    assert float(value(night(), "category", "shoes", "share")) == pytest.approx(520 / 2430)
    assert value(night(), "rejection", "truncated", "photos") == "21"
    assert value(night(), "drift", "category_shares", "status") == "ok"
    assert value(night(), "reconciliation", "adds_up", "value") == "true"
    counted = [value(night(), "reconciliation", name, "value") for name in ("packed", "predicted", "overtaken")]
    assert counted == ["2462", "2430", "0"]
    assert value(night(), "stage", "classify", "seconds") == "14.8"
    assert {(r["run_date"], r["run_id"]) for r in rows(night())} == {("2026-11-21", night().run_id)}


def test_everything_that_the_page_shows_is_in_the_table() -> None:
    figures = shifted_night()
    assert value(figures, "refunds", "contradicting", "refunds") == str(figures.contradicting)
    assert value(figures, "department", "toys_games", "refunds") == "310"
    assert float(value(figures, "department", "toys_games", "auto_share")) == pytest.approx(259 / 310)
    assert value(figures, "contradiction", "R-10024", "photos:clothing") == "1"
    assert value(figures, "contradiction", "R-10311", "declared") == "electronics"
    assert [value(figures, "drift", one.measure, "status") for one in figures.drift] == ["drift", "drift", "ok", "ok"]
    assert value(figures, "drift", "volume", "floor") == "0.3"
    assert value(figures, "drift", "largest_move", "category") == "toys_games"
    assert value(figures, "drift", "volume", "tonight_value") == "2622.0"
    assert float(value(figures, "drift_move", "shoes", "reference_share")) == pytest.approx(520 / 2430)
    assert value(figures, "stage", "validate", "p95_ms") == "14.2"
    assert float(value(figures, "stage", "validate", "error_share")) == pytest.approx(32 / 2622)
    assert value(figures, "alert", "1", "rule") == "rejection_spike"
    assert value(figures, "earlier_night", "2026-11-20", "photos") == "2434"
    assert sum(row["section"] == "drift_example" for row in rows(figures)) == 8
    assert {row.measure for row in figures.drift} <= {row["name"] for row in rows(figures)}


@pytest.mark.parametrize("figures", [night(), empty_night(), hostile_night(), shifted_night()])
def test_section_name_and_measure_are_a_key_but_for_examples(figures: ReportFigures) -> None:
    keys = [(r["section"], r["name"], r["measure"]) for r in rows(figures) if r["measure"] != "example_key"]
    assert len(keys) == len(set(keys))


def test_what_is_unknown_is_empty() -> None:
    assert value(empty_night(), "night", "auto", "share") == ""
    assert value(night(reference=0), "drift", "category_shares", "distance") == ""


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", " =", "\r=", "＝", "＋", "－", "＠"])
def test_no_text_is_a_formula(start: str) -> None:
    dangerous = f"{start}cmd|' /C calc'!A0"
    figures = night(
        rejected={},
        photos={"a": 5},
        run_id=dangerous,
        night_photos=6,
        rejections=(ReasonRow(reason="corrupt", photos=1, example_keys=(dangerous,)),),
    )
    for row in csv.reader(io.StringIO(render_csv(figures))):
        for cell in row:
            assert not cell.lstrip().startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠"))
    assert [row["value"][0] for row in rows(figures) if row["measure"] == "example_key"] in (["'"], ["\\"])


@pytest.mark.parametrize(
    "before", ["", " ", "\t", "\r", "\n", "\xa0", "\u3000", "\u2028", "\ufeff", "\u200b", "\0", " \t' \n"]
)
@pytest.mark.parametrize("start", ["=", "+", "-", "@", "＝", "＋", "－", "＠"])
def test_a_guarded_text_begins_with_an_apostrophe_and_comes_back_as_it_was(before: str, start: str) -> None:
    for text in (f"{before}{start}1", f"'{before}{start}1", f"''{before}{start}1"):
        assert guarded(text) == f"'{text}"
        assert unguarded(guarded(text)) == text


@pytest.mark.parametrize("text", ["", " ", "'", "a=1", "'a", "\ta", "\xa0", "R-1", "été.jpg"])
def test_a_text_that_is_no_formula_stays_as_it_is(text: str) -> None:
    assert guarded(text) == unguarded(text) == text


def test_a_night_of_hostile_names_is_still_one_table() -> None:
    text = render_csv(hostile_night())
    text.encode("utf-8")
    assert {len(row) for row in csv.reader(io.StringIO(text))} == {len(COLUMNS)}
