"""From a few reviews to the accuracy of all decisions: weights, intervals that keep their promise, and calm words."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from refund.monitor.quality import (
    AuditPace,
    QualityStatus,
    Stratum,
    StratumName,
    estimate_quality,
    judge_quality,
    tell_audits,
)

AUTO, QUEUE = StratumName.AUTO, StratumName.QUEUE


def stratum(name: StratumName, *, decisions: int, right: int, wrong: int) -> Stratum:
    """Two categories: shoes, and clothing that is called shoes."""
    reviewed = {("shoes", "shoes"): right, ("clothing", "shoes"): wrong}
    return Stratum(
        name=name, predicted={"shoes": decisions}, reviewed={pair: count for pair, count in reviewed.items() if count}
    )


def test_each_review_stands_for_as_many_decisions_as_its_stratum_has() -> None:
    strata = [
        stratum(AUTO, decisions=9_000, right=95, wrong=5),
        stratum(QUEUE, decisions=1_000, right=500, wrong=500),
    ]
    found = estimate_quality(strata)
    assert found is not None
    assert found.accuracy.value == pytest.approx(0.9 * 0.95 + 0.1 * 0.5)
    assert (95 + 500) / (100 + 1_000) < found.accuracy.low < found.accuracy.value < found.accuracy.high


def test_audits_that_are_all_right_leave_room_for_mistakes() -> None:
    """Where a bootstrap says [1, 1]: Jeffreys' lower bound, and the estimate inside."""
    found = estimate_quality([stratum(AUTO, decisions=7_000, right=70, wrong=0)])
    assert found is not None
    assert (found.accuracy.value, found.accuracy.high) == (1.0, 1.0)
    assert found.accuracy.low == pytest.approx(0.9649, abs=0.003)  # the 2.5 % quantile of Beta(70.5, 0.5)
    assert found.macro_f1.value == found.macro_f1.high == 1.0
    assert found.macro_f1.low < 1.0


def test_what_was_reviewed_whole_is_known() -> None:
    strata = [stratum(AUTO, decisions=80, right=78, wrong=2), stratum(QUEUE, decisions=20, right=10, wrong=10)]
    found = estimate_quality(strata)
    assert found is not None
    assert found.accuracy.low == found.accuracy.value == found.accuracy.high == pytest.approx(0.88)
    assert found.macro_f1.low == pytest.approx(found.macro_f1.high)


def test_the_figures_of_a_whole_review_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import precision_recall_fscore_support

    random = np.random.default_rng(7)
    truth = random.choice(["shoes", "clothing", "media"], size=300, p=[0.6, 0.3, 0.1])
    said = np.where(random.random(300) < 0.8, truth, random.choice(["shoes", "furniture"], size=300))
    pairs = Counter(zip(truth.tolist(), said.tolist(), strict=True))
    found = estimate_quality([Stratum(name=QUEUE, predicted=Counter(said.tolist()), reviewed=pairs)])
    assert found is not None
    labels = [row.category for row in found.categories]
    assert labels == ["clothing", "media", "shoes"]  # no reviewer named furniture
    precision, recall, f1, support = precision_recall_fscore_support(truth, said, labels=labels, zero_division=0.0)
    assert [row.precision for row in found.categories] == pytest.approx(list(precision))
    assert [row.recall for row in found.categories] == pytest.approx(list(recall))
    assert [row.f1 for row in found.categories] == pytest.approx(list(f1))
    assert [row.reviewed for row in found.categories] == list(support)
    assert found.macro_f1.value == pytest.approx(f1.mean())


def test_the_same_reviews_give_the_same_interval() -> None:
    strata = [stratum(AUTO, decisions=900, right=40, wrong=3), stratum(QUEUE, decisions=90, right=9, wrong=9)]
    assert estimate_quality(strata) == estimate_quality(strata)


def test_a_stratum_of_which_nothing_is_known_leaves_no_estimate() -> None:
    audited = stratum(AUTO, decisions=900, right=40, wrong=3)
    assert estimate_quality([audited, stratum(QUEUE, decisions=90, right=0, wrong=0)]) is None
    assert estimate_quality([]) is None
    assert estimate_quality([audited, stratum(QUEUE, decisions=0, right=0, wrong=0)]) is not None


