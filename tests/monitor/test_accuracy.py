"""Figures of a labelled set: scikit-learn is the reference, the bootstrap is held to known coverage."""

from __future__ import annotations

import json
import random
import time
from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics

from refund.monitor.accuracy import BINS, compare_paired, evaluate_predictions
from refund.monitor.resampling import RESAMPLES, draw, estimate_of, macro_f1_of
from tests.monitor.factories import draw_verdicts, make_verdict


def flags(verdicts: list, threshold: float = 0.6) -> list[bool]:  # type: ignore[type-arg]
    return [verdict.category_score >= threshold for verdict in verdicts]


# --- values, held to scikit-learn ------------------------------------------------------------------------------------


def test_values_are_those_of_scikit_learn() -> None:
    verdicts = draw_verdicts(300)
    truth, answer = [row.true_category for row in verdicts], [row.category for row in verdicts]
    figures = evaluate_predictions(verdicts, auto=flags(verdicts), resamples=20)
    assert figures.accuracy.value == pytest.approx(metrics.accuracy_score(truth, answer))
    assert figures.macro_f1.value == pytest.approx(metrics.f1_score(truth, answer, average="macro"))
    names = [row.category for row in figures.categories]
    precision, recall, f1, support = metrics.precision_recall_fscore_support(truth, answer, labels=names)
    for place, row in enumerate(figures.categories):
        assert row.precision is not None
        assert row.recall is not None
        assert (row.precision.value, row.recall.value, row.f1.value, row.photos) == pytest.approx(
            (precision[place], recall[place], f1[place], support[place])
        )
    assert figures.confusion.categories == tuple(names)
    assert np.array_equal(figures.confusion.counts, metrics.confusion_matrix(truth, answer, labels=names))


def test_macro_f1_is_over_the_categories_that_a_photograph_truly_belongs_to() -> None:
    verdicts = [make_verdict(1, "a", "a"), make_verdict(2, "a", "x"), make_verdict(3, "b", "b")]
    truth, answer = ["a", "a", "b"], ["a", "x", "b"]
    figures = evaluate_predictions(verdicts, auto=[True] * 3, resamples=20)
    assert figures.macro_f1.value == pytest.approx(metrics.f1_score(truth, answer, labels=["a", "b"], average="macro"))
    assert figures.macro_f1.value != pytest.approx(metrics.f1_score(truth, answer, average="macro", zero_division=0))
    stray = figures.categories[-1]
    assert (stray.category, stray.photos, stray.predicted, stray.recall, stray.coverage) == ("x", 0, 1, None, None)
    assert (stray.precision.value, stray.f1.value) == (0, 0)  # type: ignore[union-attr]


def test_every_resample_is_counted_as_scikit_learn_would_count_it() -> None:
    verdicts = draw_verdicts(40, categories=5)
    names = sorted({row.true_category for row in verdicts} | {row.category for row in verdicts})
    truth = np.array([names.index(row.true_category) for row in verdicts])
    answer = np.array([names.index(row.category) for row in verdicts])
    (indices,) = draw(40, 50)
    accuracies, scores = [], []
    for row in indices:
        present = np.unique(truth[row])
        scores.append(metrics.f1_score(truth[row], answer[row], labels=present, average="macro"))
        accuracies.append(metrics.accuracy_score(truth[row], answer[row]))
    counts = np.array([metrics.confusion_matrix(truth[row], answer[row], labels=range(len(names))) for row in indices])
    assert macro_f1_of(counts.astype(float)) == pytest.approx(scores)
    figures = evaluate_predictions(verdicts, auto=flags(verdicts), resamples=50)
    for estimate, values in ((figures.macro_f1, scores), (figures.accuracy, accuracies)):
        assert (estimate.low, estimate.high) == pytest.approx(tuple(np.percentile(values, (2.5, 97.5))))


def test_top_1_counts_the_photographs_whose_class_is_known() -> None:
    verdicts = [
        make_verdict(1, "a", "a"),
        make_verdict(2, "a", "a", class_id="another class of a"),
        make_verdict(3, "b", "b", true_class_id=None),
    ]
    figures = evaluate_predictions(verdicts, auto=[True] * 3, resamples=20)
    assert figures.top1 is not None
    assert (figures.top1.value, figures.top1_photos) == (0.5, 2)
    unknown = [replace(verdict, true_class_id=None) for verdict in verdicts]
    figures = evaluate_predictions(unknown, auto=[True] * 3, resamples=20)
    assert (figures.top1, figures.top1_photos) == (None, 0)


