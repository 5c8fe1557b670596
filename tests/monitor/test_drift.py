"""A night judged by all measures: statuses, thresholds, the share of alpha, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refund.monitor.drift import (
    MEASURES,
    DriftLimits,
    DriftResult,
    DriftStatus,
    NightCounts,
    compare_shares,
    judge_night,
)
from refund.monitor.drift_family import MIX_PART, REJECTIONS_PART, VOLUME_PART

DAY = date(2026, 11, 21)
USUAL = {"shoes": 400, "clothing": 900, "electronics": 500, "toys": 150, "not_a_product": 50}
NO_FLOORS = DriftLimits(distance_floor=0, move_floor=0, volume_floor=0, rejection_floor=0, min_photos=1)


def night(categories: Mapping[str, int], rejected: int = 0, *, back: int = 0) -> NightCounts:
    return NightCounts(run_date=DAY - timedelta(days=back), categories=categories, rejected=rejected)


def ordinary_window(nights: int = 28, *, photos: int = 2_000) -> list[NightCounts]:
    """Nights that differ by chance alone."""
    random = np.random.default_rng(3)
    shares = np.array(list(USUAL.values())) / sum(USUAL.values())
    counts = random.multinomial(random.poisson(photos, nights), shares)
    refused = random.poisson(photos * 0.02, nights)
    return [
        night(dict(zip(USUAL, row, strict=True)), int(more), back=back)
        for back, (row, more) in enumerate(zip(counts.tolist(), refused, strict=True), start=1)
    ]


def judge(
    tonight: NightCounts, window: list[NightCounts], limits: DriftLimits | None = None, **over: Any
) -> dict[str, DriftResult]:
    results = judge_night(tonight, window, limits=limits or DriftLimits(), **{"draws": 999, **over})
    assert tuple(result.measure for result in results) == MEASURES
    return {result.measure: result for result in results}


def statuses(results: Mapping[str, DriftResult]) -> list[str]:
    return [results[measure].status.value for measure in MEASURES]


def test_an_ordinary_night_is_ok_by_every_measure() -> None:
    results = judge(night(USUAL, 41), ordinary_window())
    assert statuses(results) == ["ok"] * 4
    assert {result.basis for result in results.values()} == {"all_nights"}
    assert all(len(result.nights) == result.reference_nights == 28 for result in results.values())
    assert results["volume"].nights[-1] == "2026-11-20"
    assert results["volume"].tonight_photos == 2_041  # with the rejected ones
    assert results["category_shares"].tonight_photos == 2_000


def test_each_measure_finds_its_own_drift_alone() -> None:
    window = ordinary_window()
    moved = {**USUAL, "shoes": 640, "clothing": 660}
    assert statuses(judge(night(moved, 41), window)) == ["drift", "drift", "ok", "ok"]
    half = {name: count // 2 for name, count in USUAL.items()}
    assert statuses(judge(night(half, 20), window)) == ["ok", "ok", "drift", "ok"]
    assert statuses(judge(night(USUAL, 160), window)) == ["ok", "ok", "ok", "drift"]


def test_results_say_what_moved_from_where_to_where() -> None:
    results = judge(night({**USUAL, "shoes": 560, "clothing": 740}, 160), ordinary_window())
    largest = results["largest_move"]
    (move,) = largest.moves
    assert move.category in ("shoes", "clothing")
    assert (largest.tonight_value, largest.reference_value) == (move.tonight_share, move.reference_share)
    assert largest.distance == abs(move.change)
    assert results["category_shares"].moves[0] == move
    assert results["category_shares"].total_variation == pytest.approx(
        sum(abs(move.change) for move in results["category_shares"].moves) / 2
    )
    rejected = results["rejection_rate"]
    assert rejected.tonight_value == pytest.approx(160 / 2_160)
    assert rejected.reference_value == pytest.approx(0.02, rel=0.05)
    volume = results["volume"]
    assert volume.tonight_value == 2_160
    assert volume.reference_value == pytest.approx(2_040, rel=0.02)


NAMES = st.sampled_from(["shoes", "clothing", "toys", "electronics", "bags_luggage", "kitchen", "not_a_product"])
COUNTS = st.dictionaries(NAMES, st.integers(0, 2_000), min_size=1)
NIGHTS = st.lists(st.tuples(COUNTS, st.integers(0, 300)), min_size=0, max_size=12)


def built(rows: list[tuple[dict[str, int], int]]) -> list[NightCounts]:
    return [night(counts, rejected, back=back) for back, (counts, rejected) in enumerate(rows, start=1)]


@settings(max_examples=40, deadline=None)
@given(tonight=COUNTS, rejected=st.integers(0, 300), rows=NIGHTS, floors=st.booleans())
def test_it_is_drift_exactly_where_the_distance_exceeds_the_stored_threshold(
    tonight: dict[str, int], rejected: int, rows: list[tuple[dict[str, int], int]], floors: bool
) -> None:
    limits = DriftLimits() if floors else NO_FLOORS
    for result in judge(night(tonight, rejected), built(rows), limits).values():
        judged = result.status in (DriftStatus.OK, DriftStatus.DRIFT)
        assert judged is (result.distance is not None) is (result.threshold is not None)
        assert (result.floor, result.alpha) == (limits.floor(result.measure), limits.alpha)
        if result.distance is None or result.threshold is None or result.chance is None:
            assert (result.p_value, result.moves, result.chance) == (None, (), None)
            continue
        assert result.p_value is not None
        assert result.alpha_part is not None
        assert 0.0 <= result.distance <= 1.0
        assert result.threshold == max(result.chance, limits.floor(result.measure))
        assert (result.status is DriftStatus.DRIFT) == (result.distance > result.threshold)
        if result.status is DriftStatus.DRIFT:
            assert result.p_value <= result.alpha_part + 1e-9


@settings(max_examples=25, deadline=None)
@given(tonight=COUNTS, rows=NIGHTS, data=st.data())
def test_neither_order_nor_names_of_categories_play_a_part(
    tonight: dict[str, int], rows: list[tuple[dict[str, int], int]], data: st.DataObject
) -> None:
    names = sorted({name for counts, _ in [(tonight, 0), *rows] for name in counts})
    renamed = dict(zip(names, data.draw(st.permutations([f"x{number}" for number in range(len(names))])), strict=True))

    def other(counts: dict[str, int]) -> dict[str, int]:
        return {renamed[name]: counts[name] for name in reversed(counts)}

    ours = judge(night(tonight, 5), built(rows), NO_FLOORS)
    theirs = judge(
        night(other(tonight), 5), list(reversed(built([(other(counts), more) for counts, more in rows]))), NO_FLOORS
    )
    for measure in MEASURES:
        a, b = ours[measure], theirs[measure]
        assert (a.status, a.nights, a.basis) == (b.status, b.nights, b.basis)
        for name in ("distance", "threshold", "p_value", "overdispersion", "total_variation", "tonight_photos"):
            assert getattr(a, name) == pytest.approx(getattr(b, name), abs=1e-9), name


def test_alpha_is_spent_once() -> None:
    assert math.isclose(MIX_PART + VOLUME_PART + REJECTIONS_PART, 1.0)
    results = judge(night(USUAL, 41), ordinary_window(), DriftLimits(alpha=0.05), draws=9_999)
    parts = {measure: result.alpha_part or 0.0 for measure, result in results.items()}
    assert (parts["volume"], parts["rejection_rate"]) == pytest.approx((0.01, 0.01))
    mix = parts["category_shares"] + parts["largest_move"]
    assert 0.03 <= mix < 0.04  # more than the family's part: nights that exceed both count once
    assert parts["largest_move"] == pytest.approx(2 * parts["category_shares"], rel=0.02)


def test_a_smaller_alpha_asks_for_more() -> None:
    strict, loose = (
        judge(night(USUAL, 41), ordinary_window(), replace(NO_FLOORS, alpha=alpha)) for alpha in (0.01, 0.2)
    )
    for measure in MEASURES:
        assert (strict[measure].threshold or 0) > (loose[measure].threshold or 0) > 0


def test_nights_that_differ_by_nature_widen_what_chance_may_do() -> None:
    random = np.random.default_rng(5)
    shares = np.array(list(USUAL.values())) / sum(USUAL.values())
    wild = random.multinomial(2_000, random.dirichlet(shares * 100, 28))
    window = [night(dict(zip(USUAL, row, strict=True)), 40, back=back) for back, row in enumerate(wild.tolist(), 1)]
    calm, rough = (judge(night(USUAL, 41), nights)["largest_move"] for nights in (ordinary_window(), window))
    assert (calm.overdispersion or 0) < 0.001
    assert rough.overdispersion == pytest.approx(1 / 101, rel=0.5)
    assert rough.threshold is not None
    assert calm.threshold is not None
    assert rough.threshold > 3 * calm.threshold


@pytest.mark.parametrize("window", [[], [night({}, back=1)], [night({"shoes": 0}, back=1), night({}, back=2)]])
def test_without_earlier_photos_there_is_no_reference(window: list[NightCounts]) -> None:
    results = judge(night(USUAL), window)
    assert statuses(results) == ["no_reference"] * 4
    for result in results.values():
        assert (result.distance, result.threshold, result.p_value, result.moves) == (None, None, None, ())
        assert (result.reference_photos, result.reference_nights, result.nights) == (0, 0, ())
        assert (result.floor is not None, result.alpha) == (True, 0.02)


def test_nights_without_photos_are_no_reference_beside_others() -> None:
    empty = [night({}, back=back) for back in range(29, 40)]
    for measure, result in judge(night(USUAL, 41), [*ordinary_window(), *empty]).items():
        assert result == judge(night(USUAL, 41), ordinary_window())[measure]


def test_a_night_of_three_photos_lacks_data_for_shares_and_is_drift_of_volume() -> None:
    results = judge(night({"shoes": 2}, 1), ordinary_window())
    assert statuses(results) == ["insufficient_data", "insufficient_data", "drift", "insufficient_data"]
    assert results["category_shares"].reference_nights == 28  # there was something to compare with


def test_a_night_without_photos_is_as_far_in_volume_as_can_be() -> None:
    results = judge(night({}), ordinary_window())
    assert statuses(results) == ["insufficient_data", "insufficient_data", "drift", "insufficient_data"]
    assert results["volume"].distance == 1.0


def test_a_window_of_few_photos_lacks_data() -> None:
    assert statuses(judge(night(USUAL), [night({"shoes": 60}, back=1)])) == ["insufficient_data"] * 4


def test_one_category_only_is_ok() -> None:
    results = judge(night({"shoes": 510}), [night({"shoes": 500 + 3 * back}, back=back) for back in range(1, 9)])
    assert statuses(results) == ["ok"] * 4
    assert (results["category_shares"].distance, results["category_shares"].p_value) == (0.0, 1.0)


def test_one_night_alone_cannot_show_how_nights_differ_so_it_is_assumed() -> None:
    results = judge(night(USUAL, 41), ordinary_window(1))
    assert statuses(results) == ["ok"] * 4
    for result in results.values():
        assert result.overdispersion is None
        assert result.overdispersion_assumed == (0.09 if result.measure == "volume" else 1 / 201)
        assert result.details()["overdispersion_assumed"] == result.overdispersion_assumed
    several = judge(night(USUAL, 41), ordinary_window(5))
    assert all(result.overdispersion_assumed is None for result in several.values())
    assert (results["largest_move"].threshold or 0) > 2 * (several["largest_move"].threshold or 1)


def test_the_same_figures_give_the_same_results() -> None:
    assert judge(night(USUAL, 41), ordinary_window()) == judge(night(USUAL, 41), ordinary_window())


def test_results_survive_json() -> None:
    for result in judge(night({**USUAL, "toys": 700}, 41), ordinary_window()).values():
        assert json.loads(json.dumps(result.details())) == result.details()
        assert DriftResult.from_dict(json.loads(json.dumps(asdict(result)))) == result
        older = {name: value for name, value in asdict(result).items() if name not in ("nights", "basis", "chance")}
        assert DriftResult.from_dict(older).nights == ()


@pytest.mark.parametrize("bad", [-1, math.nan, 0.5, math.inf])
def test_counts_that_cannot_be_are_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match=rf"^2026-11-21: photos of 'a' must be a whole number from 0 up, got {bad!r}$"):
        night({"a": bad})
    with pytest.raises(ValueError, match=r"^2026-11-20: rejected photos must be a whole number from 0 up, got"):
        night({"a": 1}, bad, back=1)


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"distance_floor": 1.5}, "distance_floor must lie in 0..1, got 1.5"),
        ({"move_floor": math.nan}, "move_floor must lie in 0..1, got nan"),
        ({"volume_floor": -0.1}, "volume_floor must lie in 0..1, got -0.1"),
        ({"rejection_floor": 2}, "rejection_floor must lie in 0..1, got 2"),
        ({"min_photos": 0}, "min_photos must be at least 1, got 0"),
        ({"alpha": 0.0}, "alpha must lie between 0 and 1, got 0.0"),
        ({"alpha": math.nan}, "alpha must lie between 0 and 1, got nan"),
    ],
)
def test_limits_out_of_range_are_refused(limits: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole text is compared below
        DriftLimits(**limits)
    assert str(caught.value) == text


def test_too_few_draws_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^a rate of 0\.0006 needs at least 1666 draws, got 999$"):
        judge(night(USUAL), ordinary_window(), DriftLimits(alpha=0.001))


def test_a_window_holds_earlier_nights_once() -> None:
    with pytest.raises(ValueError, match=r"^the window of 2026-11-21 must hold earlier nights only, got 2026-11-21$"):
        judge(night(USUAL), [night(USUAL)])
    with pytest.raises(ValueError, match=r"^the window of 2026-11-21 must hold a night once, got 2026-11-18 2 times$"):
        judge(night(USUAL), [night(USUAL, back=3), night(USUAL, back=3)])


def test_shares_without_dates_are_judged_alike() -> None:
    window = ordinary_window()
    dated = judge(night(USUAL), [replace(one, rejected=0) for one in window])["category_shares"]
    plain = compare_shares(
        USUAL, [one.categories for one in reversed(window)], distance_floor=0.1, min_photos=100, draws=999
    )
    assert (plain.distance, plain.threshold, plain.status) == (dated.distance, dated.threshold, dated.status)