@pytest.mark.parametrize(
    ("right", "wrong", "expected"),
    [(99, 0, "insufficient_data"), (100, 0, "ok"), (90, 10, "ok"), (80, 20, "low"), (0, 100, "low"), (0, 0, None)],
)
def test_the_verdict(right: int, wrong: int, expected: str | None) -> None:
    strata = [stratum(AUTO, decisions=7_000, right=right, wrong=wrong)]
    verdict = judge_quality(estimate_quality(strata), strata, required_audits=100, required_accuracy=0.8)
    assert verdict == QualityStatus(expected or "insufficient_data")


@pytest.mark.parametrize(
    ("right", "wrong", "expected"), [(1, 0, "insufficient_data"), (59, 40, "insufficient_data"), (60, 40, "ok")]
)
def test_a_queue_that_is_only_begun_is_not_judged(right: int, wrong: int, expected: str) -> None:
    strata = [
        stratum(AUTO, decisions=5_250, right=107, wrong=3),
        stratum(QUEUE, decisions=1_750, right=right, wrong=wrong),
    ]
    verdict = judge_quality(estimate_quality(strata), strata, required_audits=100, required_accuracy=0.8)
    assert verdict == QualityStatus(expected)


def test_fewer_decisions_than_audits_wanted_can_all_be_audited() -> None:
    strata = [stratum(AUTO, decisions=30, right=30, wrong=0)]
    verdict = judge_quality(estimate_quality(strata), strata, required_audits=100, required_accuracy=0.8)
    assert verdict == QualityStatus.OK


def test_more_reviews_than_decisions_are_refused() -> None:
    with pytest.raises(ValueError, match="reviewed") as caught:
        Stratum(name=AUTO, predicted={"shoes": 1}, reviewed={("shoes", "shoes"): 2})
    assert str(caught.value) == (
        "stratum auto: 2 decisions for 'shoes' are reviewed of 1; expected 0 up to as many as there are"
    )


PACE = AuditPace(
    marked=70, reviewed=52, decisions=7_000, required=100, window_days=7, audit_share=0.01,
    week_ending=date(2026, 11, 22), first_night=date(2026, 11, 16),
)  # fmt: skip


@pytest.mark.parametrize(
    ("pace", "text"),
    [
        (
            PACE,
            "52 of the 100 wanted are reviewed; 70 were marked in 7 days, of which 18 wait: refund review queue "
            "--audit. "
            "This is the normal state at so few photos, not a fault. At 10.0 a day 10 days have enough, from "
            "2026-11-25 "
            "on: set quality_window_days to 10, or audit_share to 0.015.",
        ),
        (
            replace(PACE, first_night=date(2026, 1, 1), reviewed=70),
            "70 of the 100 wanted are reviewed; 70 were marked in 7 days. This is the normal state at so few "
            "photos, not "
            "a fault. At 10.0 a day 10 days have enough, from 2026-11-22 on: set quality_window_days to 10, or "
            "audit_share to 0.015.",
        ),
        (
            replace(PACE, marked=120),
            "52 of the 100 wanted are reviewed; 120 were marked in 7 days, of which 68 wait: refund review queue "
            "--audit. "
            "Once these are reviewed there are enough.",
        ),
        (
            replace(PACE, marked=40, reviewed=40, first_night=date(2026, 11, 21)),
            "40 of the 100 wanted are reviewed; 40 were marked in 2 days. At 20.0 a day there are enough from "
            "2026-11-25 "
            "on.",
        ),
        (
            replace(PACE, marked=0, reviewed=0),
            "0 of the 100 wanted are reviewed; 0 were marked in 7 days. This is the normal state at so few decisions, "
            "not a fault; for more audits raise audit_share (now 0.01).",
        ),
        (replace(PACE, marked=100, reviewed=100), "100 of the 100 wanted are reviewed; 100 were marked in 7 days."),
        (replace(PACE, decisions=0), "none are needed, the machine decided nothing alone."),
    ],
)
def test_how_many_audits_there_are_and_when_there_are_enough(pace: AuditPace, text: str) -> None:
    assert tell_audits(pace) == text


