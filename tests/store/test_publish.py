"""Publishing a night on a real Postgres: all of it or nothing, once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from refund.errors import DatabaseUnavailableError, FatalRunError, ReconciliationError
from refund.records import OutcomeCounts
from refund.store.database import Database
from refund.store.publish import LOCK_KEY, ShardTables, publish
from refund.store.repository import Repository
from tests.conftest import Roles
from tests.store.factories import (
    DAY,
    NOON,
    Photo,
    begin,
    counts,
    everything,
    manifest,
    night,
    photos_table,
    predictions,
    rows,
    shard,
)

A, B = (
    Photo(key="incoming/2026-11-21/R1/a.jpg", refund_id="R1"),
    Photo(key="incoming/2026-11-21/R1/b.jpg", kind="review", reasons=("low_score",), score=0.3),
)
BAD = Photo(key="incoming/2026-11-21/R2/bad.jpg", reason="truncated")
UNDATED = Photo(key="incoming/lost.jpg", day=date(1970, 1, 1))


def test_a_night_becomes_visible_with_every_outcome(roles: Roles) -> None:
    assert night(roles.app, "r1", A, B, BAD, UNDATED) == OutcomeCounts(photos=4, classified=3, rejected=1, unchanged=0)
    seen = rows(
        roles.analyst,
        "SELECT key, outcome, rejection_reason, final_category, decision FROM reporting.photos ORDER BY 1",
    )
    assert seen == [
        (A.key, "classified", None, "shoes", "auto"),
        (B.key, "classified", None, "shoes", "review"),
        (BAD.key, "rejected", "truncated", None, None),
        (UNDATED.key, "classified", None, "shoes", "auto"),
    ]
    assert rows(roles.analyst, "SELECT manifest, decisions, adds_up FROM reporting.reconciliation") == [(4, 3, True)]
    assert rows(roles.analyst, "SELECT run_id, photos FROM reporting.last_complete_night") == [("r1", 4)]
    assert rows(roles.analyst, "SELECT key, detail, quarantine_key FROM reporting.rejections") == [
        (BAD.key, "seen truncated", f"quarantine/{BAD.key}")
    ]


def test_publishing_a_published_run_again_changes_no_row(roles: Roles) -> None:
    night(roles.app, "r1", A, BAD)
    before = everything(roles)
    again = publish(
        Database(roles.app),
        run_id="r1",
        shards=[shard(B)],
        unchanged=None,
        expected=counts(B),
        audit_share=0.0,
        at=NOON,
    )
    assert again == counts(A, BAD)
    assert everything(roles) == before


def test_a_night_without_photos_is_published(roles: Roles) -> None:
    begin(roles.app, "r1")
    assert publish(
        Database(roles.app), run_id="r1", shards=[], unchanged=None, expected=counts(), audit_share=0.0, at=NOON
    ) == OutcomeCounts(photos=0, classified=0, rejected=0, unchanged=0)
    assert Repository(Database(roles.app)).require_run("r1").state == "published"


def test_unchanged_photos_keep_their_outcome_and_are_counted(roles: Roles) -> None:
    night(roles.app, "r1", A, BAD)
    assert night(roles.app, "r2", B, unchanged=(A, BAD)).unchanged == 2
    assert rows(roles.analyst, "SELECT key, run_id FROM reporting.photos ORDER BY 1") == [
        (A.key, "r1"), (B.key, "r2"), (BAD.key, "r1"),
    ]  # fmt: skip
    assert rows(roles.analyst, "SELECT run_id, adds_up FROM reporting.reconciliation ORDER BY 1") == [
        ("r1", True), ("r2", True),
    ]  # fmt: skip


@pytest.mark.parametrize(("table", "took", "listed"), [("run_photo", 2, 3), ("decision", 1, 2)])
def test_a_table_that_takes_fewer_rows_stops_the_night(roles: Roles, table: str, took: int, listed: int) -> None:
    begin(roles.app, "r1")
    before = everything(roles)
    rows(
        roles.owner,
        "CREATE FUNCTION refund.drop_row() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; "
        f"CREATE TRIGGER t BEFORE INSERT ON refund.{table} FOR EACH ROW WHEN (NEW.photo_id = '{A.photo_id}') "
        "EXECUTE FUNCTION refund.drop_row(); SELECT 1",
    )
    with pytest.raises(ReconciliationError) as caught:
        night(roles.app, "r1", A, B, BAD)
    assert str(caught.value) == (
        f"nothing was published, because refund.{table} took {took} rows, the reconciled night has {listed}. "
        f"Look for a trigger or rule on that table and clear the run from the task persist on"
    )
    assert everything(roles) == before


def test_a_dry_run_reconciles_and_writes_no_photo(roles: Roles) -> None:
    begin(roles.app, "r1")
    arguments: dict[str, Any] = {
        "run_id": "r1",
        "unchanged": None,
        "expected": counts(A),
        "audit_share": 0.0,
        "at": NOON,
        "dry_run": True,
    }
    assert publish(Database(roles.app), shards=[shard(A)], **arguments) == counts(A)
    assert rows(roles.owner, "SELECT state, photos, published_at FROM refund.run") == [("dry_run", 1, None)]
    assert rows(roles.owner, "SELECT count(*) FROM refund.photo") == [(0,)]
    with pytest.raises(ReconciliationError):
        publish(Database(roles.app), shards=[shard(A, B)], **arguments)


GOOD = shard(A, B, BAD)


@pytest.mark.parametrize(
    ("shards", "unchanged", "says"),
    [
        ([GOOD, shard(A)], (), f"1 listed more than once: '{A.key}'"),
        ([GOOD], (A,), f"1 listed more than once: '{A.key}'"),
        ([replace(GOOD, photos=photos_table(A, B))], (), f"1 listed but without an outcome: '{BAD.key}'"),
        ([replace(GOOD, manifest=manifest(A, B))], (), f"1 with an outcome but not listed: '{BAD.photo_id}'"),
        ([replace(GOOD, photos=photos_table(A, B, BAD, BAD))], (), f"1 with more than one outcome: '{BAD.key}'"),
        ([replace(GOOD, predictions=predictions(A))], (), f"1 accepted but without a prediction: '{B.key}'"),
        ([replace(GOOD, predictions=predictions(A, B, BAD))], (), f"1 predicted but not accepted: '{BAD.key}'"),
        ([replace(GOOD, predictions=predictions(A, B, B))], (), f"1 predicted more than once: '{B.key}'"),
        ([GOOD], (UNDATED,), f"1 said to be unchanged but not in refund.photo: '{UNDATED.key}'"),
        (
            [shard(A, B)],
            (),
            "the staged files count 2 photos (2 classified, 0 rejected, 0 unchanged), "
            "the tasks reported 3 photos (2 classified, 1 rejected, 0 unchanged)",
        ),
    ],
)
def test_a_night_that_does_not_add_up_publishes_nothing_and_says_what_differs(
    roles: Roles, shards: list[ShardTables], unchanged: tuple[Photo, ...], says: str
) -> None:
    begin(roles.app, "r1")
    before = everything(roles)
    with pytest.raises(ReconciliationError) as caught:
        publish(
            Database(roles.app),
            run_id="r1",
            shards=shards,
            unchanged=manifest(*unchanged),
            expected=counts(A, B, BAD),
            audit_share=0.0,
            at=NOON,
        )
    assert f"\n  {says}\n" in str(caught.value)
    assert str(caught.value).startswith("nothing was published, because the staged night does not add up:")
    assert str(caught.value).endswith("Clear the run from the task fetch on, so that it is made again")
    assert everything(roles) == before


def test_at_most_five_keys_are_named(roles: Roles) -> None:
    photos = [Photo(key=f"incoming/{number}.jpg") for number in range(7)]
    begin(roles.app, "r1")
    with pytest.raises(ReconciliationError) as caught:
        publish(
            Database(roles.app),
            run_id="r1",
            shards=[replace(shard(*photos), photos=photos_table(), predictions=predictions())],
            unchanged=None,
            expected=counts(*photos),
            audit_share=0.0,
            at=NOON,
        )
    assert "7 listed but without an outcome: 'incoming/0.jpg', " in str(caught.value)
    assert "'incoming/4.jpg' and more" in str(caught.value)
    assert "incoming/5.jpg" not in str(caught.value)


def test_a_connection_cut_in_the_middle_leaves_nothing_and_the_next_try_the_same_rows(roles: Roles) -> None:
    begin(roles.app, "r1")
    before = everything(roles)

    def shards_with_a_cut() -> Iterator[ShardTables]:
        yield shard(A)
        with Database(roles.admin).connect() as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND usename = 'refund_app'"
            )
            assert cursor.rowcount == 1
        yield shard(B)

    arguments: dict[str, Any] = {
        "run_id": "r1",
        "unchanged": None,
        "expected": counts(A, B),
        "audit_share": 0.0,
        "at": NOON,
    }
    with pytest.raises(DatabaseUnavailableError, match="broke the connection"):
        publish(Database(roles.app), shards=shards_with_a_cut(), **arguments)
    assert everything(roles) == before
    publish(Database(roles.app), shards=[shard(A), shard(B)], **arguments)
    assert rows(roles.analyst, "SELECT adds_up, manifest FROM reporting.reconciliation") == [(True, 2)]


def test_two_publishes_at_once_wait_for_each_other_and_write_once(roles: Roles) -> None:
    begin(roles.app, "r1")
    results: list[Any] = []
    holding, go_on = threading.Event(), threading.Event()

    def slow_shards() -> Iterator[ShardTables]:
        holding.set()
        assert go_on.wait(20)
        yield shard(A, B)

    def run(shards: Any) -> None:
        results.append(
            publish(
                Database(roles.app),
                run_id="r1",
                shards=shards,
                unchanged=None,
                expected=counts(A, B),
                audit_share=0.0,
                at=NOON,
            )
        )

    first = threading.Thread(target=run, args=(slow_shards(),))
    second = threading.Thread(target=run, args=([shard(A, B)],))
    first.start()
    assert holding.wait(20)
    second.start()
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted"
    while rows(roles.admin, waiting, LOCK_KEY) == [(0,)]:
        assert second.is_alive()
    go_on.set()
    first.join(20)
    second.join(20)
    assert results == [counts(A, B)] * 2
    assert rows(roles.owner, "SELECT count(*) FROM refund.decision") == [(2,)]


def test_readers_see_nothing_until_the_commit_and_are_not_kept_waiting(roles: Roles) -> None:
    night(roles.app, "r1", A)
    begin(roles.app, "r2")
    seen: list[Any] = []

    def watched_shards() -> Iterator[ShardTables]:
        yield shard(B)
        seen.append(rows(roles.analyst, "SET statement_timeout = '5s'; SELECT count(*) FROM reporting.photos"))

    publish(
        Database(roles.app),
        run_id="r2",
        shards=watched_shards(),
        unchanged=None,
        expected=counts(B),
        audit_share=0.0,
        at=NOON,
    )
    assert seen == [[(1,)]]


def test_hostile_keys_and_details_are_stored_as_they_are(roles: Roles) -> None:
    hostile = [
        Photo(key=key) for key in ("a\n\\.\nb", "\\N", "x\ty\r", "'; DROP TABLE refund.photo; --", '{a,"b"}', "é☃", "")
    ]
    night(roles.app, "r1", *hostile)
    assert {key for (key,) in rows(roles.owner, "SELECT key FROM refund.photo")} == {photo.key for photo in hostile}


def test_a_value_that_the_schema_refuses_stops_the_night_with_its_reason(roles: Roles) -> None:
    begin(roles.app, "r1")
    with pytest.raises(FatalRunError, match=r"refused a statement, so nothing of it was written: .*score_check"):
        publish(
            Database(roles.app),
            run_id="r1",
            shards=[shard(replace(A, score=1.5))],
            unchanged=None,
            expected=counts(A),
            audit_share=0.0,
            at=NOON,
        )
    assert rows(roles.owner, "SELECT count(*) FROM refund.photo") == [(0,)]


def test_a_run_that_never_began_cannot_publish(roles: Roles) -> None:
    with pytest.raises(FatalRunError) as caught:
        publish(
            Database(roles.app), run_id="r9", shards=[], unchanged=None, expected=counts(), audit_share=0.0, at=NOON
        )
    assert str(caught.value) == (
        "run 'r9' has no row in refund.run; expected that health_check began it. Clear it from there"
    )


def test_dates_of_a_night_may_lie_in_many_months(roles: Roles) -> None:
    photos = [Photo(key=f"incoming/{day}/x/{day}.jpg", day=day) for day in (DAY, date(2026, 12, 1), date(1999, 2, 3))]
    night(roles.app, "r1", *photos)
    assert rows(roles.owner, "SELECT count(DISTINCT tableoid) FROM refund.photo") == [(3,)]
