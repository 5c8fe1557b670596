"""Publishing a night on a real Postgres: all of it or nothing, once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from refund.errors import DatabaseUnavailableError, FatalRunError, ReconciliationError
from refund.records import OutcomeCounts
from refund.store.database import Database
from refund.store.migrate import migrate
from refund.store.publish import LOCK_KEY, ShardTables, publish
from refund.store.repository import Repository
from tests.conftest import Roles
from tests.store.factories import (
    DAY,
    NOON,
    OTHER_MODEL,
    Photo,
    begin,
    counts,
    everything,
    manifest,
    night,
    photos_table,
    predictions,
    register_models,
    rows,
    shard,
)

A, B = (
    Photo(key="incoming/2026-11-21/R1/a.jpg", refund_id="R1"),
    Photo(key="incoming/2026-11-21/R1/b.jpg", kind="review", reasons=("low_score",), score=0.3),
)
BAD = Photo(key="incoming/2026-11-21/R2/bad.jpg", reason="truncated")
UNDATED = Photo(key="incoming/lost.jpg", day=date(1970, 1, 1))


@pytest.fixture
def roles(empty_database: Roles) -> Roles:
    migrate(empty_database.owner)
    register_models(empty_database)
    return empty_database


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


@pytest.mark.parametrize("change", [{"model": OTHER_MODEL}, {"threshold": 0.95}])
def test_another_model_or_threshold_supersedes_the_decisions(roles: Roles, change: dict[str, Any]) -> None:
    night(roles.app, "r1", A, B)
    night(roles.app, "r2", replace(A, kind="review", reasons=("low_score",)), B, **change)
    decisions = "SELECT run_id, kind, superseded_by FROM refund.decision WHERE photo_id = %s ORDER BY 1"
    assert rows(roles.owner, decisions, A.photo_id) == [("r1", "auto", "r2"), ("r2", "review", None)]
    predictions_count = rows(roles.owner, "SELECT count(*) FROM refund.prediction WHERE photo_id = %s", A.photo_id)
    assert predictions_count == [(2 if "model" in change else 1,)]
    assert rows(roles.analyst, "SELECT DISTINCT run_id FROM reporting.photos") == [("r2",)]
    assert rows(roles.owner, "SELECT DISTINCT superseded_by FROM refund.run_photo WHERE run_id = 'r1'") == [("r2",)]


def test_a_rejection_supersedes_an_earlier_decision_and_a_decision_an_earlier_rejection(roles: Roles) -> None:
    night(roles.app, "r1", A, replace(B, reason="vanished"))
    night(roles.app, "r2", replace(A, reason="corrupt"), B, params={"review_threshold": 0.5, "force": True})
    assert rows(roles.analyst, "SELECT key, outcome, final_category FROM reporting.photos ORDER BY 1") == [
        (A.key, "rejected", None),
        (B.key, "classified", "shoes"),
    ]
    facts = rows(roles.owner, "SELECT image_format, first_run_id FROM refund.photo WHERE photo_id = %s", B.photo_id)
    assert facts == [("JPEG", "r1")]  # what the first look did not find out is filled in


def test_a_newer_version_of_a_key_replaces_the_older_and_may_be_replaced_back(roles: Roles) -> None:
    newer = replace(A, etag="e2", category="bags")
    live = "SELECT photo_id::text FROM reporting.photos"
    night(roles.app, "r1", A)
    night(roles.app, "r2", newer)
    assert rows(roles.analyst, live) == [(newer.photo_id,)]
    night(roles.app, "r3", unchanged=(A,))  # the first picture was uploaded again
    assert rows(roles.analyst, live) == [(A.photo_id,)]


def test_a_run_cleared_late_does_not_replace_a_version_that_a_later_run_saw(roles: Roles) -> None:
    newer = replace(A, etag="e2")
    begin(roles.app, "r1")  # lists A, fails
    night(roles.app, "r2", newer)
    night(roles.app, "r1", A)  # cleared the day after
    assert rows(roles.analyst, "SELECT photo_id::text FROM reporting.photos") == [(newer.photo_id,)]
    assert rows(roles.analyst, "SELECT bool_and(adds_up) FROM reporting.reconciliation") == [(True,)]


@pytest.mark.parametrize("newer", [replace(A, category="bags"), replace(A, reason="decode_crashed")])
def test_a_run_cleared_late_does_not_supersede_what_a_later_run_decided(roles: Roles, newer: Photo) -> None:
    begin(roles.app, "r1")  # fails
    night(roles.app, "r2", newer, threshold=0.9)
    night(roles.app, "r1", A, B)  # cleared the day after
    seen = "SELECT run_id, outcome, predicted_category FROM reporting.photos WHERE key = '" + A.key + "'"
    kept = ("r2", "rejected", None) if newer.reason else ("r2", "classified", "bags")
    assert rows(roles.analyst, seen) == [kept]
    for table in ("run_photo", "decision"):
        by_run = dict(
            rows(roles.owner, f"SELECT run_id, superseded_by FROM refund.{table} WHERE photo_id = %s", A.photo_id)
        )
        assert by_run == {"r1": "r2"} | ({} if newer.reason and table == "decision" else {"r2": None})
    assert rows(roles.analyst, "SELECT run_id FROM reporting.photos WHERE key = '" + B.key + "'") == [("r1",)]
    assert rows(roles.analyst, "SELECT bool_and(adds_up), count(*) FROM reporting.reconciliation") == [(True, 2)]


def test_a_run_cleared_late_does_not_supersede_what_a_later_run_left_unchanged(roles: Roles) -> None:
    night(roles.app, "r1", A)
    begin(roles.app, "r2", threshold=0.9)  # fails
    night(roles.app, "r3", unchanged=(A,))
    night(roles.app, "r2", replace(A, category="bags"))
    assert rows(roles.analyst, "SELECT run_id, predicted_category FROM reporting.photos") == [("r1", "shoes")]
    decisions = "SELECT run_id, superseded_by FROM refund.decision ORDER BY 1"
    assert rows(roles.owner, decisions) == [("r1", None), ("r2", "r3")]


# --- two runs at once ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("params", [{}, {"model": OTHER_MODEL}])
def test_the_second_of_two_runs_leaves_what_the_first_published_as_a_run_after_it_would(
    roles: Roles, params: dict[str, Any]
) -> None:
    """Both listed A, B and BAD before either published; `params` are the second's."""
    begin(roles.app, "r1")
    begin(roles.app, "r2", **params)
    night(roles.app, "r1", A, BAD)
    decided = rows(roles.owner, "SELECT * FROM refund.decision ORDER BY photo_id")
    second = night(roles.app, "r2", A, B, BAD, **params)
    if params:  # another model decides anew; a photo that cannot be decoded cannot be by it either
        assert second == OutcomeCounts(photos=3, classified=2, rejected=0, unchanged=1)
        assert rows(roles.analyst, "SELECT DISTINCT run_id FROM reporting.photos WHERE outcome = 'classified'") == [
            ("r2",)
        ]
    else:
        assert second == OutcomeCounts(photos=3, classified=1, rejected=0, unchanged=2)
        assert rows(roles.owner, "SELECT * FROM refund.decision WHERE run_id = 'r1'") == decided
    assert rows(roles.analyst, "SELECT packed, predicted, overtaken, adds_up FROM reporting.reconciliation") == [
        (2, 1, 0, True),
        (second.classified, second.classified, second.unchanged, True),
    ]
    ((notes,),) = rows(roles.analyst, "SELECT notes FROM reporting.runs WHERE run_id = 'r2'")
    assert notes == [
        f"another run published {second.unchanged} of these photos while this one was at work: left unchanged"
    ]


def test_the_second_of_two_runs_decides_anew_where_it_was_told_to(roles: Roles) -> None:
    begin(roles.app, "r1")
    begin(roles.app, "r2", params={"review_threshold": 0.5, "force": True})
    night(roles.app, "r1", A)
    assert night(roles.app, "r2", A).classified == 1
    assert rows(roles.owner, "SELECT run_id, superseded_by FROM refund.decision ORDER BY 1") == [
        ("r1", "r2"), ("r2", None),
    ]  # fmt: skip


def test_a_rejection_of_the_moment_does_not_stand_against_the_second_run(roles: Roles) -> None:
    begin(roles.app, "r1")
    begin(roles.app, "r2")
    night(roles.app, "r1", replace(A, reason="decode_timeout"))
    assert night(roles.app, "r2", A).classified == 1


def test_of_two_runs_the_one_that_began_later_is_the_newer_whatever_the_clock_said(roles: Roles) -> None:
    """The clock was set back between them."""
    night(roles.app, "r1", A, started_at=NOON)
    night(roles.app, "r2", replace(A, category="bags"), threshold=0.9, started_at=NOON - timedelta(days=2))
    assert rows(roles.analyst, "SELECT run_id, predicted_category FROM reporting.photos") == [("r2", "bags")]


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
