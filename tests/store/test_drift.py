"""The window that drift is measured on, and its verdicts, on a real Postgres."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from refund.monitor.drift import compare_shares
from refund.store.database import Database
from refund.store.drift import get_drift, reference_nights, save_drift
from refund.store.repository import Repository
from tests.conftest import Roles
from tests.store.factories import DAY, MODEL, NOON, OTHER_MODEL, Photo, begin, night, rows

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