def test_coverage_and_accuracy_at_the_threshold_overall_and_by_department() -> None:
    verdicts = [
        make_verdict(1, "a", "a"), make_verdict(2, "a", "b"), make_verdict(3, "a", "a"), make_verdict(4, "b", "b"),
    ]  # fmt: skip
    figures = evaluate_predictions(verdicts, auto=[True, True, False, False], resamples=50)
    assert figures.auto_accuracy is not None
    assert (figures.coverage.value, figures.auto_accuracy.value) == (0.5, 0.5)
    a, b = figures.categories
    assert (a.auto, a.coverage.value, a.auto_accuracy.value) == (2, pytest.approx(2 / 3), 0.5)  # type: ignore[union-attr]
    assert (b.auto, b.coverage.value, b.auto_accuracy) == (0, 0, None)  # type: ignore[union-attr]
    assert evaluate_predictions(verdicts, auto=[False] * 4, resamples=50).auto_accuracy is None


def test_calibration_error_is_that_of_guo_et_al() -> None:
    verdicts = draw_verdicts(200, seed=3)
    scores = np.array([row.category_score for row in verdicts])
    right = np.array([row.category == row.true_category for row in verdicts])
    expected = 0.0
    for number in range(BINS):  # their equation 3, bins (low, high]
        inside = (scores > number / BINS) & (scores <= (number + 1) / BINS)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - scores[inside].mean())
    figures = evaluate_predictions(verdicts, auto=flags(verdicts), resamples=20)
    assert figures.ece.value == pytest.approx(expected)
    assert sum(one.photos for one in figures.reliability) == 200
    assert figures.reliability[0].accuracy is None


@pytest.mark.parametrize(("score", "place"), [(0.0, 0), (1 / 15, 0), (0.07, 1), (0.2, 2), (1.0, 14)])
def test_a_bin_holds_its_upper_end(score: float, place: int) -> None:
    figures = evaluate_predictions([make_verdict(1, "a", "a", score=score)], auto=[True], resamples=5)
    assert [number for number, one in enumerate(figures.reliability) if one.photos] == [place]


# --- odd sets --------------------------------------------------------------------------------------------------------


def test_a_set_of_one_photograph_of_one_category_has_figures() -> None:
    figures = evaluate_predictions([make_verdict(1, "a", "a")], auto=[True])
    assert (figures.accuracy.value, figures.macro_f1.value, figures.macro_f1.low) == (1, 1, 1)
    wrong = evaluate_predictions([make_verdict(1, "a", "b")], auto=[True])
    assert (wrong.accuracy.value, wrong.macro_f1.value, wrong.macro_f1.high) == (0, 0, 0)
    assert wrong.categories[0].precision is None  # nothing was put there


def test_figures_are_json_without_nan() -> None:
    figures = evaluate_predictions(draw_verdicts(7), auto=[False] * 7, resamples=10)
    values = json.loads(json.dumps(figures.to_dict(), allow_nan=False))
    assert values["accuracy"] == {name: getattr(figures.accuracy, name) for name in ("value", "low", "high")}
    assert values["auto_accuracy"] is None
    assert {"macro_f1", "top1", "ece", "coverage", "categories", "confusion", "reliability"} <= set(values)


def test_the_same_photographs_give_the_same_figures_in_any_order() -> None:
    verdicts = draw_verdicts(60)
    first = evaluate_predictions(verdicts, auto=flags(verdicts))
    random.Random(4).shuffle(verdicts)
    assert evaluate_predictions(verdicts, auto=flags(verdicts)) == first


@pytest.mark.parametrize(("count", "given"), [(0, 0), (2, 1)])
def test_an_evaluation_needs_verdicts_and_a_flag_for_each(count: int, given: int) -> None:
    with pytest.raises(ValueError, match=f"an evaluation needs verdicts and as many flags, got {count} and {given}"):
        evaluate_predictions(draw_verdicts(count), auto=[True] * given)


# --- the bootstrap ---------------------------------------------------------------------------------------------------


def test_intervals_hold_the_truth_about_as_often_as_they_claim() -> None:
    held = 0
    for seed in range(200):
        rights = np.random.default_rng(seed).random(150) < 0.8
        drawn = np.concatenate([rights[indices].mean(axis=1) for indices in draw(150, 500)])
        interval = estimate_of(float(rights.mean()), drawn)
        assert interval is not None
        held += interval.low <= 0.8 <= interval.high
    assert 180 <= held <= 198  # 95 % of 200 is 190


def test_draws_are_the_same_every_time_and_bounded_in_memory() -> None:
    parts = list(draw(3_000, RESAMPLES))
    assert sum(len(part) for part in parts) == RESAMPLES
    assert max(part.size for part in parts) <= 4_000_000
    again = list(draw(3_000, RESAMPLES))
    assert all(np.array_equal(part, other) for part, other in zip(parts, again, strict=True))


