"""What the history shows: filters, order, pages, counts, and how long a year takes."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from refund.errors import QueryError
from refund.store import history
from refund.store.database import Database
from refund.store.history import (
    NIGHT_COLUMNS,
    TRIAL_COLUMNS,
    HistoryFilter,
    night_counts,
    night_page,
    night_rows,
    trial_counts,
    trial_page,
    trial_rows,
)
from tests.conftest import Roles
from tests.store.factories import MODEL, Photo, night
from tests.store.known_nights import B1, FIRST, LAST, load

HOSTILE = r"100%_\'; DROP TABLE refund.photo; --"


@pytest.fixture(scope="module")
def known(database: Roles) -> Database:
    """The known nights, one photo with a hostile name, and some trials."""
    load(database)
    hostile = Photo(key=f"incoming/{LAST}/Q/{HOSTILE}.jpg", refund_id="Q", day=LAST)
    night(database.app, "r4", hostile, run_date=LAST + timedelta(days=1))
    with Database(database.app).connect() as connection, connection.cursor() as cursor:
        for minute, (name, reason) in enumerate((("a.jpg", None), (f"{HOSTILE}.png", None), ("c.gif", "corrupt"))):
            cursor.execute(
                "INSERT INTO refund.trial (at, tried_by, request_id, filename, size_bytes, outcome, reason, model, "
                "category, category_score, decision, predictions) VALUES (%s, 'ana', 'q', %s, 9, %s, %s, %s, %s, %s, "
                "%s, %s)",
                (datetime(2026, 11, 21, 23, 57 + minute, tzinfo=UTC), name, "rejected", reason, None, None, None, None,
                 "[]") if reason else
                (datetime(2026, 11, 21, 23, 57 + minute, tzinfo=UTC), name, "classified", None, MODEL, "shoes", 0.75,
                 "auto", '[{"class_id": "n1", "class_name": "shoe", "confidence": 0.5, "category": "shoes"}]'),
            )  # fmt: skip
    return Database(database.app)


def asking(**over: Any) -> HistoryFilter:
    return HistoryFilter(**{"date_from": FIRST, "date_to": LAST + timedelta(days=1), **over})


def names(database: Database, **over: Any) -> list[str]:
    """Refund and name of the photos that a filter lets through."""
    page = night_page(database, asking(**over), limit=100)
    return ["/".join(item["key"].removesuffix(".jpg").split("/")[2:]) for item in page.items]


def test_the_newest_night_comes_first_and_within_it_photo_date_and_key(known: Database) -> None:
    items = night_page(known, asking(), limit=100).items
    order = [(-item["run_date"].toordinal(), item["photo_date"], item["key"]) for item in items]
    assert len(items) == 1 + 9 + 4 + 4
    assert order == sorted(order)
    assert (items[0]["run_date"], items[-1]["run_date"]) == (LAST + timedelta(days=1), FIRST)


def test_a_row_says_what_stands_of_a_photo(known: Database) -> None:
    (item,) = night_page(known, asking(refund_id="B"), limit=1).items
    assert tuple(item) == NIGHT_COLUMNS
    assert {name: item[name] for name in ("photo_id", "final_category", "decision", "review_reasons")} == {
        "photo_id": B1.photo_id,
        "final_category": "clothing",
        "decision": "review",
        "review_reasons": ["declared_mismatch"],
    }
    assert (item["reviewed_by"], item["run_id"], item["synthetic"]) == ("ada", "r1", False)


@pytest.mark.parametrize(
    ("over", "expected"),
    [
        ({"refund_id": "A"}, ["A/3", "A/1", "A/2"]),
        ({"refund_id": "nobody"}, []),
        ({"outcome": "rejected"}, ["G/1", "C/1"]),
        ({"decision": "review"}, [*(f"Z/{n}" for n in range(4)), "E/1", "F/1", "H/1", "B/1"]),
        ({"category": "electronics"}, ["E/1"]),
        ({"category": "clothing"}, ["F/1", "B/1"]),
        ({"category": "toys", "decision": "auto"}, ["G/2"]),  # by review: the machine said clothing
        ({"reviewed": True}, ["E/1", "G/2", "B/1"]),
        ({"reviewed": True, "decision": "auto"}, ["G/2"]),
        ({"model": "nobody@1"}, []),
        ({"text": "LOOSE"}, ["loose"]),
        ({"text": "%_\\'"}, [f"Q/{HOSTILE}"]),
        ({"text": "1_0"}, []),
        ({"date_to": FIRST}, ["A/1", "A/2", "B/1", "C/1"]),
        ({"date_from": LAST + timedelta(days=2), "date_to": LAST + timedelta(days=9)}, []),
    ],
)
def test_each_filter_lets_through_what_it_names(known: Database, over: dict[str, Any], expected: list[str]) -> None:
    assert names(known, **over) == expected
    assert night_counts(known, asking(**over)).photos == len(expected)


def test_every_filter_is_tried_above_or_is_a_date() -> None:
    tried = {"category", "decision", "outcome", "model", "refund_id", "text", "reviewed", "tried_by"}
    assert {spec.name for spec in fields(HistoryFilter)} == tried | {"date_from", "date_to"}


@pytest.mark.parametrize("size", [1, 4, 7, 100])
def test_pages_hold_every_photo_once(known: Database, size: int) -> None:
    whole = [item["photo_id"] for item in night_rows(known, asking())]
    found: list[str] = []
    for number in range(100):
        page = night_page(known, asking(), limit=size, skipped=number * size)
        found += [item["photo_id"] for item in page.items]
        if not page.has_more:
            break
    assert found == whole
    assert len(set(whole)) == 18


def test_counts_are_those_of_the_rows(known: Database) -> None:
    counts = night_counts(known, asking())
    assert counts.outcomes == {"classified": 16, "rejected": 2}
    assert counts.decisions == {"auto": 8, "review": 8}
    assert counts.days == {FIRST: 4, LAST: 13, LAST + timedelta(days=1): 1}
    assert counts.models == {MODEL: 16}
    assert counts.categories["toys"] == 5  # four made-up ones, and one by review
    assert counts.mean_confidence == pytest.approx(0.8)
    assert counts.mean_category_score is not None


def test_nothing_is_counted_as_nothing(known: Database) -> None:
    counts = night_counts(known, asking(text="there is no such key"))
    assert (counts.photos, counts.mean_confidence, counts.outcomes, counts.days) == (0, None, {}, {})


def test_trials_come_latest_first(known: Database) -> None:
    page = trial_page(known, asking(), limit=2)
    assert [item["filename"] for item in page.items] == ["c.gif", f"{HOSTILE}.png"]
    assert page.has_more
    assert tuple(page.items[0]) == TRIAL_COLUMNS
    rest = trial_page(known, asking(), limit=2, skipped=2)
    assert ([item["filename"] for item in rest.items], rest.has_more) == (["a.jpg"], False)
    assert [row["filename"] for row in trial_rows(known, asking())] == ["c.gif", f"{HOSTILE}.png", "a.jpg"]


@pytest.mark.parametrize(
    ("over", "expected"),
    [
        ({"outcome": "rejected"}, ["c.gif"]),
        ({"decision": "auto", "text": "A.J"}, ["a.jpg"]),
        ({"category": "shoes", "text": "%_\\"}, [f"{HOSTILE}.png"]),
        ({"model": "other@1"}, []),
        ({"tried_by": "ana", "outcome": "rejected"}, ["c.gif"]),
        ({"tried_by": "bob"}, []),
        ({"date_from": LAST, "date_to": LAST, "model": MODEL, "text": "jpg"}, ["a.jpg"]),
        ({"date_from": FIRST, "date_to": FIRST}, []),
    ],
)
def test_trials_are_filtered_too(known: Database, over: dict[str, Any], expected: list[str]) -> None:
    assert [item["filename"] for item in trial_page(known, asking(**over), limit=9).items] == expected
    assert trial_counts(known, asking(**over)).photos == len(expected)


def test_trials_are_counted_by_day(known: Database) -> None:
    counts = trial_counts(known, asking())
    assert counts.days == {LAST: 3}
    assert (counts.mean_confidence, counts.mean_category_score) == (0.5, 0.75)
    assert counts.outcomes == {"classified": 2, "rejected": 1}


def test_dates_at_the_ends_of_the_calendar_are_only_empty(known: Database) -> None:
    ends = {"date_from": date.min, "date_to": date.max}
    assert trial_counts(known, asking(**ends)).photos == 3
    assert night_counts(known, asking(**ends)).photos == 18


def test_what_takes_too_long_is_told(known: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "NIGHTS", "SELECT array_agg(pg_sleep(5)::text)")
    monkeypatch.setattr(history, "TIMEOUT_S", 0.1)
    with pytest.raises(QueryError, match=r"^Postgres took longer than 0\.1 s to look through these dates; ask for "):
        night_page(known, asking(), limit=1)


# --- a year --------------------------------------------------------------------------------------------------------

# The rows go in as a superuser puts them, without foreign keys being looked up a million times.
A_YEAR = """
SET LOCAL session_replication_role = replica;
SELECT refund.ensure_partitions('2025-11-01', '2026-11-30');
INSERT INTO refund.model (model, name, version, uri, sha256, card, created_by)
VALUES ('m@1', 'm', '1', 's3://b/m', repeat('0', 64), '{}', 'test');
INSERT INTO refund.run (run_id, run_date, state, model, taxonomy_version, code_version, params, started_at,
  published_at, photos, classified, rejected, unchanged)
