from __future__ import annotations

from dataclasses import replace

import pytest

from refund.report.figures import ReportFigures
from refund.report.sentence import summary_sentence
from refund.report.text import bar, render_text
from tests.report.factories import TWO_MODELS, USUAL, empty_night, hostile_night, night, overtaken_night, shifted_night

NIGHTS = [
    night(),
    empty_night(),
    hostile_night(),
    night({**USUAL, "shoes": 2600}),
    night(reference=0),
    night(models=TWO_MODELS, audits=24),
    overtaken_night(),
]


@pytest.mark.parametrize("figures", NIGHTS)
@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_asked(figures: ReportFigures, width: int) -> None:
    assert max(map(len, render_text(figures, width=width).splitlines())) <= width


@pytest.mark.parametrize("figures", NIGHTS)
def test_it_opens_with_the_sentence_and_holds_no_escape_sequence(figures: ReportFigures) -> None:
    text = render_text(figures)
    assert " ".join(text.split()).startswith(summary_sentence(figures))
    assert text.isprintable() or set(filter(lambda char: not char.isprintable(), text)) == {"\n"}


def test_it_shows_counts_categories_rejections_drift_and_stages() -> None:
    text = render_text(night())
    for shown in ("2,462 photos listed", "Bags & luggage", "37.0%", "Cut off: The image ends", "is like the 28 nights"):
        assert shown in text
    assert "classify 15 s" in text
    assert "2,462 in packs: classified + rejected" in text
    assert "2,430 in prediction files: classified" in text
    assert "DO NOT ADD UP" not in text
    wrong = replace(night(), reconciliation=replace(night().reconciliation, adds_up=False))
    assert "THESE COUNTS DO NOT ADD UP" in render_text(wrong)


def test_the_largest_categories_are_shown_and_the_rest_summed() -> None:
    text = render_text(night({f"category_{n:02}": 100 - n for n in range(14)}), top=10)
    assert "Category 09" in text
    assert "Category 10" not in text
    assert "4 more" in text


def test_drift_lists_what_moved() -> None:
    text = render_text(night({**USUAL, "shoes": 2600}))
    assert "differs from the 28 nights" in text
    assert "usually 21.4%" in text


def test_that_nothing_can_be_compared_is_said_once() -> None:
    assert render_text(night(reference=0)).count("nothing to compare with") == 1
    few = render_text(night({"shoes": 2}, rejected={"corrupt": 1}))
    assert few.count("too few photos to tell") == 1
    assert render_text(night()).count("is like the 28 nights before") == 4


def test_refunds_latencies_and_alerts_are_told() -> None:
    text = " ".join(render_text(shifted_night()).split())
    assert "Refunds with contradictions: 41 of the 1,295 refunds (3.2%)" in text
    assert "Read and check: half of the photos within 3.1 ms, 95% within 14 ms, 99% within 61 ms; 1.2% failed" in text
    assert "Alert (warning, rejection_spike): 9.1% of the photos were rejected" in text
    assert "Number of photos: is like the 28 nights before (2,622, usually 2,461; distance 0.062 ≤ threshold" in text


def test_bars_have_eighths_and_never_vanish() -> None:
    assert bar(0.5, 4) == "██  "
    assert bar(1.0, 4) == "████"
    assert bar(0.0, 4) == "    "
    assert bar(0.00001, 4) == "▏   "
    assert bar(1 / 32 * 3, 4) == "▍   "


def test_two_models_are_both_named_and_only_one_is_compared() -> None:
    text = " ".join(render_text(night(models=TWO_MODELS, audits=24)).split())
    assert "Model: mobilenet_v2@1.0.0-float32 (2,000 photos), mobilenet_v2@1.1.0-int8 (430 photos)" in text
    assert "More than one model sorted this night: compared are the 2,430 photos by mobilenet_v2@1.0.0-float32," in text
    assert "to audit 24 photos drawn for people to check" in text
    one = render_text(night(models=TWO_MODELS[:1]))
    assert "Model: mobilenet_v2@1.0.0-float32   Run:" in one
    assert "More than one model" not in one


def test_what_another_run_published_meanwhile_is_told_and_earlier_reports_are_shown_as_they_are() -> None:
    assert "999,999 of these published by another run" in render_text(overtaken_night())
    assert "published by another run" not in render_text(night())
    without = dict.fromkeys(("packed", "predicted", "overtaken"))  # reports of earlier releases
    assert "in packs" not in render_text(replace(night(), reconciliation=replace(night().reconciliation, **without)))
