"""Planning and parameters: whatever is listed, each photo is planned once."""

from __future__ import annotations

import dataclasses
import json
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from uuid import UUID

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refund import keys
from refund.errors import SettingsError
from refund.night.fetch import listed_dates, overlooked_dates, plan_shards
from refund.night.services import NightRun
from refund.night.staged import MANIFEST_FILE, manifest_photos, read_manifest, write_manifest
from refund.params import NightParams
from refund.records import PhotoObject
from tests.properties.conftest import examples

DAYS = st.dates(date(2001, 1, 1), date(2099, 12, 31))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
PHOTOS = st.builds(
    PhotoObject,
    photo_id=st.uuids(),
    photo_date=st.dates(),
    bucket=st.sampled_from(["b", "returns-2026"]),
    key=TEXTS,
    etag=TEXTS,
    size_bytes=st.integers(0, 5 * 2**40),
    refund_id=st.none() | TEXTS,
    declared_category=st.none() | TEXTS,
)


def photo(number: int) -> PhotoObject:
    return PhotoObject(
        photo_id=UUID(int=number),
        photo_date=date(2026, 11, 21),
        bucket="b",
        key=f"incoming/2026-11-21/R/{number}.jpg",
        etag="e",
        size_bytes=1,
        refund_id=None,
        declared_category=None,
    )


# --- plan_shards ---------------------------------------------------------------------------------------------------


@given(
    numbers=st.lists(st.integers(0, 60), max_size=80),  # some twice: a listing that says so is reconciled, not hidden
    standing=st.sets(st.integers(0, 60)),
    shard_size=st.integers(1, 130),
)
@examples(100)
def test_a_plan_is_a_partition_in_order_and_even(numbers: list[int], standing: set[int], shard_size: int) -> None:
    photos = [photo(number) for number in numbers]
    plan = plan_shards(photos, standing={UUID(int=number) for number in standing}, shard_size=shard_size)
    planned = [item for shard in plan.shards for item in shard]
    assert planned == [item for item in photos if item.photo_id.int not in standing]
    assert list(plan.unchanged) == [item for item in photos if item.photo_id.int in standing]
    assert (plan.to_do_count, plan.photo_count) == (len(planned), len(photos))
    sizes = [len(shard) for shard in plan.shards]
    assert all(1 <= size <= shard_size for size in sizes)
    assert max(sizes, default=0) - min(sizes, default=0) <= 1
    assert len(sizes) == -(-len(planned) // shard_size)  # no more shards than needed


@given(count=st.integers(1, 10**6), shard_size=st.integers(1, 100_000))
@examples(10)
def test_no_photo_is_lost_in_rounding_at_any_size(count: int, shard_size: int) -> None:
    photos = [photo(0)] * count
    at_most = max(shard_size, count // 500)
    sizes = [len(shard) for shard in plan_shards(photos, standing=set(), shard_size=at_most).shards]
    assert sum(sizes) == count
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= at_most


# --- dates ---------------------------------------------------------------------------------------------------------


@given(run_date=DAYS, late_days=st.integers(0, 60))
@examples(100)
def test_a_night_looks_at_its_date_and_the_days_before_without_a_gap(run_date: date, late_days: int) -> None:
    days = listed_dates(run_date, late_days=late_days)
    assert len(days) == late_days + 1
    assert days[-1] == run_date
    assert all(later - earlier == timedelta(days=1) for earlier, later in pairwise(days))


NEAR = st.dates(date(2026, 10, 1), date(2026, 12, 31))


@given(
    run_date=NEAR,
    late_days=st.integers(0, 10),
    dates=st.sets(NEAR, max_size=20),
    looked_at=st.lists(st.tuples(NEAR, st.integers(0, 10)), max_size=6),
)
@examples(100)
def test_a_date_is_overlooked_exactly_where_no_night_lists_it(
    run_date: date, late_days: int, dates: set[date], looked_at: list[tuple[date, int]]
) -> None:
    run = NightRun(run_id="r", run_date=run_date, params=NightParams(late_days=late_days))
    found = overlooked_dates(dates, run=run, looked_at=looked_at)
    listed = set(listed_dates(run_date, late_days=late_days))
    for night, late in looked_at:
        listed |= set(listed_dates(night, late_days=late))
    assert found == sorted(day for day in dates if day not in listed and day < run_date)


# --- manifests -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("manifest")


@given(photos=st.lists(PHOTOS, max_size=8))
@examples(40)
def test_a_manifest_comes_back_as_it_was_written(folder: Path, photos: list[PhotoObject]) -> None:
    write_manifest(folder, photos)
    assert manifest_photos(read_manifest(folder)) == photos
    assert pq.read_metadata(folder / MANIFEST_FILE).num_rows == len(photos)


# --- parameters ----------------------------------------------------------------------------------------------------

GOOD = st.fixed_dictionaries(
    {},
    optional={
        "run_date": st.none() | DAYS.map(date.isoformat),
        "prefix": st.from_regex(r"\A[a-z][a-z0-9/]{0,10}/\Z"),
        "model": st.sampled_from(["champion", "challenger", "tiny@1"]),
        "batch_size": st.integers(1, 256),
        "shard_size": st.integers(1, 100_000),
        "top_k": st.integers(1, 10),
        "review_threshold": st.floats(0, 1) | st.integers(0, 1),
        "late_days": st.integers(0, 60),
        "force": st.booleans(),
        "dry_run": st.booleans(),
    },
)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
JSON = PLAIN | st.lists(PLAIN, max_size=2)


@given(values=GOOD)
@examples(150)
def test_good_parameters_are_read_the_same_from_values_texts_and_the_run_row(values: dict[str, object]) -> None:
    params = NightParams.from_mapping(values)
    assert all(getattr(params, name) == value for name, value in values.items())
    texts = {name: "" if value is None else str(value) for name, value in values.items()}
    assert NightParams.from_mapping(texts) == params
    stored = json.loads(json.dumps(dataclasses.asdict(params)))  # as refund.run.params keeps them
    assert NightParams.from_mapping(stored) == params


@given(name=st.sampled_from([spec.name for spec in dataclasses.fields(NightParams)]) | st.text(max_size=8), value=JSON)
@examples(150)
def test_any_parameter_is_taken_within_its_range_or_refused_by_name(name: str, value: object) -> None:
    refused, params = "", NightParams()
    try:
        params = NightParams.from_mapping({name: value})
    except SettingsError as exc:
        refused = str(exc)
    assert not refused or name in refused or repr(name) in refused or (name == "run_date" and "run date" in refused)
    for spec in dataclasses.fields(NightParams):
        taken = getattr(params, spec.name)
        assert spec.default is None or type(taken) is type(spec.default)
        if "min" in spec.metadata:
            assert spec.metadata["min"] <= taken <= spec.metadata["max"]


# --- run ids -------------------------------------------------------------------------------------------------------


@given(one=st.text(max_size=150), other=st.text(max_size=150), runs=st.sampled_from(["manual__", "a/b", ""]))
@examples(100)
def test_paths_of_two_runs_never_meet(one: str, other: str, runs: str) -> None:
    paths = keys.path_safe(runs + one), keys.path_safe(runs + other), keys.path_safe(keys.path_safe(runs + one))
    for path in paths:
        assert 1 <= len(path) <= 100
        assert path.isascii()
        assert not set(path) & set("/\\ \n\0%?#")
        assert path not in {".", ".."}
    assert (paths[0] == paths[1]) == (one == other)
    assert (paths[0] == paths[2]) == (runs + one == paths[0])  # a name that looks made is made anew