SELECT 'n' || n, date '2026-11-21' - n, 'published', 'm@1', 't1', '0', '{}', now(), now(), 1000, 980, 20, 0
FROM generate_series(0, 364) n;
INSERT INTO refund.photo (photo_date, photo_id, bucket, key, etag, size_bytes, refund_id, first_run_id, image_format,
  width_px, height_px, sha256)
SELECT date '2026-11-21' - n, md5(n || '/' || i)::uuid, 'b',
  format('incoming/%s/R-%s/%s.jpg', date '2026-11-21' - n, n * 500 + i / 2, i), 'e', 100000,
  'R-' || (n * 500 + i / 2), 'n' || n, 'JPEG', 500, 375, repeat('0', 64)
FROM generate_series(0, 364) n, generate_series(0, 999) i;
INSERT INTO refund.run_photo (photo_date, photo_id, run_id, outcome, reason)
SELECT photo_date, photo_id, first_run_id, CASE WHEN key LIKE '%/%50.jpg' THEN 'rejected' ELSE 'classified' END,
  CASE WHEN key LIKE '%/%50.jpg' THEN 'corrupt' END FROM refund.photo WHERE first_run_id LIKE 'n%';
INSERT INTO refund.prediction (photo_date, photo_id, model, class_id, class_name, confidence, top_k, run_id)
SELECT photo_date, photo_id, 'm@1', 'n1', 'shoe', 0.8, '[]', run_id FROM refund.run_photo
WHERE outcome = 'classified' AND run_id LIKE 'n%';
INSERT INTO refund.decision (photo_date, photo_id, run_id, category, score, kind, reasons, category_scores, model,
  taxonomy_version, threshold, decided_at)
