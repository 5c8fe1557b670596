from __future__ import annotations

from dataclasses import replace

from refund.monitor.drift import DriftStatus
from refund.records import OutcomeCounts
from refund.report.figures import ReportFigures
from refund.report.sentence import reconciliation_sentences, refunds_sentence, summary_sentence
from tests.report.factories import USUAL, empty_night, night, overtaken_night

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
    assert text.endswith(
        "; the mix of goods differs from other nights, above all more shoes (58% instead of 21%); there were far more "
        "photos than on other nights (4,542 instead of 2,461)."
    )
    without_goods = summary_sentence(night({**USUAL, "not_a_product": 2600}))
    assert "above all more photos without goods (52% instead of 0%)" in without_goods


def test_every_measure_that_differs_is_told_once() -> None:
    rejected = summary_sentence(night(rejected={"corrupt": 300}))
    assert rejected.endswith("; more photos than on other nights could not be used (11.0% instead of 1.3%).")
    fewer = summary_sentence(night({name: photos // 4 for name, photos in USUAL.items()}, rejected={}))
    assert fewer.endswith("; there were far fewer photos than on other nights (606 instead of 2,461).")
    alone = [replace(one, status=DriftStatus.DRIFT) for one in night({**USUAL, "shoes": 600}).drift[1:2]]
    assert summary_sentence(night(drift=(*night().drift[:1], *alone))).endswith(
        "; there was far more shoes than on other nights (24% instead of 21%)."
    )
    unknown = replace(night().drift[2], measure="odd_hours", status=DriftStatus.DRIFT)
    assert summary_sentence(night(drift=(*night().drift[:1], unknown))).endswith("; odd hours: not as on other nights.")


def test_refunds_in_words() -> None:
    assert refunds_sentence(night()) == (
        "38 of the 1,215 refunds (3.1%): in 19 the photos belong to several categories, in 19 a photo belongs to "
        "another than was declared."
    )
    assert refunds_sentence(night(refunds_undeclared=20)).endswith("was declared, 1 of them both.")
    assert refunds_sentence(night({"shoes": 9})).startswith("None of the 5 refunds: their photos agree with one")
    assert refunds_sentence(empty_night()) == "No refund of this night has a photo that names it."


def test_figures_that_do_not_add_up_are_the_only_news() -> None:
    figures = replace(night(), reconciliation=replace(night().reconciliation, adds_up=False))
    assert summary_sentence(figures).startswith(f"The counts of {DAY} do not add up, so none of these figures")


def test_every_stage_is_counted_in_words() -> None:
    assert reconciliation_sentences(night(unchanged=7).reconciliation) == (
        "This run listed 2,469 photos = 2,430 classified + 32 rejected + 7 unchanged since an earlier run. Classified "
        "and rejected are the 2,462 in its packs; classified are the 2,430 in its prediction files and the 2,430 "
        "decisions in the tables."
    )
    told = reconciliation_sentences(overtaken_night().reconciliation)
    assert told.endswith(" 999,999 of the unchanged were published by another run while this one was at work.")


def test_counts_that_differ_are_all_named() -> None:
    wrong = replace(night().reconciliation, adds_up=False, packed=2461, decisions=2429)
    assert reconciliation_sentences(wrong) == (
        "This run listed 2,462 photos ≠ 2,430 classified + 32 rejected + 0 unchanged since an earlier run. Its packs "
        "hold 2,461, its prediction files 2,430, the tables 2,462 outcomes and 2,429 decisions."
    )


def test_of_earlier_releases_only_what_they_counted_is_told() -> None:
    old = replace(empty_night().reconciliation, packed=None, predicted=None, overtaken=None)
    assert reconciliation_sentences(old) == (
        "This run listed 0 photos = 0 classified + 0 rejected + 0 unchanged since an earlier run."
    )
