"""Reading a night refund by refund: as reporting.refunds says, and over several nights, runs and reviews."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from refund.errors import ReconciliationError
from refund.store import exports
from refund.store.database import Database
from refund.store.exports import night_refunds
from tests.conftest import Roles
from tests.store.factories import DAY, MODEL, NOON, OTHER_MODEL, Photo, night, rows

SHARED_WITH_THE_VIEW = (
    "photos", "classified", "rejected", "category", "categories", "photos_agree", "declared_category",
    "matches_declared", "needs_review",
)  # fmt: skip


def read(roles: Roles, day: date = DAY) -> dict[str, dict[str, Any]]:
    with night_refunds(Database(roles.app), day) as found:
        assert found is not None
        return {row["refund_id"]: dict(row) for batch in found.batches for row in batch}


def photo(refund: str | None, name: str, **over: Any) -> Photo:
    return Photo(key=f"incoming/{DAY}/{refund}/{name}", refund_id=refund, **over)


def declare(roles: Roles, refund: str, category: str) -> None:
    rows(
        roles.owner, "UPDATE refund.photo SET declared_category = %s WHERE refund_id = %s RETURNING 1", category, refund
    )


def review(roles: Roles, of: Photo, category: str, chosen_by: str = "queue") -> None:
    rows(
        roles.app,
        "INSERT INTO refund.review (photo_date, photo_id, category, reviewed_by, reviewed_at, chosen_by) "
        "VALUES (%s, %s, %s, 'ann', %s, %s) RETURNING 1",
        of.day, of.photo_id, category, NOON + timedelta(hours=1), chosen_by,
    )  # fmt: skip


def test_every_refund_is_as_reporting_refunds_says(roles: Roles) -> None:
    unsure = {"kind": "review", "reasons": ("low_score",), "score": 0.3}
    night(
        roles.app,
        "r1",
        photo("R-1", "a"), photo("R-1", "b"),
        photo("R-2", "a"), photo("R-2", "b", category="bags"), photo("R-2", "c", category="bags", score=0.7),
        photo("R-3", "a", **unsure), photo("R-3", "b", reason="corrupt"),
        photo("R-4", "a", reason="truncated"), photo("R-4", "b", reason="truncated"),
        photo("R-5", "a", category="hats"),
        photo(None, "loose"),
    )  # fmt: skip
    declare(roles, "R-1", "shoes")
    declare(roles, "R-2", "bags")
    found = read(roles)
    view = rows(
        roles.analyst,
        f"SELECT refund_id, run_date, {', '.join(SHARED_WITH_THE_VIEW)} FROM reporting.refunds ORDER BY 1",
    )
    assert [
        (refund, row["latest_run_date"], *(row[name] for name in SHARED_WITH_THE_VIEW)) for refund, row in found.items()
    ] == view
    assert [row["decision"] for row in found.values()] == ["auto", "auto", "review", "review", "auto"]
    assert found["R-2"]["photos_agree"] is False
    assert found["R-2"]["category"] == "bags"
    assert found["R-3"]["reasons"] == ["corrupt", "low_score"]
    assert found["R-4"]["category"] is None
    assert found["R-4"]["min_score"] is None
    assert found["R-4"]["models"] == []
    assert found["R-2"]["min_score"] == pytest.approx(0.7)


def test_a_refund_of_one_late_photo_comes_again_with_all_its_photos(roles: Roles) -> None:
    next_day = DAY + timedelta(days=1)
    night(roles.app, "r1", photo("R-1", "a"), photo("R-2", "a"))
    night(roles.app, "r2", photo("R-1", "late", category="bags"), run_date=next_day, model=OTHER_MODEL)
    assert set(read(roles, next_day)) == {"R-1"}
    late = read(roles, next_day)["R-1"]
    assert (late["photos"], late["models"], late["latest_run_date"]) == (2, [MODEL, OTHER_MODEL], next_day)
    first = read(roles)  # made again later, the file of the first night still has both, as they stand now
    assert {refund: row["latest_run_date"] for refund, row in first.items()} == {"R-1": next_day, "R-2": DAY}


def test_what_people_said_counts_before_the_machine(roles: Roles) -> None:
    asked = photo("R-1", "a", kind="review", reasons=("low_score",), score=0.3)
    audited = photo("R-2", "a")
    unusable = photo("R-3", "a", reason="truncated")
    night(roles.app, "r1", asked, audited, unusable)
    before = read(roles)
    assert (before["R-1"]["waiting"], before["R-3"]["waiting"], before["R-3"]["needs_review"]) == (1, 0, True)
    review(roles, asked, "hats")
    review(roles, audited, "bags", chosen_by="audit")
    review(roles, unusable, "shoes", chosen_by="search")
    seen = "SELECT refund_id, needs_review, category FROM reporting.refunds ORDER BY 1"
    reviewed = {"R-1": "hats", "R-2": "bags", "R-3": "shoes"}
    assert rows(roles.analyst, seen) == [(refund, False, category) for refund, category in reviewed.items()]
    for refund, category in reviewed.items():
        row = read(roles)[refund]
        assert (row["decision"], row["category"], row["needs_review"]) == ("reviewed", category, False)
        assert (row["waiting"], row["reviewed"], row["reasons"]) == (0, 1, [])


def test_a_night_of_which_any_run_does_not_add_up_is_not_exported(roles: Roles) -> None:
    first = photo("R-1", "a")
    night(roles.app, "r1", first)
    night(roles.app, "r2", photo("R-2", "a"), unchanged=(first,))
    rows(roles.owner, "UPDATE refund.run SET packed = 7 WHERE run_id = 'r1' RETURNING 1")
    with pytest.raises(ReconciliationError) as caught:
        read(roles)
    assert str(caught.value) == (
        f"the night of {DAY} is not exported: its run 'r1' does not add up (see reporting.reconciliation), expected "
        "that every run of the night does; a file of an earlier export stays as it is. Find out what changed the "
        "tables, then clear generate_report"
    )


def test_made_up_rows_are_left_out(roles: Roles) -> None:
    night(roles.app, "r1", photo("R-1", "a"))
    night(roles.app, "demo", photo("R-1", "made-up"), photo("R-9", "made-up"))
    rows(roles.owner, "UPDATE refund.run SET synthetic = true WHERE run_id = 'demo' RETURNING 1")
    found = read(roles)
    assert set(found) == {"R-1"}
    assert found["R-1"]["photos"] == 1


def test_a_night_that_nobody_published_gives_none(roles: Roles) -> None:
    with night_refunds(Database(roles.app), DAY) as found:
        assert found is None


def test_the_latest_run_names_the_night_and_loose_photos_are_counted(roles: Roles) -> None:
    night(roles.app, "zz-first", photo("R-1", "a"), photo(None, "x"), photo(None, "y", reason="corrupt"))
    night(roles.app, "a-second", photo("R-2", "a"))
    with night_refunds(Database(roles.app), DAY) as found:
        assert found is not None
        assert (found.run_id, found.models, found.photos_without_refund) == ("a-second", (MODEL,), 2)


def test_a_night_is_read_in_batches(roles: Roles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "BATCH_ROWS", 2)
    night(roles.app, "r1", *(photo(f"R-{number}", "a") for number in range(5)))
    with night_refunds(Database(roles.app), DAY) as found:
        assert found is not None
        assert [len(batch) for batch in found.batches] == [2, 2, 1]


def test_one_export_of_a_night_waits_for_the_other(roles: Roles) -> None:
    def is_free(day: date) -> bool:
        sql = "SELECT pg_try_advisory_xact_lock(%s, %s)"
        return bool(rows(roles.app, sql, exports.LOCK_SPACE, day.toordinal())[0][0])

    with night_refunds(Database(roles.app), DAY):
        assert not is_free(DAY)
        assert is_free(DAY + timedelta(days=1))  # another night's does not wait
    assert is_free(DAY)
