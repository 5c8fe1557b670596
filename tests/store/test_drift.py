"""The window that drift is measured on, and its verdicts, on a real Postgres."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from refund.monitor.drift import compare_shares
from refund.store.database import Database
from refund.store.drift import CANDIDATES, REJECTED, SORTED, get_drift, reference_nights, save_drift, whole_nights
from refund.store.publish import publish
from refund.store.repository import Repository
from tests.conftest import Roles
from tests.store.factories import DAY, MODEL, NOON, OTHER_MODEL, Photo, begin, counts, night, rows, shard

A = Photo(key="incoming/2026-11-21/R1/a.jpg", labels=("dark", "blurry"))
B = Photo(key="incoming/2026-11-21/R1/b.jpg", category="bags", kind="review", reasons=("low_score",), score=0.3)
BAD = Photo(key="incoming/2026-11-21/R2/bad.jpg", reason="truncated")


@pytest.fixture
def repository(roles: Roles) -> Repository:
    return Repository(Database(roles.app))


def window(repository: Repository, before: date, model: str, count: int, **over: Any) -> list[dict[str, int]]:
    nights = reference_nights(repository.database, run_date=before, model=model, count=count, **over)
    return [dict(found.categories) for found in nights]


def test_drift_is_written_over_by_measure(roles: Roles, repository: Repository) -> None:
    begin(roles.app, "r1")
    shifted = compare_shares({"shoes": 300}, [{"bags": 300}], distance_floor=0.1, min_photos=10)
    for result in (compare_shares({"shoes": 3}, [], distance_floor=0.1, min_photos=10), shifted):
        save_drift(repository.database, "r1", DAY, result, at=NOON)
    (row,) = get_drift(repository.database, "r1")
    assert (row.status, row.distance, row.tonight_photos) == ("drift", pytest.approx(1.0), 300)
    assert row.details["moves"][0]["category"] in ("shoes", "bags")


def test_an_overwritten_photo_counts_once(roles: Roles, repository: Repository) -> None:
    newer_b, newer_bad = replace(B, etag="e2", category="shoes", kind="auto", reasons=()), replace(BAD, etag="e2")
    review = (
        "INSERT INTO refund.review (photo_date, photo_id, category, reviewed_by, chosen_by) "
        "VALUES (%s, %s, %s, %s, %s) RETURNING 1"
    )
    night(roles.app, "r1", A, B, BAD)
    for photo in (A, B):
        rows(roles.app, review, DAY, photo.photo_id, "shoes", "ada", "queue")
    night(roles.app, "r2", newer_b, newer_bad, unchanged=(A,))  # B and BAD were overwritten
    figures = repository.night_figures("r2")
    assert (figures.model_categories, figures.night_rejections) == ({MODEL: {"shoes": 2}}, {"truncated": 1})
    assert (figures.example_rejections[0].key, len(figures.example_rejections)) == (BAD.key, 1)
    assert figures.quality_labels == {"blurry": 1, "dark": 1}
    assert window(repository, DAY + timedelta(days=1), MODEL, 28) == [{"shoes": 2}]
    for view, found in (
        ("SELECT category, photos FROM reporting.daily_categories", [("shoes", 2)]),
        ("SELECT photos, rejected FROM reporting.daily_quality", [(3, 1)]),
        ("SELECT count(*) FROM reporting.rejections", [(1,)]),
        ("SELECT reviewed, correct FROM reporting.model_accuracy", [(1, 1)]),
        ("SELECT count(*) FROM reporting.photos", [(3,)]),
    ):
        assert rows(roles.analyst, view) == found, view
    kept = rows(roles.owner, "SELECT count(*) FROM refund.decision WHERE superseded_by IS NULL")
    assert kept == [(3,)]  # history
    night(roles.app, "r3", unchanged=(A, B, newer_bad))  # the first B was uploaded again
    assert repository.night_figures("r3").model_categories == {MODEL: {"shoes": 1, "bags": 1}}


def test_reference_shares_are_those_of_earlier_nights_of_the_same_model(roles: Roles, repository: Repository) -> None:
    for back, model in ((3, MODEL), (2, OTHER_MODEL), (1, MODEL), (0, MODEL)):
        shoes = Photo(key=f"incoming/{back}.jpg")
        night(
            roles.app,
            f"r{9 - back}",
            shoes,
            replace(B, key=f"b{back}"),
            run_date=DAY - timedelta(days=back),
            model=model,
        )
    night(roles.app, "x1", Photo(key="incoming/s.jpg"), run_date=DAY - timedelta(days=5))
    rows(roles.owner, "UPDATE refund.run SET synthetic = true WHERE run_id = 'x1' RETURNING 1")
    both = {"shoes": 1, "bags": 1}
    assert window(repository, DAY, MODEL, 28) == [both, both]
    assert window(repository, DAY, MODEL, 1) == [both]
    assert window(repository, DAY - timedelta(days=3), MODEL, 28) == []
    begin(
        roles.app, "y7", run_date=DAY - timedelta(days=1)
    )  # a night that is under way, and one that lists no photo, are none
    night(roles.app, "y9", run_date=DAY - timedelta(days=1))
    assert window(repository, DAY, MODEL, 1, taxonomy_version="t1") == [both]
    assert window(repository, DAY, MODEL, 28, taxonomy_version="t2") == []


def test_reference_shares_add_up_the_runs_of_a_night(roles: Roles, repository: Repository) -> None:
    yesterday = DAY - timedelta(days=1)
    night(roles.app, "r1", A, run_date=yesterday)
    night(roles.app, "r2", B, unchanged=(A,), run_date=yesterday)
    night(roles.app, "r3", replace(A, key="incoming/c.jpg"), run_date=yesterday, taxonomy_version="t2")
    assert window(repository, DAY, MODEL, 1, taxonomy_version="t1") == [{"shoes": 1, "bags": 1}]
    assert window(repository, DAY, MODEL, 1) == [{"shoes": 2, "bags": 1}]


def test_a_night_by_two_models_counts_for_each_with_its_own_photos(roles: Roles, repository: Repository) -> None:
    yesterday = DAY - timedelta(days=1)
    night(roles.app, "r1", A, replace(B, model=OTHER_MODEL), run_date=yesterday, audit_share=1.0)
    figures = repository.night_figures("r1")
    assert figures.model_categories == {MODEL: {"shoes": 1}, OTHER_MODEL: {"bags": 1}}
    assert figures.model_counts == {MODEL: 1, OTHER_MODEL: 1}
    assert figures.audits == 1
    assert window(repository, DAY, MODEL, 28) == [{"shoes": 1}]
    assert window(repository, DAY, OTHER_MODEL, 28) == [{"bags": 1}]
    night(roles.app, "r2", B, unchanged=(A,), run_date=yesterday)  # decided anew
    assert window(repository, DAY, OTHER_MODEL, 28) == []
    assert window(repository, DAY, MODEL, 28) == [{"shoes": 1, "bags": 1}]


def test_a_reference_night_has_what_was_rejected_by_all_its_runs(roles: Roles, repository: Repository) -> None:
    yesterday = DAY - timedelta(days=1)
    night(roles.app, "r1", A, BAD, run_date=yesterday)
    night(roles.app, "r2", replace(BAD, key="incoming/x.jpg"), unchanged=(A, BAD), run_date=yesterday)
    night(roles.app, "r3", replace(BAD, etag="e2", reason="corrupt"), unchanged=(A,), run_date=yesterday)  # overwritten
    other = replace(BAD, key="incoming/y.jpg")
    night(roles.app, "r4", other, run_date=yesterday, model=OTHER_MODEL, taxonomy_version="t2")
    (found,) = reference_nights(repository.database, run_date=DAY, model=MODEL, count=28, taxonomy_version="t1")
    assert (found.run_date, dict(found.categories), found.rejected) == (yesterday, {"shoes": 1}, 3)
    assert repository.night_figures("r1").night_rejections == {
        "corrupt": 1,
        "truncated": 2,
    }  # as tonight counts


def test_a_night_whose_photos_were_all_rejected_is_one_of_the_model_it_began_with(
    roles: Roles, repository: Repository
) -> None:
    first, second = DAY - timedelta(days=2), DAY - timedelta(days=1)
    night(roles.app, "r1", BAD, run_date=first)
    night(roles.app, "r2", replace(BAD, key="incoming/x.jpg"), run_date=second)
    night(roles.app, "r3", A, unchanged=(BAD,), run_date=second, model=OTHER_MODEL)  # this one was sorted after all
    found = reference_nights(repository.database, run_date=DAY, model=MODEL, count=28)
    assert [(counts.run_date, dict(counts.categories), counts.rejected) for counts in found] == [(first, {}, 1)]
    (found_other,) = reference_nights(repository.database, run_date=DAY, model=OTHER_MODEL, count=28)
    assert (found_other.run_date, found_other.classified, found_other.rejected) == (second, 1, 1)


def test_a_night_that_a_later_one_decided_anew_gives_its_place_to_an_older_one(
    roles: Roles, repository: Repository
) -> None:
    for back in (4, 3, 2):
        photo = Photo(key=f"incoming/{back}.jpg")
        bad = replace(BAD, key=f"incoming/bad{back}.jpg")
        night(roles.app, f"r{9 - back}", photo, bad, run_date=DAY - timedelta(days=back))
    anew = tuple(Photo(key=f"incoming/{back}.jpg", model=OTHER_MODEL) for back in (3, 2))
    night(roles.app, "s1", *anew, run_date=DAY - timedelta(days=1), model=OTHER_MODEL)
    found = reference_nights(repository.database, run_date=DAY, model=MODEL, count=1)
    assert [(counts.run_date, counts.classified, counts.rejected) for counts in found] == [
        (DAY - timedelta(days=4), 1, 1)
    ]


def test_made_up_nights_are_compared_with_made_up_ones(roles: Roles, repository: Repository) -> None:
    yesterday = DAY - timedelta(days=1)
    night(roles.app, "r1", A, run_date=yesterday)
    night(roles.app, "x1", B, replace(BAD, key="incoming/x.jpg"), run_date=yesterday)
    rows(roles.owner, "UPDATE refund.run SET synthetic = true WHERE run_id = 'x1' RETURNING 1")
    for synthetic, expected in ((False, ({"shoes": 1}, 0)), (True, ({"bags": 1}, 1))):
        (found,) = reference_nights(repository.database, run_date=DAY, model=MODEL, count=28, synthetic=synthetic)
        assert (dict(found.categories), found.rejected) == expected


def test_a_night_that_two_models_shared_is_whole_where_the_model_does_not_matter(
    roles: Roles, repository: Repository
) -> None:
    night(roles.app, "r1", Photo(key="incoming/1.jpg"), run_date=DAY - timedelta(days=2))
    yesterday = DAY - timedelta(days=1)
    night(roles.app, "r2", A, replace(B, model=OTHER_MODEL), BAD, run_date=yesterday)
    night(roles.app, "r3", Photo(key="incoming/3.jpg"), run_date=yesterday, taxonomy_version="t2")
    asked = {"model": MODEL, "taxonomy_version": "t1"}
    own = reference_nights(repository.database, run_date=DAY, count=28, **asked)
    whole = whole_nights(repository.database, own, **asked)
    assert [(counts.classified, counts.photos) for counts in own] == [(1, 1), (1, 2)]
    assert [(dict(counts.categories), counts.photos) for counts in whole] == [
        ({"shoes": 1}, 1),
        ({"shoes": 2, "bags": 1}, 4),
    ]
    assert whole_nights(repository.database, own[:1], **asked) == own[:1]


COUNTED = """
SELECT run_id, jsonb_object_agg(category, photos) FROM (
  SELECT d.run_id, d.category, count(*) AS photos
  FROM refund.decision d JOIN refund.photo p USING (photo_date, photo_id)
  WHERE d.superseded_by IS NULL AND p.superseded_by IS NULL AND (%(model)s::text IS NULL OR d.model = %(model)s)
  GROUP BY d.run_id, d.category) counted
