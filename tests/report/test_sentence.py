from __future__ import annotations

from dataclasses import replace

from refund.records import OutcomeCounts
from refund.report.figures import ReportFigures
from refund.report.sentence import summary_sentence
from tests.report.factories import USUAL, empty_night, night

DAY = "Saturday 21 November 2026"


def unchanged(figures: ReportFigures, photos: int) -> ReportFigures:
    return replace(figures, counts=OutcomeCounts(photos=photos, classified=0, rejected=0, unchanged=photos))


def test_normal_night() -> None:
    assert summary_sentence(night()) == (
        f"Of the 2,462 photos of {DAY}, 2,162 (88%) were sorted automatically, 268 wait for a person and 32 could not "
        f"be used."
    )


def test_small_night_minds_its_grammar() -> None:
    assert summary_sentence(night({"shoes": 9}, rejected={}, reference=0)) == (
        f"Of the 9 photos of {DAY}, 8 (89%) were sorted automatically and 1 waits for a person."
    )
    assert summary_sentence(night({"shoes": 1}, rejected={}, reference=0)) == (
        f"Of the one photo of {DAY}, 1 (100%) was sorted automatically and none waits for a person."
    )


def test_no_photos() -> None:
    assert summary_sentence(empty_night()) == f"No photos arrived for {DAY}, so there was nothing to sort."


def test_everything_was_sorted_on_earlier_nights() -> None:
    assert summary_sentence(unchanged(empty_night(), 250)) == (
        f"No new photos arrived for {DAY}: all 250 photos found had been sorted before, and their results stand."
    )
    assert "the one photo found had been sorted before" in summary_sentence(unchanged(empty_night(), 1))


def test_the_same_night_again() -> None:
    text = summary_sentence(unchanged(night(), 2462))
    assert text.startswith(f"Nothing has changed since {DAY} was sorted: of the 2,462 photos")


def test_many_rejected_come_first_with_the_commonest_reason() -> None:
    text = summary_sentence(night({"shoes": 60}, rejected={"truncated": 35, "too_small": 5}, reference=0))
    assert text == (
        f"40 of the 100 photos of {DAY} (40%) could not be used, most often because of “cut off”, while 54 were sorted "
        f"automatically and 6 wait for a person."
    )


def test_all_rejected() -> None:
    assert summary_sentence(night({}, rejected={"corrupt": 3, "too_small": 1})) == (
        f"None of the 4 photos of {DAY} could be used, most often because of “damaged”."
    )
    assert summary_sentence(night({}, rejected={"empty_file": 1})) == (
        f"The only photo of {DAY} could not be used, because of “empty file”."
    )


def test_drift_says_what_moved() -> None:
    text = summary_sentence(night({**USUAL, "shoes": 2600}))
    assert text.endswith("; the mix of goods differs from other nights, above all more shoes (58% instead of 21%).")
    without_goods = summary_sentence(night({**USUAL, "not_a_product": 2600}))
    assert "above all more photos without goods (52% instead of 0%)" in without_goods


def test_figures_that_do_not_add_up_are_the_only_news() -> None:
    figures = replace(night(), reconciliation=replace(night().reconciliation, adds_up=False))
    assert summary_sentence(figures).startswith(f"The counts of {DAY} do not add up, so none of these figures")
