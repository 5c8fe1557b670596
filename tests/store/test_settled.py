"""The mark that spares looking for a review is never there without one, whoever writes, takes back or publishes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
import pytest

from refund.settings import DatabaseAccess
from refund.store.database import Database
from refund.store.nights import REVIEW_QUEUE
from refund.store.repository import Repository
from refund.store.reviews import StagedReview, write_reviews
from tests.conftest import Roles
from tests.store.factories import DAY, MODEL, NOON, OTHER_MODEL, Photo, night, rows

A, B, C = (
    Photo(key=f"incoming/{DAY}/R-{name}/1.jpg", refund_id=f"R-{name}", kind="review", reasons=("low_score",), score=0.3)
    for name in "ABC"
)
SURE = Photo(key=f"incoming/{DAY}/R-S/1.jpg", refund_id="R-S")
REVIEW = (
    "INSERT INTO refund.review (photo_date, photo_id, category, reviewed_by, chosen_by) "
    "VALUES (%s, %s, 'shoes', %s, 'queue')"
)


# As a release at migration 0008 left it: a run with decisions, one without, and one that was not published.
BEFORE = """
SELECT refund.ensure_partitions(%(day)s, %(day)s);
INSERT INTO refund.run (run_id, run_date, state, model, taxonomy_version, code_version, params, started_at,
  published_at, photos, classified, rejected, unchanged)
SELECT run_id, %(day)s, state, %(model)s, 't1', '0', '{}', now(), now(), 0, 0, 0, 0
FROM (VALUES ('r1', 'published'), ('r2', 'published'), ('r3', 'running')) AS run (run_id, state);
CREATE TEMPORARY TABLE made AS
SELECT gen_random_uuid() AS photo_id, category, kind
FROM (VALUES ('reviewed', 'review'), ('waiting', 'review'), ('sure', 'auto')) AS photo (category, kind);
INSERT INTO refund.photo (photo_date, photo_id, bucket, key, etag, size_bytes, first_run_id)
SELECT %(day)s, photo_id, 'b', category, 'e', 1, 'r1' FROM made;
INSERT INTO refund.run_photo (photo_date, photo_id, run_id, outcome)
SELECT %(day)s, photo_id, 'r1', 'classified' FROM made;
INSERT INTO refund.prediction (photo_date, photo_id, model, class_id, class_name, confidence, top_k, run_id)
SELECT %(day)s, photo_id, %(model)s, 'n1', 'shoe', 0.5, '[]', 'r1' FROM made;
INSERT INTO refund.decision (photo_date, photo_id, run_id, category, score, kind, reasons, category_scores, model,
  taxonomy_version, threshold, decided_at)
SELECT %(day)s, photo_id, 'r1', category, 0.5, kind, CASE kind WHEN 'review' THEN ARRAY['low_score'] ELSE '{}' END,
  '{}', %(model)s, 't1', 0.5, now() FROM made;