GROUP BY run_id
"""


def test_what_runs_sorted_is_added_up_to_what_counting_their_decisions_gives(roles: Roles) -> None:
    c, d, e, f = (Photo(key=f"incoming/2026-11-21/R3/{name}.jpg", category=name) for name in "cdef")
    night(roles.app, "r1", A, B, BAD, c, d)
    begin(roles.app, "r2")  # lists c and e, fails, and is cleared when all others have ended
    night(roles.app, "r3", replace(A, category="bags"), c, model=OTHER_MODEL)  # decided anew
    night(roles.app, "r4", replace(B, etag="e2"), unchanged=(d,))  # a newer version
    night(roles.app, "r5", replace(d, reason="corrupt"), params={"review_threshold": 0.5, "force": True})
    night(roles.app, "r6", unchanged=(B,))  # the first version again
    night(roles.app, "r7", e, replace(f, model=OTHER_MODEL))  # two models in one run
    late = (c, replace(e, category="toys"))
    publish(
        Database(roles.app), run_id="r2", shards=[shard(*late)], unchanged=None, expected=counts(*late),
        audit_share=0.0, at=NOON,
    )  # fmt: skip
    runs = [f"r{number}" for number in range(1, 8)]
    for forgotten in ("", "UPDATE refund.run SET sorted = NULL WHERE run_id IN ('r1', 'r3')"):
        rows(roles.owner, f"{forgotten}; SELECT 1")
        for model in (MODEL, OTHER_MODEL, None):
            values = {"runs": runs, "model": model}
            with Database(roles.app).connect() as connection, connection.cursor() as cursor:
                cursor.execute(SORTED, values)
                added_up = dict(cursor.fetchall())
                cursor.execute(COUNTED, values)
                assert added_up == dict(cursor.fetchall()), (model, forgotten)
                assert added_up
    assert rows(roles.owner, "SELECT sorted FROM refund.run WHERE run_id = 'r7'") == [
        ({MODEL: {"e": 1}, OTHER_MODEL: {"f": 1}},)
    ]
    assert rows(roles.owner, "SELECT sorted FROM refund.run WHERE run_id = 'r6'") == [({},)]


LOAD = """
SELECT refund.ensure_partitions(%(last)s::date - %(nights)s::integer, %(last)s::date);
SET LOCAL session_replication_role = replica;  -- no foreign keys: decisions and outcomes alone
INSERT INTO refund.run (run_id, run_date, state, model, models, taxonomy_version, code_version, params, photos,
  classified, rejected, unchanged, started_at, published_at, sorted)
