"""One photo's story: its versions, and what runs, models and people made of it."""

from __future__ import annotations

from datetime import date
from uuid import UUID, uuid4

from refund.store.database import Database
from refund.store.photos import PhotoStory, StoredObject, find_object, find_photo
from tests.conftest import Roles
from tests.store.factories import DAY, MODEL, OTHER_MODEL, Photo, night, rows

KEY = "incoming/2026-11-21/R-1/shoe.jpg"
OLD = Photo(key=KEY, etag="e1", refund_id="R-1", category="shoes", kind="review", reasons=("low_score",), score=0.4)
NEW = Photo(key=KEY, etag="e2", refund_id="R-1", category="clothing", labels=("dark",), declared="shoes")


def story(roles: Roles, photo: Photo) -> PhotoStory:
    found = find_photo(Database(roles.app), photo_date=photo.day, photo_id=UUID(photo.photo_id))
    assert found is not None
    return found


def review(roles: Roles, photo: Photo, category: str, *, by: str = "ana", at: str = "2026-11-22 08:00Z") -> None:
    with Database(roles.app).connect() as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO refund.review (photo_date, photo_id, category, reviewed_by, reviewed_at, chosen_by, note) "
            "VALUES (%s, %s, %s, %s, %s, 'queue', 'a note')",
            (photo.day, photo.photo_id, category, by, at),
        )


def test_a_photo_nobody_has_seen_has_no_story(roles: Roles) -> None:
    night(roles.app, "run-1", OLD)
    database = Database(roles.app)
    assert find_photo(database, photo_date=DAY, photo_id=uuid4()) is None
    assert find_photo(database, photo_date=date(2026, 11, 20), photo_id=UUID(OLD.photo_id)) is None
    assert find_object(database, photo_date=DAY, photo_id=uuid4()) is None


def test_an_object_is_found_as_the_bucket_names_it_unless_it_was_made_up(roles: Roles) -> None:
    night(roles.app, "run-1", OLD)
    database, photo_id = Database(roles.app), UUID(OLD.photo_id)
    found = find_object(database, photo_date=DAY, photo_id=photo_id)
    assert found == StoredObject(bucket="b", key=KEY, etag="e1", size_bytes=1000)
    with Database(roles.owner).connect() as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE refund.photo SET synthetic = true")
    assert find_object(database, photo_date=DAY, photo_id=photo_id) is None


def test_a_photo_tells_its_facts_and_what_the_night_made_of_it(roles: Roles) -> None:
    night(roles.app, "run-1", NEW)
    told = story(roles, NEW)
    photo, outcome, decision = told.photo, told.outcome, told.decision
    assert (photo.key, photo.refund_id, photo.declared_category) == (KEY, "R-1", "shoes")
    assert (photo.quality_labels, photo.width_px, photo.first_run_date, photo.superseded_by) == (
        ["dark"],
        500,
        DAY,
        None,
    )
    assert outcome is not None
    assert decision is not None
    assert (outcome.run_id, outcome.outcome, outcome.reason) == ("run-1", "classified", None)
    assert (decision.category, decision.kind, decision.threshold, decision.model) == ("clothing", "auto", 0.5, MODEL)
    assert [(row.model, row.top_k[0]["class_id"]) for row in told.predictions] == [
        (MODEL, told.predictions[0].class_id)
    ]
    assert told.final_category == "clothing"


def test_versions_stand_newest_first_each_with_what_became_of_it(roles: Roles) -> None:
    night(roles.app, "run-1", OLD)
    night(roles.app, "run-2", NEW)
    for asked in (OLD, NEW):
        versions = story(roles, asked).versions
        assert [(row.photo_id, row.superseded_by, row.final_category) for row in versions] == [
            (NEW.photo_id, None, "clothing"),
            (OLD.photo_id, NEW.photo_id, "shoes"),
        ]
    assert story(roles, OLD).photo.superseded_by == NEW.photo_id


def test_every_models_prediction_and_every_decision_is_kept_the_live_one_first(roles: Roles) -> None:
    night(roles.app, "run-1", OLD)
    night(roles.app, "run-2", Photo(key=KEY, etag="e1", refund_id="R-1", category="furniture"), model=OTHER_MODEL)
    told = story(roles, OLD)
    assert [row.model for row in told.predictions] == [OTHER_MODEL, MODEL]
    assert [(row.run_id, row.category, row.kind, row.reasons, row.superseded_by) for row in told.decisions] == [
        ("run-2", "furniture", "auto", [], None),
        ("run-1", "shoes", "review", ["low_score"], "run-2"),
    ]
    assert [(row.run_id, row.superseded_by) for row in told.outcomes] == [("run-2", None), ("run-1", "run-2")]
    assert told.decision == told.decisions[0]


def test_the_latest_review_decides(roles: Roles) -> None:
    night(roles.app, "run-1", OLD)
    review(roles, OLD, "electronics", at="2026-11-22 09:00Z")
    review(roles, OLD, "furniture", by="bob", at="2026-11-22 08:00Z")  # written later, given earlier
    told = story(roles, OLD)
    assert [(row.reviewed_by, row.category, row.chosen_by, row.note) for row in told.reviews] == [
        ("ana", "electronics", "queue", "a note"),
        ("bob", "furniture", "queue", "a note"),
    ]
    assert told.final_category == "electronics"
    assert told.versions[0].final_category == "electronics"


def test_a_rejected_photo_tells_why_and_has_no_decision(roles: Roles) -> None:
    broken = Photo(key=KEY, reason="truncated")
    night(roles.app, "run-1", broken)
    told = story(roles, broken)
    assert told.outcome is not None
    assert (told.outcome.reason, told.outcome.detail) == ("truncated", "seen truncated")
    assert told.outcome.quarantine_key == f"quarantine/{KEY}"
    assert (told.decision, told.predictions, told.final_category) == (None, [], None)


def test_an_unchanged_outcome_is_told_but_does_not_stand(roles: Roles) -> None:
    night(roles.app, "run-1", OLD)
    night(roles.app, "run-2", unchanged=(OLD,))
    told = story(roles, OLD)
    assert [(row.run_id, row.outcome) for row in told.outcomes] == [("run-2", "unchanged"), ("run-1", "classified")]
    assert told.outcome is not None
    assert told.outcome.run_id == "run-1"


def test_a_key_that_is_sql_finds_its_own_versions_alone(roles: Roles) -> None:
    hostile = Photo(key="incoming/2026-11-21/R-1/x' OR '1'='1.jpg")
    night(roles.app, "run-1", hostile, OLD)
    assert [row.photo_id for row in story(roles, hostile).versions] == [hostile.photo_id]
    assert rows(roles.app, "SELECT count(*) FROM refund.photo") == [(2,)]
