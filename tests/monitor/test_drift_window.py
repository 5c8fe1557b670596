"""How nights differ by nature, and which of them are compared with."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest

from refund.monitor.dispersion import Dispersion, draw_pairs, estimate_dispersion
from refund.monitor.drift import DriftLimits, NightCounts, judge_night
from refund.monitor.drift_counts import VolumeChance
from refund.monitor.window_nights import choose_nights

SHARES = np.array([0.3, 0.2, 0.15, 0.12, 0.1, 0.07, 0.05, 0.01])
DAY = date(2026, 11, 21)
DATES = [DAY - timedelta(days=back) for back in range(1, 29)]
ONE_GROUP = np.zeros(28, dtype=np.int64)


def counts(random: np.random.Generator, concentration: float | None, *, nights: int = 28) -> Any:
    shares = SHARES if concentration is None else random.dirichlet(SHARES * concentration, nights)
    return random.multinomial(1_000, shares, nights if concentration is None else None)


@pytest.mark.parametrize("concentration", [50, 200, 2_000])
def test_the_estimate_meets_the_truth(concentration: float) -> None:
    random = np.random.default_rng(2)
    found = [estimate_dispersion(counts(random, concentration), ONE_GROUP, rare=5) for _ in range(40)]
    estimates = [one.estimate for one in found if one is not None]
    assert np.mean(estimates) == pytest.approx(1 / (1 + concentration), rel=0.1)


def test_the_belief_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(4)
    inside = 0
    for _ in range(200):
        found = estimate_dispersion(counts(random, 200, nights=6), ONE_GROUP[:6], rare=5)
        assert found is not None
        low, high = np.quantile(found.spread(2_000), [0.05, 0.95])
        inside += low <= 1 / 201 <= high
    assert 0.80 <= inside / 200 <= 0.97  # 0.9; standard error 0.02


def test_few_nights_leave_more_doubt_than_many() -> None:
    random = np.random.default_rng(6)
    table = counts(random, 200)
    many, few = estimate_dispersion(table, ONE_GROUP), estimate_dispersion(table[:3], ONE_GROUP[:3])
    assert many is not None
    assert few is not None
    assert np.std(few.spread(999)) > 2 * np.std(many.spread(999))


def test_chance_alone_is_0() -> None:
    random = np.random.default_rng(8)
    estimates = [estimate_dispersion(counts(random, None), ONE_GROUP) for _ in range(20)]
    assert np.median([one.estimate for one in estimates if one is not None]) < 2e-4


def test_weekdays_that_differ_are_not_taken_for_overdispersion() -> None:
    random = np.random.default_rng(9)
    weekdays = np.array([day.weekday() for day in DATES])
    busy = np.array([0.2, 0.3, *SHARES[2:]])
    table = np.stack([random.multinomial(1_000, busy if day == 5 else SHARES) for day in weekdays])
    whole, within = (estimate_dispersion(table, groups, rare=5) for groups in (ONE_GROUP, weekdays))
    assert whole is not None
    assert within is not None
    assert (whole.estimate or 0) > 10 * (within.estimate or 0)


@pytest.mark.parametrize("table", [[[50, 50]], [[1, 0], [0, 1]], [[50], [60]]])
def test_some_nights_say_nothing(table: list[list[int]]) -> None:
    assert estimate_dispersion(np.array(table), np.zeros(len(table), dtype=np.int64)) is None


def test_draws_have_the_variance_that_the_model_says() -> None:
    rho, photos, sizes = 1 / 201, 500, np.array([300, 800, 1_500])
    a, b = draw_pairs(
        np.random.default_rng(1),
        shares=SHARES,
        photos=photos,
        reference_sizes=sizes,
        dispersion=Dispersion.at(rho),
        draws=20_000,
    )
    assert (a.sum(axis=1) == photos).all()
    assert (b.sum(axis=1) == 2_600).all()
    one = SHARES * (1 - SHARES)
    assert (a / photos).var(axis=0) == pytest.approx(one / photos * (1 + (photos - 1) * rho), rel=0.06)
    summed = (sizes * (1 + (sizes - 1) * rho)).sum() / 2_600**2
    assert (b / 2_600).var(axis=0) == pytest.approx(one * summed, rel=0.06)


def test_the_same_weekday_is_taken_where_weekdays_differ() -> None:
    level = np.array([[1.0 if day.weekday() == 5 else 0.0] for day in DATES])
    basis = choose_nights(DAY, DATES, level + np.random.default_rng(1).normal(0, 0.1, (28, 1)))
    assert (basis.name, len(basis.used)) == ("same_weekday", 4)
    assert {DATES[index].weekday() for index in basis.used} == {DAY.weekday()}
    assert len(set(basis.groups.tolist())) == 7


def test_all_nights_are_taken_where_weekdays_do_not_differ_or_are_too_few() -> None:
    noise = np.random.default_rng(2).normal(size=(28, 3))
    assert choose_nights(DAY, DATES, noise).name == "all_nights"
    assert choose_nights(DAY, DATES, np.ones((28, 1))).name == "all_nights"
    level = np.array([[1.0 if day.weekday() == 5 else 0.0] for day in DATES])
    assert choose_nights(DAY, DATES[:27], level[:27]).name == "all_nights"  # three of this weekday


def test_weekdays_alike_are_seldom_taken_for_different() -> None:
    random = np.random.default_rng(3)
    chosen = [choose_nights(DAY, DATES, random.normal(size=(28, 5))).name for _ in range(400)]
    assert chosen.count("same_weekday") <= 12  # 4 expected


def test_a_busy_weekday_is_compared_with_its_like() -> None:
    random = np.random.default_rng(5)

    def one(day: date) -> NightCounts:
        photos = random.poisson(2_400 if day.weekday() == 5 else 800)
        return NightCounts(run_date=day, categories={"shoes": int(photos)}, rejected=0)

    *_, volume, _ = judge_night(one(DAY), [one(day) for day in DATES], limits=DriftLimits(), draws=999)
    assert (volume.status.value, volume.basis, volume.reference_nights) == ("ok", "same_weekday", 4)
    assert volume.nights == ("2026-10-24", "2026-10-31", "2026-11-07", "2026-11-14")
    usual = NightCounts(run_date=DAY, categories={"shoes": 800}, rejected=0)  # usual on any other day
    *_, volume, _ = judge_night(usual, [one(day) for day in DATES], limits=DriftLimits(), draws=999)
    assert volume.status.value == "drift"


def test_the_volume_threshold_is_what_students_t_says() -> None:
    chance = VolumeChance(scale=0.1, freedom=27)
    distance = chance.exceeded_at(0.004)
    assert distance == pytest.approx(1 - np.exp(-0.1 * 3.147), abs=2e-3)  # t(27) exceeds 3.147 with probability 0.002
    assert chance.p_value(np.log(1 - distance)) == pytest.approx(0.004)