SELECT photo_date, photo_id, run_id, (ARRAY['shoes', 'clothing', 'media'])[1 + abs(hashtext(photo_id::text)) % 3], 0.7,
  CASE WHEN hashtext(photo_id::text) % 4 = 0 THEN 'review' ELSE 'auto' END,
  CASE WHEN hashtext(photo_id::text) % 4 = 0 THEN ARRAY['low_score'] ELSE '{}' END, '{"shoes": 0.7}', 'm@1', 't1', 0.5,
  now() FROM refund.run_photo WHERE outcome = 'classified' AND run_id LIKE 'n%';
INSERT INTO refund.review (photo_date, photo_id, category, reviewed_by, chosen_by)
SELECT photo_date, photo_id, 'toys_games', 'ada', 'queue' FROM refund.decision
WHERE hashtext(photo_id::text) % 8 = 0 AND photo_date < '2026-11-01' AND run_id LIKE 'n%';
"""


@pytest.fixture(scope="module")
def year(database: Roles) -> Database:
    """365 nights of 1,000 photos beside the known ones."""
    with Database(database.admin).connect() as connection, connection.cursor() as cursor:
        cursor.execute(A_YEAR)
    with Database(database.admin).connect() as connection, connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    return Database(database.app)


A_WHOLE_YEAR = {"date_from": date(2025, 11, 22), "date_to": date(2026, 11, 21)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("over", "rows"),
    [
        ({}, 50),
        ({"decision": "review", "category": "shoes"}, 50),
        ({"refund_id": "R-1234"}, 2),
        ({"outcome": "rejected", "text": "/R-7"}, 50),
        ({"reviewed": True}, 50),
        ({"category": "furniture"}, 0),  # nowhere in the year
        ({"text": "nowhere"}, 0),  # the same: every key is looked at
    ],
    ids=str,
)
def test_a_page_of_a_year_comes_within_the_desks_patience(year: Database, over: dict[str, Any], rows: int) -> None:
    """Each statement has `TIMEOUT_S`; how long they take is in docs/performance.md."""
    assert len(night_page(year, HistoryFilter(**A_WHOLE_YEAR, **over), limit=50).items) == rows


@pytest.mark.slow
def test_the_deepest_page_and_the_counts_of_a_year_come_within_the_desks_patience(year: Database) -> None:
    wanted = HistoryFilter(**A_WHOLE_YEAR)
    assert len(night_page(year, wanted, limit=50, skipped=9_950).items) == 50
    assert night_counts(year, wanted).photos >= 364_000
