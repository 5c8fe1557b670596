"""The distance of shares: formula, folding, and what is large, certain, or both."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from refund.monitor.drift import DriftResult, DriftStatus, compare_shares
from refund.monitor.drift_shares import folded_distance, largest_change

USUAL = {"shoes": 400, "clothing": 900, "electronics": 500, "toys": 150, "not_a_product": 50}
NAMES = st.sampled_from(["shoes", "clothing", "toys", "electronics", "bags_luggage", "kitchen", "not_a_product"])
COUNTS = st.dictionaries(NAMES, st.integers(0, 5_000), min_size=1).filter(lambda counts: sum(counts.values()) > 0)


def compare(tonight: dict[str, int], reference: list[dict[str, int]], *, min_photos: int = 100) -> DriftResult:
    return compare_shares(tonight, reference, distance_floor=0.1, min_photos=min_photos, draws=999)


def distance(a: dict[str, int], b: dict[str, int]) -> float:
    found = compare(a, [b], min_photos=1).distance
    assert found is not None
    return found


@settings(max_examples=30, deadline=None)
@given(a=COUNTS, b=COUNTS)
def test_distance_is_symmetric_and_lies_in_0_to_1(a: dict[str, int], b: dict[str, int]) -> None:
    assert distance(a, b) == pytest.approx(distance(b, a), abs=1e-7)
    assert 0.0 <= distance(a, b) <= 1.0


@settings(max_examples=30, deadline=None)
@given(counts=COUNTS, times=st.integers(1, 30))
def test_equal_shares_are_0_apart_however_many_photos(counts: dict[str, int], times: int) -> None:
    result = compare(counts, [counts] * times, min_photos=1)
    assert result.distance == pytest.approx(0.0, abs=1e-7)
    assert result.total_variation == pytest.approx(0.0, abs=1e-12)
    assert result.p_value == 1.0
    assert result.status is DriftStatus.OK


def test_distance_equals_the_formula_worked_by_hand() -> None:
    p, q = (0.5, 0.5), (0.9, 0.1)
    middle = [(x + y) / 2 for x, y in zip(p, q, strict=True)]

    def divergence(r: tuple[float, float]) -> float:
        return sum(x * math.log2(x / m) for x, m in zip(r, middle, strict=True))

    by_hand = math.sqrt((divergence(p) + divergence(q)) / 2)
    assert distance({"a": 500, "b": 500}, {"a": 900, "b": 100}) == pytest.approx(by_hand, rel=1e-12)


def test_distance_equals_scipys_where_nothing_is_folded() -> None:
    random = np.random.default_rng(1)
    a, b = (random.multinomial(50_000, random.dirichlet(np.full(9, 8.0)), size=40) for _ in range(2))
    assert folded_distance(a, b) == pytest.approx(jensenshannon(a, b, base=2, axis=1), rel=1e-9)


def test_shares_without_overlap_are_1_apart() -> None:
    assert distance({"a": 500}, {"b": 300}) == pytest.approx(1.0)


def test_folding_works_row_by_row() -> None:
    ours = np.array([[90, 10, 0], [98, 1, 1]])
    theirs = np.array([[90, 10, 0], [98, 0, 2]])
    assert folded_distance(ours, theirs).tolist() == [0.0, 0.0]  # in the second row both small ones are folded
    assert largest_change(ours, theirs).tolist() == [0.0, 0.01]


def test_a_shifted_night_is_drift_and_says_what_moved() -> None:
    result = compare({**USUAL, "shoes": 1600, "clothing": 300}, [USUAL] * 28)
    assert result.status is DriftStatus.DRIFT
    assert result.p_value == pytest.approx(1 / 1_000)
    assert [move.category for move in result.moves[:2]] == ["shoes", "clothing"]
    assert result.moves[0].change == pytest.approx(1600 / 2600 - 0.2)
    assert result.total_variation == pytest.approx(result.moves[0].change)  # every other category lost
    assert (result.tonight_photos, result.reference_photos, result.reference_nights) == (2600, 56_000, 28)


def test_a_certain_but_small_change_is_not_drift() -> None:
    many = {name: count * 100 for name, count in USUAL.items()}
    result = compare({**many, "shoes": 43_000}, [many] * 28)
    assert result.p_value == pytest.approx(1 / 1_000)
    assert result.status is DriftStatus.OK
    assert result.threshold == 0.1  # the floor, because chance stays far below it


def test_a_large_but_uncertain_change_is_not_drift() -> None:
    result = compare({"a": 12, "b": 8}, [{"a": 8, "b": 12}], min_photos=20)
    assert result.distance is not None
    assert result.distance > 0.1
    assert result.status is DriftStatus.OK
    assert result.threshold is not None
    assert result.threshold > 0.1  # what chance reaches with 20 photos


def test_exactly_min_photos_are_judged() -> None:
    assert compare({"shoes": 100}, [{"shoes": 100}]).status is DriftStatus.OK
    assert compare({"shoes": 99}, [{"shoes": 100}]).status is DriftStatus.INSUFFICIENT_DATA


def test_rare_categories_are_folded_but_keep_their_moves() -> None:
    rare = {f"rare_{n}": 2 for n in range(10)}
    result = compare({**USUAL, **rare}, [{**USUAL, "seldom": 3}])
    assert result.folded == (*sorted(rare), "seldom")
    assert {move.category for move in result.moves} >= {*rare, "seldom"}


def test_a_category_that_is_new_in_numbers_is_not_folded_away() -> None:
    result = compare({**USUAL, "furniture": 70}, [USUAL] * 28)
    assert "furniture" not in result.folded
    assert result.status is DriftStatus.DRIFT
