"""Percentiles from counts that shards keep: as exact as they say, whatever the times and however they are split."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from refund.monitor.latency import BUCKETS, RELATIVE_ERROR, Latencies
from refund.monitor.stage_metrics import StageMetrics

RNG = np.random.default_rng(20_261_123)
SHAPES = {
    "like photos": RNG.lognormal(2.3, 0.4, 20_000),
    "with a long tail": np.concatenate([RNG.lognormal(2.3, 0.4, 9_900), RNG.uniform(2_000, 40_000, 100)]),
    "in two groups": np.concatenate([RNG.normal(3, 0.1, 5_000), RNG.normal(15, 0.5, 5_000)]),
    "all the same": np.full(1_000, 4.0),
    "one photo": np.array([7.25]),
    "from a microsecond to a day": np.geomspace(0.001, 86_400_000, 3_000),
}


def nearest_rank(times: np.ndarray, percent: float) -> float:
    return float(np.sort(times)[math.ceil(percent / 100 * len(times)) - 1])


@pytest.mark.parametrize("times", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("percent", [1, 50, 95, 99, 99.9, 100])
def test_a_percentile_of_merged_shards_is_within_the_stated_error_of_the_exact_one(
    times: np.ndarray, percent: float
) -> None:
    parts = np.array_split(RNG.permutation(times), 7)
    merged = Latencies.merged(Latencies.of(part) for part in parts)
    exact = nearest_rank(times, percent)
    assert merged.percentile_ms(percent) == pytest.approx(exact, rel=RELATIVE_ERROR * 1.0001)
    assert (merged.photos, merged.max_ms) == (len(times), times.max())


def test_merging_loses_nothing_in_whatever_order() -> None:
    times = SHAPES["with a long tail"]
    parts = [Latencies.of(part) for part in np.array_split(times, 5)]
    assert Latencies.merged(parts) == Latencies.merged(reversed(parts)) == Latencies.of(times)
    assert Latencies.merged([*parts, Latencies()]) == Latencies.of(times)


def test_it_is_small_whatever_the_night_held() -> None:
    kept = json.dumps(Latencies.of(SHAPES["from a microsecond to a day"]).to_json())
    assert BUCKETS < 1_300
    assert len(Latencies.of([0.0, *SHAPES["from a microsecond to a day"], 1e12]).counts) <= BUCKETS
    assert len(kept) < 25_000
    assert len(json.dumps(Latencies.of(SHAPES["like photos"]).to_json())) < 3_000


def test_it_comes_back_from_json_as_it_was() -> None:
    latencies = Latencies.of(SHAPES["in two groups"])
    assert Latencies.from_json(json.loads(json.dumps(latencies.to_json()))) == latencies


@pytest.mark.parametrize(
    "values",
    [
        None,
        {},
        {"counts": [], "max_ms": 1.0},
        {"counts": {"x": 1}, "max_ms": 1.0},
        {"counts": {"3": -1}, "max_ms": 1.0},
        {"counts": {"99999": 1}, "max_ms": 1.0},
        {"counts": {"3": 1}, "max_ms": math.nan},
    ],
)
def test_what_is_no_count_of_latencies_is_refused(values: object) -> None:
    with pytest.raises(ValueError, match=r"latenc|invalid literal"):
        Latencies.from_json(values)


@pytest.mark.parametrize("time_ms", [-1.0, math.nan, math.inf])
def test_a_time_that_cannot_be_is_refused(time_ms: float) -> None:
    with pytest.raises(ValueError, match=r"latencies are 0 ms or more, got \["):
        Latencies.of([1.0, time_ms])


def test_no_photos_have_no_percentile() -> None:
    assert Latencies.of([]).percentile_ms(50) is None
    with pytest.raises(ValueError, match="above 0 and is at most 100, got 0"):
        Latencies.of([1.0]).percentile_ms(0)


def test_a_stage_tells_its_figures_by_the_names_that_reports_read() -> None:
    stage = StageMetrics(seconds=2.0, photos=4, failed=1, latencies=Latencies.of([10.0, 10.0, 10.0, 400.0]))
    told = stage.to_json()
    assert {name: told[name] for name in ("seconds", "photos", "failed", "photos_per_second", "error_rate")} == {
        "seconds": 2.0,
        "photos": 4,
        "failed": 1,
        "photos_per_second": 2.0,
        "error_rate": 0.25,
    }
    assert told["p50_ms"] == pytest.approx(10, rel=RELATIVE_ERROR)
    assert told["p95_ms"] == told["p99_ms"] == pytest.approx(400, rel=RELATIVE_ERROR)
    assert told["max_ms"] == 400.0


def test_what_a_stage_cannot_say_is_null() -> None:
    assert StageMetrics(seconds=0.5).to_json() == {
        "seconds": 0.5, "photos": None, "failed": None, "photos_per_second": None, "error_rate": None,
        "p50_ms": None, "p95_ms": None, "p99_ms": None, "max_ms": None,
    }  # fmt: skip
    empty = StageMetrics(seconds=0.0, photos=0, failed=0, latencies=Latencies()).to_json()
    assert (empty["photos"], empty["photos_per_second"], empty["error_rate"], empty["p50_ms"]) == (0, None, None, None)


@pytest.mark.parametrize(("photos", "failed"), [(2, 3), (2, -1), (None, 1), (2, None)])
def test_more_failures_than_photos_are_refused(photos: int | None, failed: int | None) -> None:
    with pytest.raises(ValueError, match=f"from none to all, got {failed} of {photos}"):
        StageMetrics(seconds=1, photos=photos, failed=failed)