SELECT 'n' || back, %(last)s::date - back, 'published', %(model)s, ARRAY[%(model)s], 't1', '0', '{}', 60, 50, 10, 0,
       now(), now(), jsonb_build_object(%(model)s::text, (
         SELECT jsonb_object_agg(category, photos)
         FROM (SELECT 'c' || n %% 7 AS category, count(*) AS photos FROM generate_series(1, 20) AS n GROUP BY 1) made))
FROM generate_series(1, %(nights)s) AS back ON CONFLICT DO NOTHING;
INSERT INTO refund.decision (photo_date, photo_id, run_id, category, score, kind, reasons, category_scores, model,
  taxonomy_version, threshold, decided_at)
SELECT %(last)s::date - back, gen_random_uuid(), 'n' || back, 'c' || n %% 7, 0.9, 'auto', '{}', '{}', %(model)s, 't1',
       0.5, now()
FROM generate_series(1, %(nights)s) AS back, generate_series(1, 20) AS n;
INSERT INTO refund.run_photo (photo_date, photo_id, run_id, outcome, reason)
SELECT %(last)s::date - back, gen_random_uuid(), 'n' || back, 'rejected', 'corrupt'
FROM generate_series(1, %(nights)s) AS back, generate_series(1, 10) AS n;
"""


def scans(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "Scan" in plan["Node Type"]:
        yield plan
    for child in plan.get("Plans", ()):
        yield from scans(child)


def rows_read(roles: Roles, statement: str, values: dict[str, Any]) -> int:
    """Rows that the scans of a statement looked at."""
    with Database(roles.admin).connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", values)
        (plans,) = cursor.fetchone() or ()
    found = json.loads(plans) if isinstance(plans, str) else plans
    return sum(
        int((scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0)) * scan["Actual Loops"])
        for scan in scans(found[0]["Plan"])
    )


def test_the_window_costs_the_same_however_long_the_history(roles: Roles, repository: Repository) -> None:
    """Rows that are looked at, not seconds: of more than a year of nights those of the window and little more."""
    values = {"last": DAY, "model": MODEL, "nights": 400}
    with Database(roles.admin).connect() as connection, connection.cursor() as cursor:
        cursor.execute(LOAD, values)
    with Database(roles.admin).connect() as connection, connection.cursor() as cursor:
        cursor.execute("ANALYZE refund.run, refund.decision, refund.run_photo")
    found = reference_nights(repository.database, run_date=DAY, model=MODEL, count=14, taxonomy_version="t1")
    assert [(counts.classified, counts.rejected) for counts in found] == [(20, 10)] * 14
    bound = {"before": DAY, "taxonomy_version": "t1", "synthetic": False, "nights": 14, "model": MODEL}
    bound["runs"] = [f"n{back}" for back in range(1, 15)]
    assert rows_read(roles, CANDIDATES, bound) <= 20  # of 400
    # two months of partitions may be read whole where they are as small as here
    assert rows_read(roles, SORTED, bound) <= 62 * 20  # of 8,000
    assert rows_read(roles, REJECTED, bound) <= 2 * 62 * 10  # of 4,000
