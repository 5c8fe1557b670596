"""Made-up nights as they are drawn: the same by seed, like nights of a shop, one of them shifted."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import date, timedelta
from uuid import uuid4

import pytest

from refund.errors import SettingsError
from refund.lifecycle.demo_nights import (
    DemoPhoto,
    audit_ratio,
    classes_by_category,
    draw_day,
    prediction_rows,
    reviews,
    surest,
)
from refund.lifecycle.demo_plan import SHIFT_RATIO, SHIFTED_CATEGORY, DemoPlan, start_of
from refund.local.demo_pictures import cup_pictures
from refund.model.labels import load_labels
from refund.model.taxonomy import load_taxonomy
from refund.records import DecisionKind

CLASSES = classes_by_category()
PLAN = DemoPlan(nights=8, photos=5_000, ending=date(2026, 11, 22), seed=3)


def draw(day: date, plan: DemoPlan = PLAN) -> tuple[DemoPhoto, ...]:
    return draw_day(plan, day, classes=CLASSES)


@pytest.fixture(scope="module")
def week() -> dict[date, tuple[DemoPhoto, ...]]:
    return {day: draw(day) for day in PLAN.dates}


def share(photos: tuple[DemoPhoto, ...], category: str) -> float:
    return Counter(photo.category for photo in photos)[category] / len(photos)


def test_a_day_depends_on_its_date_and_the_seed_alone() -> None:
    small = replace(PLAN, photos=50)
    day = PLAN.dates[1]
    assert draw(day, small) == draw(day, replace(small, nights=20))
    assert draw(day, small) != draw(day, replace(small, seed=4))
    assert draw(day, small) != draw(PLAN.dates[2], small)


def test_one_night_is_shifted_and_the_others_only_vary(week: dict[date, tuple[DemoPhoto, ...]]) -> None:
    assert PLAN.shifted == date(2026, 11, 20)
    usual = [share(photos, SHIFTED_CATEGORY) for day, photos in week.items() if day != PLAN.shifted]
    moved = share(week[date(2026, 11, 20)], SHIFTED_CATEGORY) - sum(usual) / len(usual)
    assert moved == pytest.approx(SHIFT_RATIO, abs=0.02)
    assert max(usual) - min(usual) < 0.03
    assert replace(PLAN, nights=2).shifted is None


def test_nights_are_like_those_of_a_shop(week: dict[date, tuple[DemoPhoto, ...]]) -> None:
    volumes = [len(photos) for photos in week.values()]
    assert 0.9 * PLAN.photos < sum(volumes) / len(volumes) < 1.1 * PLAN.photos
    assert len(week[date(2026, 11, 16)]) > 1.15 * len(week[date(2026, 11, 22)])  # a Monday, a Sunday
    photos = [photo for drawn in week.values() for photo in drawn]
    for what, low, high in (
        (sum(photo.reason is not None for photo in photos), 0.01, 0.02),
        (sum(photo.late for photo in photos), 0.01, 0.03),
        (sum(photo.kind is DecisionKind.REVIEW for photo in photos), 0.05, 0.25),
        (sum(photo.category == photo.truth for photo in photos), 0.9, 0.97),
    ):
        assert low < what / len(photos) < high
    assert len({photo.key for photo in photos}) == len(photos)
    assert all(photo.key.startswith(f"demo/{photo.day}/{photo.refund_id}/") for photo in photos)


def test_what_the_machine_says_fits_the_taxonomy_and_adds_up() -> None:
    taxonomy = load_taxonomy(labels=load_labels())
    assert set(CLASSES) == set(taxonomy.categories)
    photos = draw(PLAN.dates[0], replace(PLAN, photos=500))
    assert all(taxonomy.category_of(photo.class_id) == photo.category for photo in photos)
    assert all(0 < photo.confidence <= photo.score <= 1 for photo in photos)
    rows = prediction_rows(photos, "b", "m@1")
    assert len(rows) == sum(photo.reason is None for photo in photos)
    assert all((row["kind"] == "review") == bool(row["reasons"]) for row in rows)


def test_people_review_what_waits_for_them_and_what_they_are_to_check() -> None:
    photos = draw(PLAN.dates[0], replace(PLAN, photos=500))
    found = reviews(photos, bucket="b", audit_share=0.1)
    by_id = {photo.photo_id("b"): photo for photo in photos}
    assert {review.chosen_by for review in found} == {"queue", "audit"}
    for review in found:
        photo = by_id[review.photo_id]
        assert (photo.kind is DecisionKind.REVIEW) == (review.chosen_by == "queue")
        assert (review.category, review.photo_date) == (photo.truth, photo.day)
        assert review.reviewed_at > start_of(photo.run_date) + timedelta(hours=5)
        assert review.chosen_by == "queue" or audit_ratio(review.photo_id) < 0.1


def test_the_draw_for_audits_is_that_of_postgres(database: object) -> None:
    from refund.store.database import Database
    from refund.store.repository import Repository

    ids = [str(uuid4()) for _ in range(20)]
    listed = ", ".join(f"refund.audit_ratio('{photo_id}'::uuid)" for photo_id in ids)
    _, [found] = Repository(Database(database.app)).select(f"SELECT {listed}")  # type: ignore[attr-defined]
    assert list(found) == pytest.approx([audit_ratio(photo_id) for photo_id in ids])


def test_the_surest_photos_are_those_that_a_report_shows() -> None:
    photos = draw(PLAN.dates[0], replace(PLAN, photos=500))
    first = surest(photos, "clothing", 3)
    assert [photo.score for photo in first] == sorted((photo.score for photo in first), reverse=True)
    assert all((photo.category, photo.reason, photo.late) == ("clothing", None, False) for photo in first)


def test_pictures_are_small_different_and_always_the_same() -> None:
    pictures = cup_pictures(12)
    assert len(set(pictures)) == 12
    assert all(body[:2] == b"\xff\xd8" and len(body) < 40_000 for body in pictures)
    assert cup_pictures(2) == pictures[:2]


@pytest.mark.parametrize(
    ("over", "text"),
    [
        ({"nights": 0}, "--nights must lie in 1..366, got 0"),
        ({"photos": 5}, "--photos must lie in 10..100000, got 5"),
        ({"seed": -1}, "--seed must lie in 0..2147483648, got -1"),
    ],
)
def test_a_plan_out_of_range_is_refused(over: dict[str, int], text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        replace(PLAN, **over)
    assert str(caught.value) == text