@pytest.mark.slow
def test_ten_thousand_photographs_take_seconds() -> None:
    verdicts = draw_verdicts(10_000, categories=23)
    start = time.process_time()  # other load of the machine is not in it
    evaluate_predictions(verdicts, auto=flags(verdicts))
    assert time.process_time() - start < 15  # 1.1 s on two idle cores


# --- two models ------------------------------------------------------------------------------------------------------


def test_a_model_compared_with_itself_loses_nothing() -> None:
    verdicts = draw_verdicts(80)
    comparison = compare_paired(verdicts, verdicts[::-1])
    assert (comparison.photos, comparison.significant_loss) == (80, False)
    assert {comparison.accuracy.value, comparison.accuracy.low, comparison.accuracy.high} == {0.0}


def test_differences_are_candidate_minus_current_as_scikit_learn_sees_them() -> None:
    current = draw_verdicts(200, seed=8, right=0.9)
    candidate = [
        replace(row, category="c0") if number % 3 == 0 else replace(row, category=row.true_category)
        for number, row in enumerate(current)
    ]
    comparison = compare_paired(candidate, current)
    truth = [row.true_category for row in current]
    for estimate, score in (
        (comparison.accuracy, metrics.accuracy_score),
        (comparison.macro_f1, lambda truth, answer: metrics.f1_score(truth, answer, average="macro")),
    ):
        expected = score(truth, [row.category for row in candidate]) - score(truth, [row.category for row in current])
        assert estimate.value == pytest.approx(expected)
        assert estimate.low < estimate.value < estimate.high


def test_a_clear_loss_is_significant_and_a_gain_is_not() -> None:
    good = [replace(row, category=row.true_category) for row in draw_verdicts(120)]
    bad = [replace(row, category="c0") if number % 4 == 0 else row for number, row in enumerate(good)]
    loss, gain = compare_paired(bad, good), compare_paired(good, bad)
    assert loss.significant_loss
    assert loss.accuracy.high < 0
    assert not gain.significant_loss
    assert gain.to_dict()["significant_loss"] is False
    assert (gain.accuracy.value, gain.accuracy.low) == pytest.approx((-loss.accuracy.value, -loss.accuracy.high))


def test_a_rare_department_lost_altogether_is_a_loss_though_accuracy_hardly_moves() -> None:
    current = [make_verdict(number, "common", "common") for number in range(480)]
    current += [make_verdict(number, "rare", "rare") for number in range(480, 490)]
    candidate = [replace(row, category="common") for row in current]
    candidate[:10] = [replace(row, category="rare") for row in current[:10]]
    mixed = [replace(row, category="common") if row.true_category == "rare" else row for row in current]
    comparison = compare_paired(mixed, current)
    assert comparison.accuracy.value == pytest.approx(-10 / 490)
    assert comparison.macro_f1.value < -0.4
    assert comparison.significant_loss


@pytest.mark.slow
@pytest.mark.parametrize(
    ("photos", "lost", "least", "most"), [(250, 0.0, 0.0, 0.1), (250, 0.03, 0.25, 0.6), (250, 0.08, 0.9, 1.0)]
)
def test_a_loss_is_seen_as_often_as_docs_evaluation_says(photos: int, lost: float, least: float, most: float) -> None:
    refused = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        current = draw_verdicts(photos, seed=seed, right=0.92)
        others = draw_verdicts(photos, seed=seed + 1_000, right=0.92)  # of other photographs: only whether it is right
        candidate = []
        for row, other in zip(current, others, strict=True):
            wrong = f"c{(int(row.true_category[1:]) + 1) % 6}"
            hit = row.category == row.true_category if random.random() < 0.7 else other.category == other.true_category
            hit = hit and random.random() >= lost / 0.92
            candidate.append(replace(row, category=row.true_category if hit else wrong))
        refused += compare_paired(candidate, current, resamples=400).significant_loss
    assert least <= refused / 100 <= most


def test_other_photographs_or_other_truths_cannot_be_compared() -> None:
    verdicts = draw_verdicts(10)
    relabelled = [*verdicts[:9], replace(verdicts[9], true_category="other")]
    for other, agree in ((verdicts[:9], 9), (relabelled, 9)):
        with pytest.raises(ValueError, match="needs the same") as caught:
            compare_paired(other, verdicts)
        assert str(caught.value) == (
            f"a paired comparison needs the same photographs and truths for both models, got {len(other)} and 10 of "
            f"which {agree} agree"
        )
