"""What the views show of nights: made-up ones apart, refunds of two nights, drift, and never half a night."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg2
import pytest

from refund.store.database import Database
from refund.store.publish import publish
from tests.conftest import Roles
from tests.store.factories import DAY, MODEL, NOON, OTHER_MODEL, Photo, begin, counts, night, rows, shard

NEXT_DAY = DAY + timedelta(days=1)


def real(name: str, **over: Any) -> Photo:
    """A photo of refund R1."""
    return Photo(**{"key": f"incoming/{DAY}/R1/{name}.jpg", "refund_id": "R1", **over})


def mark_made_up(roles: Roles, run_id: str) -> None:
    """Mark the rows of a run as the demo does."""
    with Database(roles.owner).connect() as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE refund.run SET synthetic = true WHERE run_id = %s", (run_id,))
        for table, column in (("photo", "first_run_id"), ("run_photo", "run_id"), ("decision", "run_id")):
            cursor.execute(f"UPDATE refund.{table} SET synthetic = true WHERE {column} = %s", (run_id,))


def test_a_made_up_and_a_real_night_of_one_date_are_never_mixed(roles: Roles) -> None:
    night(
        roles.app, "r1", real("a"), real("b", category="bags", kind="review", reasons=("low_score",)),
        real("c", reason="corrupt"), audit_share=1.0,
    )  # fmt: skip
    made_up = [Photo(key=f"demo/{DAY}/R1/{n}.jpg", refund_id="R1", labels=("dark",)) for n in range(3)]
    made_up += [Photo(key=f"demo/{DAY}/R1/x.jpg", refund_id="R1", kind="review", reasons=("low_score",))]
    made_up += [Photo(key=f"demo/{DAY}/R1/y.jpg", refund_id="R1", reason="truncated")]
    night(roles.app, "r2", *made_up, audit_share=1.0)
    mark_made_up(roles, "r2")
    review = (
        "INSERT INTO refund.review (photo_date, photo_id, category, reviewed_by, chosen_by) VALUES (%s, %s, %s, %s, %s)"
    )
    with Database(roles.app).connect() as connection, connection.cursor() as cursor:
        cursor.execute(review, (DAY, made_up[0].photo_id, "toys", "demo", "audit"))
        cursor.execute(review, (DAY, real("a").photo_id, "shoes", "ada", "audit"))

    def seen(sql: str) -> list[tuple[Any, ...]]:
        return rows(roles.analyst, f"SELECT {sql}")

    assert seen("category, photos, share, auto, review, synthetic FROM reporting.daily_categories ORDER BY 6, 1") == [
        ("bags", 1, 0.5, 0, 1, False),
        ("shoes", 1, 0.5, 1, 0, False),
        ("shoes", 4, 1.0, 3, 1, True),
    ]
    assert seen("photos, rejected, dark, synthetic FROM reporting.daily_quality ORDER BY 4") == [
        (3, 1, 0, False), (5, 1, 3, True),
    ]  # fmt: skip
    assert seen("refund_id, photos, rejected, reviewed, synthetic FROM reporting.refunds ORDER BY 5") == [
        ("R1", 3, 1, 1, False), ("R1", 5, 1, 1, True),
    ]  # fmt: skip
    assert seen("reason, synthetic FROM reporting.rejections ORDER BY 2") == [("corrupt", False), ("truncated", True)]
    assert seen("run_id, adds_up, synthetic FROM reporting.reconciliation ORDER BY 1") == [
        ("r1", True, False), ("r2", True, True),
    ]  # fmt: skip
    assert seen("run_id FROM reporting.last_complete_night") == [("r1",)]
    assert seen("key FROM reporting.review_queue") == [(real("b").key,)]
    assert seen("key FROM reporting.audit_queue") == []  # the real one is reviewed
    assert seen("predicted_category, reviewed, correct FROM reporting.model_accuracy") == [("shoes", 1, 1)]


def test_a_refund_whose_photos_come_in_two_nights_is_one_row_of_the_later_night(roles: Roles) -> None:
    night(roles.app, "r1", real("a"), real("b"))
    night(roles.app, "r2", real("c", category="bags"), unchanged=(real("a"), real("b")), run_date=NEXT_DAY)
    night(roles.app, "r3", Photo(key=f"incoming/{DAY}/loose.jpg"), run_date=NEXT_DAY)
    refund = "SELECT run_date, photos, nights, category, categories, photos_agree FROM reporting.refunds"
    assert rows(roles.analyst, refund) == [(NEXT_DAY, 3, 2, "shoes", 2, False)]
    assert rows(roles.analyst, f"{refund} WHERE run_date = %s", DAY) == []
    assert rows(roles.analyst, f"{refund} WHERE refund_id IS NULL") == []
    assert rows(roles.analyst, "SELECT count(*) FROM reporting.photos WHERE refund_id IS NULL") == [(1,)]


@pytest.mark.parametrize(
    ("photos", "reviewed", "expected"),
    [
        pytest.param([real("a"), real("b")], {}, ("shoes", "shoes", True, None, False, 0), id="agree"),
        pytest.param(
            [real("a", declared="shoes"), real("b", declared="shoes")], {}, ("shoes", "shoes", True, True, False, 0),
            id="as declared",
        ),
        pytest.param(
            [real("a", declared="shoes"), real("b", category="bags", declared="shoes")], {},
            ("bags", "bags", False, False, False, 0), id="one photo against what was declared",
        ),
        pytest.param(
            [real("a", category="bags", declared="shoes", kind="review", reasons=("declared_mismatch",))], {},
            ("bags", "bags", True, False, True, 0), id="waits",
        ),
        pytest.param(
            [real("a", category="bags", declared="shoes", kind="review", reasons=("declared_mismatch",))],
            {"a": "shoes"}, ("shoes", "bags", True, True, False, 1), id="a person agrees with the customer",
        ),
        pytest.param([real("a", reason="corrupt")], {}, (None, None, True, None, True, 0), id="rejected"),
        pytest.param(
            [real("a", reason="corrupt", declared="shoes")], {"a": "shoes"}, ("shoes", None, True, True, False, 1),
            id="rejected, but a person has looked",
        ),
    ],
)  # fmt: skip
def test_what_the_photos_of_a_refund_say_together(
    database: Roles, request: pytest.FixtureRequest, photos: list[Photo], reviewed: dict[str, str], expected: Any
) -> None:
    from tests.store.factories import register_models

    register_models(database)
    refund_id = request.node.callspec.id
    mine = {
        photo.key: Photo(**{**vars(photo), "key": photo.key.replace("/R1/", f"/{refund_id}/"), "refund_id": refund_id})
        for photo in photos
    }
    night(database.app, f"r {refund_id}", *mine.values())
    with Database(database.app).connect() as connection, connection.cursor() as cursor:
        for name, category in reviewed.items():
            cursor.execute(
                "INSERT INTO refund.review (photo_date, photo_id, category, reviewed_by, chosen_by) "
                "VALUES (%s, %s, %s, 'ada', 'queue')",
                (DAY, mine[real(name).key].photo_id, category),
            )
    columns = "category, predicted_category, photos_agree, matches_declared, needs_review, reviewed"
    assert rows(database.analyst, f"SELECT {columns} FROM reporting.refunds WHERE refund_id = %s", refund_id) == [
        expected
    ]


def test_the_largest_move_of_drift_stands_in_columns(roles: Roles) -> None:
    night(roles.app, "r1", real("a"))
    details = {
        "total_variation": 0.125, "folded": [],
        "moves": [
            {"category": "toys", "tonight_share": 0.25, "reference_share": 0.125},
            {"category": "shoes", "tonight_share": 0.75, "reference_share": 0.875},
        ],
    }  # fmt: skip
    insert = (
        "INSERT INTO refund.drift (run_id, measure, run_date, status, distance, threshold, p_value, tonight_photos, "
        "reference_photos, reference_nights, floor, alpha, overdispersion, details, computed_at) VALUES "
        "('r1', 'category_shares', %s, 'drift', 0.2, 0.15, 0.001, 8, 80, 10, 0.1, 0.01, 3.5, %s, %s), "
        "('r1', 'volume', %s, 'no_reference', NULL, NULL, NULL, 8, 0, 0, NULL, NULL, NULL, '{}', %s)"
    )
    with Database(roles.app).connect() as connection, connection.cursor() as cursor:
        cursor.execute(insert, (DAY, json.dumps(details), NOON, DAY, NOON))
    columns = (
        "measure, floor, alpha, overdispersion, total_variation, largest_move_category, largest_move_share, "
        "largest_move_reference_share, synthetic"
    )
    assert rows(roles.analyst, f"SELECT {columns} FROM reporting.drift ORDER BY 1") == [
        ("category_shares", 0.1, 0.01, 3.5, 0.125, "toys", 0.25, 0.125, False),
        ("volume", None, None, None, None, None, None, None, False),
    ]


def test_reports_are_listed_with_their_files(roles: Roles) -> None:
    night(roles.app, "r1", real("a"))
    with Database(roles.app).connect() as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO refund.report (run_id, run_date, body, html_uri, csv_uri, export_uri, created_at) "
            "VALUES ('r1', %s, '{}', 's3://b/r.html', 's3://b/r.csv', 's3://b/d.parquet', %s)",
            (DAY, NOON),
        )
    assert rows(roles.analyst, "SELECT * FROM reporting.reports") == [
        (DAY, "r1", "s3://b/r.html", "s3://b/r.csv", "s3://b/d.parquet", NOON, False)
    ]


# --- never half a night --------------------------------------------------------------------------------------------

# Advisory locks that the test holds: publishing stops at the first statement of each kind until its lock is given up.
GATES = {("photo", "INSERT"): 4711, ("decision", "INSERT"): 4712, ("run", "UPDATE"): 4713}


@contextmanager
def analyst_of(roles: Roles) -> Iterator[Callable[[], dict[str, list[str]]]]:
    """A look at every row of every view, from one connection that stays open, each view a query of its own."""
    access = roles.analyst
    connection = psycopg2.connect(
        host=access.host, port=access.port, user=access.user, password=access.password, dbname=access.database
    )
    connection.autocommit = True
    views = [view for (view,) in rows(roles.owner, "SELECT viewname FROM pg_views WHERE schemaname = 'reporting'")]

    def look() -> dict[str, list[str]]:
        with connection.cursor() as cursor:
            cursor.execute("SET statement_timeout = '20s'")  # a reader that is kept waiting fails the test
            seen = {}
            for view in views:
                cursor.execute(f"SELECT * FROM reporting.{view}")
                seen[view] = sorted(map(repr, cursor.fetchall()))
            return seen

    try:
        yield look
    finally:
        connection.close()


@contextmanager
def gates(roles: Roles) -> Iterator[Callable[[int], None]]:
    """Stop publishing at the gates; the call lets it go on at one."""
    with Database(roles.owner).connect() as connection, connection.cursor() as cursor:
        for (table, event), key in GATES.items():
            cursor.execute(
                f"""
                CREATE OR REPLACE FUNCTION refund.stop_{key}() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM pg_advisory_xact_lock({key}); RETURN NULL; END $$;
                CREATE OR REPLACE TRIGGER stop AFTER {event} ON refund.{table} FOR EACH STATEMENT
                EXECUTE FUNCTION refund.stop_{key}();
                """
            )
    access = roles.admin
    holder = psycopg2.connect(
        host=access.host, port=access.port, user=access.user, password=access.password, dbname=access.database
    )
    holder.autocommit = True
    try:
        for key in GATES.values():
            holder.cursor().execute("SELECT pg_advisory_lock(%s)", (key,))
        yield lambda key: holder.cursor().execute("SELECT pg_advisory_unlock(%s)", (key,))
    finally:
        holder.close()


def test_an_analyst_sees_none_of_a_night_before_its_commit_and_all_of_it_after(roles: Roles) -> None:
    """Stopped where photos, decisions and last the run are written and not committed; then another model's run."""
    first = (real("a"), real("b", kind="review", reasons=("low_score",)), real("c", reason="corrupt"))
    second = (real("a", category="bags"), real("b", category="bags"))
    for run_id, model in (("r1", MODEL), ("r2", OTHER_MODEL)):
        begin(roles.app, run_id, model=model)
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted"
    results: list[Any] = []

    def run(run_id: str, model: str, photos: tuple[Photo, ...]) -> None:
        results.append(
            publish(
                Database(roles.app), run_id=run_id, shards=[shard(*photos, model=model)], unchanged=None,
                expected=counts(*photos), audit_share=1.0, at=NOON,
            )
        )  # fmt: skip

    with analyst_of(roles) as look:
        for run_id, model, photos in (("r1", MODEL, first), ("r2", OTHER_MODEL, second)):
            before = look()
            with gates(roles) as open_gate:
                publisher = threading.Thread(target=run, args=(run_id, model, photos), daemon=True)
                publisher.start()
                for stop, key in GATES.items():
                    give_up_at = time.monotonic() + 60
                    while rows(roles.admin, waiting, key) == [(0,)]:
                        assert publisher.is_alive(), stop
                        assert time.monotonic() < give_up_at, stop
                        time.sleep(0.02)
                    assert look() == before, f"{run_id}, stopped at {stop}"
                    open_gate(key)
                publisher.join(20)
            after = look()
            changed = {view for view in after if after[view] != before[view]}
            assert {"photos", "daily_categories", "reconciliation", "runs", "refunds", "audit_queue"} <= changed
    assert results == [counts(*first), counts(*second)]
    assert rows(roles.analyst, "SELECT run_id, model FROM reporting.photos WHERE outcome = 'classified'") == [
        ("r2", OTHER_MODEL),
        ("r2", OTHER_MODEL),
    ]
    assert rows(roles.analyst, "SELECT category, photos FROM reporting.daily_categories") == [("bags", 2)]
