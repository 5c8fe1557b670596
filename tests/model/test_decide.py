from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from refund.errors import FatalRunError
from refund.model.decide import ScoredPhoto, decide
from refund.records import DecisionKind, ReviewReason
from tests.model.factories import make_labels, make_taxonomy

LABELS = make_labels("running_shoe", "sandal", "jersey", "tench")
TAXONOMY = make_taxonomy(LABELS, "shoes", "shoes", "clothing", "not_a_product")


def judge(*row: float, declared: str | None = None, threshold: float = 0.5, top_k: int = 2) -> ScoredPhoto:
    (scored,) = decide(
        np.array([row], dtype=np.float32),
        labels=LABELS,
        taxonomy=TAXONOMY,
        top_k=top_k,
        threshold=threshold,
        declared=[declared],
    )
    return scored


def test_the_category_is_the_largest_sum_not_that_of_the_top_class() -> None:
    scored = judge(0.3, 0.3, 0.4, 0.0)
    assert scored.top[0].class_name == "jersey"
    assert scored.top[0].confidence == pytest.approx(0.4)
    assert scored.decision.category == "shoes"
    assert scored.decision.score == pytest.approx(0.6)
    assert scored.decision.kind is DecisionKind.AUTO
    assert scored.decision.reasons == ()
    assert [(s.category, round(s.score, 6)) for s in scored.category_scores[:2]] == [("shoes", 0.6), ("clothing", 0.4)]
    assert len(scored.category_scores) == len(TAXONOMY.categories)


@pytest.mark.parametrize(
    ("row", "declared", "reasons"),
    [
        ((0.9, 0.0, 0.1, 0.0), None, ()),
        ((0.9, 0.0, 0.1, 0.0), "shoes", ()),
        ((0.9, 0.0, 0.1, 0.0), "clothing", (ReviewReason.DECLARED_MISMATCH,)),
        ((0.2, 0.2, 0.35, 0.25), None, (ReviewReason.LOW_SCORE,)),
        ((0.0, 0.0, 0.1, 0.9), None, (ReviewReason.NOT_A_PRODUCT,)),
        (
            (0.2, 0.1, 0.3, 0.4),
            "shoes",
            (ReviewReason.LOW_SCORE, ReviewReason.NOT_A_PRODUCT, ReviewReason.DECLARED_MISMATCH),
        ),
    ],
)
def test_every_reason_for_review_is_given(
    row: tuple[float, ...], declared: str | None, reasons: tuple[ReviewReason, ...]
) -> None:
    decision = judge(*row, declared=declared).decision
    assert decision.reasons == reasons
    assert decision.kind is (DecisionKind.REVIEW if reasons else DecisionKind.AUTO)


def test_a_score_at_the_threshold_needs_no_review() -> None:
    assert judge(0.5, 0.0, 0.25, 0.25, threshold=0.5).decision.kind is DecisionKind.AUTO


def test_equal_scores_come_in_a_fixed_order() -> None:
    scored = judge(0.25, 0.25, 0.5, 0.0, top_k=4)
    assert [s.class_name for s in scored.top] == ["jersey", "running_shoe", "sandal", "tench"]
    assert scored.decision.category == "clothing"  # alphabetical


def test_more_than_all_classes_are_all_classes() -> None:
    assert len(judge(0.25, 0.25, 0.25, 0.25, top_k=10).top) == 4


def test_no_photos_give_no_decisions() -> None:
    none = np.zeros((0, 4), dtype=np.float32)
    assert decide(none, labels=LABELS, taxonomy=TAXONOMY, top_k=5, threshold=0.5, declared=[]) == []


def test_a_rounding_error_below_zero_is_zero() -> None:
    scored = judge(1.00001, -0.00001, 0.0, -0.0, top_k=4)
    assert [s.confidence for s in scored.top] == pytest.approx([1, 0, 0, 0])
    assert [s.class_name for s in scored.top] == ["running_shoe", "sandal", "jersey", "tench"]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ((float("nan"), 0.5, 0.5, 0.0), "adds up to nan"),
        ((float("inf"), 0.0, 0.0, 0.0), "adds up to inf"),
        ((float("inf"), float("-inf"), 0.0, 0.0), "adds up to nan, its smallest value is -inf"),
        ((0.5, 0.2, 0.0, 0.0), "adds up to 0.7"),
        ((1.5, -0.5, 0.0, 0.0), "its smallest value is -0.5"),
    ],
)
def test_what_is_no_distribution_stops_the_run_and_names_the_row(row: tuple[float, ...], expected: str) -> None:
    good = (0.25, 0.25, 0.25, 0.25)
    rows = np.array([good, good, row], dtype=np.float32)
    with pytest.raises(FatalRunError) as caught:
        decide(rows, labels=LABELS, taxonomy=TAXONOMY, top_k=1, threshold=0.5, declared=[None] * 3)
    assert str(caught.value).startswith("row 2 of 3 is no probability distribution: ")
    assert expected in str(caught.value)
    with pytest.raises(
        FatalRunError, match=r"^row 2 of 3 of model tiny@1, for 'c\.jpg', is no probability distribution: "
    ):
        decide(
            rows, labels=LABELS, taxonomy=TAXONOMY, top_k=1, threshold=0.5, declared=[None] * 3, model="tiny@1",
            names=["a.jpg", "b.jpg", "c.jpg"],
        )  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "declared", "top_k", "threshold", "expected"),
    [
        ((1, 3), [None], 1, 0.5, r"probabilities must be \(N, 4\), one column per label, got shape \(1, 3\)"),
        ((1, 4), [], 1, 0.5, "1 photos but 0 declared categories"),
        ((1, 4), [None], 0, 0.5, "top_k must be 1 or more"),
        ((1, 4), [None], 1, float("nan"), r"threshold lie in 0..1, got 1 and nan"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    shape: tuple[int, int], declared: list[str | None], top_k: int, threshold: float, expected: str
) -> None:
    with pytest.raises(ValueError, match=expected):
        decide(
            np.full(shape, 0.25), labels=LABELS, taxonomy=TAXONOMY, top_k=top_k, threshold=threshold, declared=declared
        )


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    raw=arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.just(4)),
        elements=st.sampled_from([0.0, 1e-30, 0.125, 0.25, 1.0, 3.0]) | st.floats(0, 8, width=32),
    ),
    top_k=st.integers(1, 4),
)
def test_scores_add_up_and_the_top_agrees_with_a_plain_sort(raw: np.ndarray, top_k: int) -> None:
    raw[:, 0] += np.float32(0.5)  # no row of zeros
    rows = raw / raw.sum(axis=1, keepdims=True)
    scored = decide(rows, labels=LABELS, taxonomy=TAXONOMY, top_k=top_k, threshold=0.5, declared=[None] * len(rows))
    for row, photo in zip(rows, scored, strict=True):
        assert sum(s.score for s in photo.category_scores) == pytest.approx(1.0)
        assert [s.score for s in photo.category_scores] == sorted(
            (s.score for s in photo.category_scores), reverse=True
        )
        assert photo.decision.score == photo.category_scores[0].score
        plain = sorted(range(4), key=lambda index: (-row[index], index))[:top_k]
        assert [s.class_id for s in photo.top] == [LABELS.class_ids[index] for index in plain]