INSERT INTO refund.review (photo_date, photo_id, category, reviewed_by, chosen_by)
SELECT %(day)s, photo_id, 'shoes', 'ana', 'queue' FROM made WHERE category <> 'waiting';
SELECT 1
"""


@contextmanager
def session(access: DatabaseAccess) -> Iterator[Any]:
    """A cursor in a transaction of its own, which is rolled back unless it was committed."""
    connection = psycopg2.connect(
        host=access.host, port=access.port, dbname=access.database, user=access.user, password=access.password
    )
    try:
        yield connection.cursor()
    finally:
        connection.close()


def review(roles: Roles, *photos: Photo, by: str = "ana") -> None:
    with Database(roles.app).connect() as connection, connection.cursor() as cursor:
        for photo in photos:
            cursor.execute(REVIEW, (photo.day, photo.photo_id, by))


def settled(roles: Roles) -> list[str]:
    """The refunds of live decisions with the mark."""
    return [
        refund.removeprefix("R-")
        for (refund,) in rows(
            roles.owner,
            "SELECT p.refund_id FROM refund.decision d JOIN refund.photo p USING (photo_date, photo_id) "
            "WHERE d.settled AND d.superseded_by IS NULL ORDER BY 1",
        )
    ]


def queue(roles: Roles) -> int:
    """How many wait, as the morning report counts them; the view says the same."""
    ((counted,),) = rows(roles.app, REVIEW_QUEUE)
    assert rows(roles.app, "SELECT count(*) FROM reporting.review_queue") == [(counted,)]
    return int(counted)


def unmarked_or_reviewed(roles: Roles) -> bool:
    return rows(
        roles.owner,
        "SELECT count(*) FROM refund.decision d WHERE d.settled AND NOT EXISTS (SELECT FROM refund.review v "
        "WHERE v.photo_date = d.photo_date AND v.photo_id = d.photo_id)",
    ) == [(0,)]


def test_a_review_marks_the_decision_that_waited_for_it_and_no_other(roles: Roles) -> None:
    night(roles.app, "r1", A, B, SURE)
    assert (settled(roles), queue(roles)) == ([], 2)
    review(roles, A, SURE)
    assert (settled(roles), queue(roles)) == (["A"], 1)


def test_an_import_marks_all_that_it_brings(roles: Roles) -> None:
    night(roles.app, "r1", A, B, C)
    staged = (
        StagedReview(
            line=line, key=photo.key, photo_id=None, category="shoes", reviewed_by="ana", reviewed_at=NOON,
            chosen_by=None, note=None,
        )
        for line, photo in enumerate((A, B), start=1)
    )  # fmt: skip
    write_reviews(
        Database(roles.app), staged, bucket="b", at=NOON, actor="ana", subject="file", refuse=lambda told, count: None
    )
    assert (settled(roles), queue(roles)) == (["A", "B"], 1)


def test_a_review_that_is_taken_back_takes_the_mark_along_even_where_another_remains(roles: Roles) -> None:
    night(roles.app, "r1", A, B)
    review(roles, A, B)
    review(roles, A, by="ben")
    rows(roles.app, "DELETE FROM refund.review WHERE reviewed_by = 'ana' RETURNING 1")
    assert (settled(roles), queue(roles)) == ([], 1), "ben's review of A counts, with or without the mark"


def test_a_review_that_is_rolled_back_leaves_no_mark(roles: Roles) -> None:
    night(roles.app, "r1", A)
    with session(roles.app) as cursor:
        cursor.execute(REVIEW, (A.day, A.photo_id, "ana"))
    assert (settled(roles), queue(roles)) == ([], 1)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE refund.review SET photo_id = (SELECT photo_id FROM refund.photo WHERE refund_id = 'R-B') RETURNING 1",
        "TRUNCATE refund.review; SELECT 1",
    ],
)
def test_what_only_the_owner_may_do_to_reviews_leaves_no_mark_behind_either(roles: Roles, statement: str) -> None:
    night(roles.app, "r1", A, B)
    review(roles, A)
    rows(roles.owner, statement)
    assert settled(roles) == []


def test_a_decision_made_anew_begins_without_the_mark_and_its_photo_does_not_wait_again(roles: Roles) -> None:
    night(roles.app, "r1", A, B)
    review(roles, A)
    night(roles.app, "r2", A, B, model=OTHER_MODEL)
    assert (settled(roles), queue(roles)) == ([], 1)


def test_a_replaced_photo_and_one_of_a_made_up_night_are_in_neither_count(roles: Roles) -> None:
    night(roles.app, "r1", A, B)
    night(roles.app, "r2", Photo(key=A.key, etag="e2", refund_id="R-A", kind="review", reasons=("low_score",)))
    night(roles.app, "r3", C)
    rows(roles.owner, "UPDATE refund.run SET synthetic = true WHERE run_id = 'r3' RETURNING 1")
    assert queue(roles) == 2
    assert Repository(Database(roles.app)).night_figures("r1").review_queue == 2


def test_a_review_does_not_wait_for_a_publish_that_replaces_the_decision(roles: Roles) -> None:
    night(roles.app, "r1", A, B)
    with session(roles.app) as publish, session(roles.app) as person:
        publish.execute("UPDATE refund.decision SET superseded_by = 'r2' WHERE photo_id = %s", (A.photo_id,))
        person.execute("SET lock_timeout = '10s'")
        person.execute(REVIEW, (A.day, A.photo_id, "ana"))
        person.execute(REVIEW, (B.day, B.photo_id, "ana"))
        person.connection.commit()
        publish.connection.rollback()
    assert (settled(roles), queue(roles)) == (["B"], 0), "A has its review, and is found reviewed without the mark"


def test_of_two_reviews_taken_back_at_once_no_mark_remains(roles: Roles) -> None:
    night(roles.app, "r1", A)
    review(roles, A)
    review(roles, A, by="ben")
    begun = threading.Barrier(2, timeout=30)

    def take_back(by: str) -> None:
        with session(roles.app) as cursor:
            cursor.execute("SELECT count(*) FROM refund.review")
            begun.wait()
            cursor.execute("DELETE FROM refund.review WHERE reviewed_by = %s", (by,))
            cursor.connection.commit()

    people = [threading.Thread(target=take_back, args=(by,)) for by in ("ana", "ben")]
    for person in people:
        person.start()
    for person in people:
        person.join(timeout=30)
    assert rows(roles.app, "SELECT count(*) FROM refund.review") == [(0,)]
    assert (settled(roles), queue(roles)) == ([], 1)


def test_a_review_written_while_another_is_taken_back_leaves_no_mark_without_a_review(roles: Roles) -> None:
    night(roles.app, "r1", A)
    review(roles, A)
    with session(roles.app) as one, session(roles.app) as other:
        one.execute("DELETE FROM refund.review WHERE reviewed_by = 'ana'")
        other.execute(REVIEW, (A.day, A.photo_id, "ben"))
        other.connection.rollback()
        one.connection.commit()
    assert (settled(roles), queue(roles), unmarked_or_reviewed(roles)) == ([], 1, True)


def test_the_application_may_not_set_the_mark_itself(roles: Roles) -> None:
    night(roles.app, "r1", A)
    with session(roles.app) as cursor, pytest.raises(psycopg2.errors.InsufficientPrivilege):
        cursor.execute("UPDATE refund.decision SET settled = true")
    with session(roles.app) as cursor, pytest.raises(psycopg2.errors.InsufficientPrivilege):
        cursor.execute("SELECT refund.settle_reviewed()")


def test_what_was_reviewed_and_sorted_before_is_filled_in_by_the_migration(empty_database: Roles) -> None:
    from alembic import command

    from refund.store.migrate import _config, _engine, migrate
    from tests.store.factories import register_models

    engine, config = _engine(empty_database.owner), _config(applied=[])
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA refund")
        config.attributes["connection"] = connection
        command.upgrade(config, "0008")
    engine.dispose()
    register_models(empty_database)
    with Database(empty_database.admin).connect() as connection, connection.cursor() as cursor:
        cursor.execute(BEFORE, {"day": DAY, "model": MODEL})
    assert migrate(empty_database.owner) == ["0009"]
    assert rows(empty_database.owner, "SELECT category FROM refund.decision WHERE settled") == [("reviewed",)]
    assert queue(empty_database) == 1
    assert rows(empty_database.owner, "SELECT run_id, sorted FROM refund.run ORDER BY 1") == [
        ("r1", {MODEL: {"reviewed": 1, "waiting": 1, "sure": 1}}),
        ("r2", {}),
        ("r3", None),
    ]
