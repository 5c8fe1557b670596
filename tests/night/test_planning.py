"""Planning a night: which photos go into which shard, which keep their outcome, and what the shop declared."""

from __future__ import annotations

import csv
from datetime import date
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refund import keys
from refund.night.fetch import listed_dates, parse_declared, plan_shards
from refund.records import PhotoObject


def photo(number: int) -> PhotoObject:
    key = f"incoming/2026-11-21/R-{number}/a.jpg"
    return PhotoObject(
        photo_id=keys.photo_id(bucket="b", key=key, etag="e"),
        photo_date=date(2026, 11, 21),
        bucket="b",
        key=key,
        etag="e",
        size_bytes=1,
        refund_id=f"R-{number}",
        declared_category=None,
    )


@given(count=st.integers(0, 300), standing=st.sets(st.integers(0, 299)), shard_size=st.integers(1, 50))
def test_every_photo_is_in_one_shard_or_unchanged(count: int, standing: set[int], shard_size: int) -> None:
    photos = [photo(number) for number in range(count)]
    kept: set[UUID] = {photo(number).photo_id for number in standing}
    plan = plan_shards(photos, standing=kept, shard_size=shard_size)
    planned = [item for shard in plan.shards for item in shard]
    assert sorted([*planned, *plan.unchanged], key=lambda item: item.key) == sorted(photos, key=lambda item: item.key)
    assert not {item.photo_id for item in planned} & kept
    sizes = [len(shard) for shard in plan.shards]
    assert all(1 <= size <= shard_size for size in sizes)
    assert max(sizes, default=0) - min(sizes, default=0) <= 1
    assert plan.photo_count == count


def test_a_night_looks_at_late_days_too() -> None:
    assert listed_dates(date(2026, 3, 1), late_days=2) == [date(2026, 2, 27), date(2026, 2, 28), date(2026, 3, 1)]
    assert listed_dates(date(2026, 3, 1), late_days=0) == [date(2026, 3, 1)]


def test_declarations_are_read_by_refund() -> None:
    body = "\ufeffdeclared_category,refund_id,extra\nshoes,R-1,x\n ,R-2,\nfurniture, R-3 ,\n".encode()
    assert parse_declared(body) == {"R-1": "shoes", "R-3": "furniture"}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"refund,category\nR-1,shoes\n", "it has the columns ['refund', 'category'], expected refund_id and"),
        (b"", "it has the columns none, expected refund_id and declared_category"),
        (b"refund_id,declared_category\nR-1,shoes\nR-1,toys\n", "refund 'R-1' is declared as 'shoes' and as 'toys'"),
        (b"\xff\xfe\x00", "can't decode"),
        (b'refund_id,declared_category\nR-1,"' + b"x" * 140_000, "field larger than field limit"),
    ],
)
def test_broken_declarations_say_what_is_wrong(body: bytes, text: str) -> None:
    with pytest.raises((ValueError, csv.Error)) as caught:
        parse_declared(body)
    assert text in str(caught.value)
