"""A night that adds up is published as it is; with any one row too many, too few or mistaken nothing is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from refund.errors import ReconciliationError
from refund.records import OutcomeCounts
from refund.store.database import Database
from refund.store.publish import ShardTables, publish
from tests.conftest import Roles
from tests.properties.conftest import examples, select
from tests.store.factories import DAY, NOON, Photo, begin, counts, manifest, night, photos_table, predictions

NUMBERS = count(1)  # of the examples, so that each has a run and keys of its own in the one database
OLD = tuple(Photo(key=f"incoming/{DAY}/old/{number}.jpg") for number in range(3))
OUTCOMES = st.lists(st.sampled_from([None, None, "corrupt", "vanished"]), min_size=1, max_size=8)
SHARDS = st.integers(1, 5)
UNCHANGED = st.sets(st.integers(0, len(OLD) - 1))
TABLES = ("manifest", "facts", "predicted")


@dataclass(kw_only=True)
class Staged:
    """What the tasks of one shard left, as photos: a row each."""

    manifest: list[Photo]
    facts: list[Photo]
    predicted: list[Photo]

    def tables(self) -> ShardTables:
        return ShardTables(
            manifest=manifest(*self.manifest),
            photos=photos_table(*self.facts),
            predictions=predictions(*self.predicted),
        )


@pytest.fixture(scope="module")
def earlier(nights: Roles) -> Roles:
    """A database in which an earlier night published `OLD`."""
    night(nights.app, "r-earlier", *OLD, params={"review_threshold": 0.9, "force": False})
    return nights


def staged(photos: list[Photo], shards: int) -> list[Staged]:
    return [
        Staged(manifest=list(part), facts=list(part), predicted=[photo for photo in part if photo.reason is None])
        for part in (photos[number::shards] for number in range(shards))
    ]


def made(outcomes: list[str | None]) -> tuple[str, list[Photo]]:
    """A new run id, and photos with these outcomes that no other run has."""
    run_id = f"r-{next(NUMBERS):05}"
    return run_id, [
        Photo(key=f"incoming/{DAY}/{run_id}/{number}.jpg", reason=reason) for number, reason in enumerate(outcomes)
    ]


def publish_staged(
    roles: Roles, run_id: str, shards: list[Staged], unchanged: list[Photo], expected: OutcomeCounts
) -> Any:
    begin(roles.app, run_id)
    return publish(
        Database(roles.app),
        run_id=run_id,
        shards=[shard.tables() for shard in shards],
        unchanged=manifest(*unchanged),
        expected=expected,
        audit_share=0.0,
        at=NOON,
    )


def written(tables: Any, run_id: str) -> list[tuple[Any, ...]]:
    return select(
        tables,
        "SELECT p.key, o.outcome, o.reason FROM refund.run_photo o JOIN refund.photo p USING (photo_date, photo_id) "
        f"WHERE o.run_id = '{run_id}' ORDER BY 1",
    )


def check_whole_night(roles: Roles, tables: Any, outcomes: list[str | None], shards: int, old: set[int]) -> None:
    run_id, photos = made(outcomes)
    unchanged = [OLD[number] for number in sorted(old)]
    expected = counts(*photos, unchanged=len(unchanged))
    assert publish_staged(roles, run_id, staged(photos, shards), unchanged, expected) == expected
    assert written(tables, run_id) == sorted(
        [
            *((photo.key, "rejected" if photo.reason else "classified", photo.reason) for photo in photos),
            *((photo.key, "unchanged", None) for photo in unchanged),
        ]
    )
    found = select(
        tables,
        "SELECT packed, predicted, decisions, overtaken, adds_up FROM reporting.reconciliation "
        f"WHERE run_id = '{run_id}'",
    )
    assert found == [(len(photos), expected.classified, expected.classified, 0, True)]


def spoil(shards: list[Staged], *, table: str, how: str, place: int, stranger: Photo) -> set[str] | None:
    """Make one row wrong; returns the keys or ids that the error must name one of, None where it cannot be done."""
    shard = shards[place % len(shards)]
    found: list[Photo] = getattr(shard, table)
    if how == "add":
        found.insert(place % (len(found) + 1), stranger)
        return {stranger.key, stranger.photo_id}
    if not found:
        return None
    victim = found[place % len(found)]
    if how == "drop":
        found.remove(victim)
    elif how == "duplicate":
        getattr(shards[-1], table).append(victim)
    elif how == "swap":  # the row of one photo carries the id of another
        others = [photo for other in shards for photo in getattr(other, table) if photo != victim]
        if not others:
            return None
        found[found.index(victim)] = replace(others[place % len(others)], reason=victim.reason)
    else:  # the fact is turned over: a rejected photo was accepted, or the other way round
        if table != "facts":
            return None
        found[found.index(victim)] = replace(victim, reason=None if victim.reason else "corrupt")
    return {victim.key, victim.photo_id}


def check_spoilt_night(
    roles: Roles, tables: Any, outcomes: list[str | None], shards: int, table: str, how: str, place: int
) -> None:
    run_id, photos = made(outcomes)
    parts = staged(photos, shards)
    stranger = Photo(key=f"incoming/{DAY}/{run_id}/stranger.jpg")
    named = spoil(parts, table=table, how=how, place=place, stranger=stranger)
    if named is None:
        event("nothing to spoil")
        return
    event(f"{how} in {table}")
    with pytest.raises(ReconciliationError) as caught:
        publish_staged(roles, run_id, parts, [], counts(*photos))
    assert any(repr(name) in str(caught.value) for name in named)
    check_nothing(tables, run_id)


def check_nothing(tables: Any, run_id: str) -> None:
    assert written(tables, run_id) == []
    assert select(tables, f"SELECT key FROM refund.photo WHERE key LIKE '%/{run_id}/%'") == []
    assert select(tables, f"SELECT state, photos FROM refund.run WHERE run_id = '{run_id}'") == [("running", None)]


SPOILT = {
    "outcomes": OUTCOMES,
    "shards": SHARDS,
    "table": st.sampled_from(TABLES),
    "how": st.sampled_from(["drop", "duplicate", "add", "swap", "turn"]),
    "place": st.integers(0, 40),
}


@given(outcomes=OUTCOMES, shards=SHARDS, old=UNCHANGED)
@examples(12)
def test_a_night_that_adds_up_is_published_as_it_is(
    earlier: Roles, tables: Any, outcomes: list[str | None], shards: int, old: set[int]
) -> None:
    check_whole_night(earlier, tables, outcomes, shards, old)


@given(**SPOILT)
@examples(25)
def test_one_row_that_is_wrong_stops_the_night_and_is_named(
    earlier: Roles, tables: Any, outcomes: list[str | None], shards: int, table: str, how: str, place: int
) -> None:
    check_spoilt_night(earlier, tables, outcomes, shards, table, how, place)


@given(outcomes=OUTCOMES, shift=st.tuples(*[st.integers(-1, 2)] * 3).filter(any))
@examples(12)
def test_wrong_counts_stop_the_night_and_both_are_told(
    earlier: Roles, tables: Any, outcomes: list[str | None], shift: tuple[int, int, int]
) -> None:
    run_id, photos = made(outcomes)
    right = counts(*photos)
    said = [number + more for number, more in zip((right.classified, right.rejected, 0), shift, strict=True)]
    wrong = OutcomeCounts(photos=sum(said), classified=said[0], rejected=said[1], unchanged=said[2])
    with pytest.raises(ReconciliationError) as caught:
        publish_staged(earlier, run_id, staged(photos, 2), [], wrong)
    for counted in (right, wrong):
        assert (
            f"{counted.photos} photos ({counted.classified} classified, {counted.rejected} rejected, "
            f"{counted.unchanged} unchanged)"
        ) in str(caught.value)
    check_nothing(tables, run_id)


@pytest.mark.slow
@given(outcomes=OUTCOMES, shards=SHARDS, old=UNCHANGED)
@examples(40)
def test_many_nights_that_add_up(
    earlier: Roles, tables: Any, outcomes: list[str | None], shards: int, old: set[int]
) -> None:
    check_whole_night(earlier, tables, outcomes, shards, old)


@pytest.mark.slow
@given(**SPOILT)
@examples(120)
def test_many_nights_with_a_wrong_row(
    earlier: Roles, tables: Any, outcomes: list[str | None], shards: int, table: str, how: str, place: int
) -> None:
    check_spoilt_night(earlier, tables, outcomes, shards, table, how, place)