# --- does the interval keep its promise? ---------------------------------------------------------------------------


def week(
    random: np.random.Generator, *, decisions: int, auto_accuracy: float, audits: int
) -> tuple[list[Stratum], float, dict[str, float]]:
    """A week of 12 categories of uneven size, three quarters decided alone; strata, true accuracy, true F1."""
    shares = random.dirichlet(np.full(12, 1.5))
    strata, truths, answers = [], [], []
    for name, count, accuracy in (
        (AUTO, decisions * 3 // 4, auto_accuracy),
        (QUEUE, decisions // 4, 0.6),
    ):
        truth = random.choice(12, size=count, p=shares)
        said = np.where(random.random(count) < accuracy, truth, (truth + random.integers(1, 12, size=count)) % 12)
        drawn = random.choice(count, size=audits if name is AUTO else count * 9 // 10, replace=False)
        strata.append(
            Stratum(
                name=name,
                predicted={f"c{key}": number for key, number in Counter(said.tolist()).items()},
                reviewed=Counter((f"c{a}", f"c{b}") for a, b in zip(truth[drawn], said[drawn], strict=True)),
            )
        )
        truths.append(truth)
        answers.append(said)
    truth, said = np.concatenate(truths), np.concatenate(answers)
    f1 = {
        f"c{key}": 2 * ((truth == key) & (said == key)).sum() / ((truth == key).sum() + (said == key).sum())
        for key in range(12)
    }
    return strata, float((truth == said).mean()), f1


def coverage(*, auto_accuracy: float, audits: int, weeks: int) -> tuple[float, float, float, float]:
    """Shares of weeks whose truth lies in the interval of accuracy and of macro-F1; mean error, unweighted and ours."""
    hits = np.zeros((weeks, 2))
    errors = np.zeros((weeks, 2))
    for number in range(weeks):
        random = np.random.default_rng(number)
        strata, accuracy, f1 = week(random, decisions=7_000, auto_accuracy=auto_accuracy, audits=audits)
        found = estimate_quality(strata, draws=1_000)
        assert found is not None
        macro = np.mean([f1[row.category] for row in found.categories])
        hits[number] = (
            found.accuracy.low <= accuracy <= found.accuracy.high,
            found.macro_f1.low <= macro <= found.macro_f1.high,
        )
        unweighted = sum(one.right for one in strata) / sum(one.reviews for one in strata)
        errors[number] = unweighted - accuracy, found.accuracy.value - accuracy
    return (*hits.mean(axis=0), *errors.mean(axis=0))


def test_the_unweighted_mean_is_far_off_and_the_estimate_is_not() -> None:
    _, _, unweighted, ours = coverage(auto_accuracy=0.97, audits=70, weeks=10)
    assert unweighted < -0.2  # the queue is reviewed nearly whole, and is what the machine finds hard
    assert abs(ours) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize(
    ("auto_accuracy", "audits", "accuracy_at_least", "macro_f1_at_least"),
    [
        (0.90, 70, 0.92, 0.86),
        (0.90, 300, 0.92, 0.86),
        (0.97, 70, 0.92, 0.84),
        (0.97, 300, 0.92, 0.86),
        (0.99, 70, 0.92, 0.90),
        (0.99, 300, 0.90, 0.82),
        (1.00, 70, 0.84, 0.90),
    ],
)
def test_the_truth_lies_in_the_interval_as_often_as_docs_accuracy_says(
    auto_accuracy: float, audits: int, accuracy_at_least: float, macro_f1_at_least: float
) -> None:
    accuracy, macro_f1, _, _ = coverage(auto_accuracy=auto_accuracy, audits=audits, weeks=300)
    print(f"{auto_accuracy} {audits}: accuracy {accuracy:.3f}, macro-F1 {macro_f1:.3f}")  # noqa: T201
    assert accuracy >= accuracy_at_least
    assert macro_f1 >= macro_f1_at_least
