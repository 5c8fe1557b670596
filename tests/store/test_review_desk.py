"""The review queue at the desk: its order, one person per photo, verdicts and taking them back, on a real Postgres."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import pytest

from refund.records import ReviewReason
from refund.store.database import Database
from refund.store.review_claims import (
    CLAIM,
    UNDO,
    ReviewConflictError,
    claim_photos,
    decide,
    undo,
)
from refund.store.review_desk import KEPT_FOR, Orders, Queue, WaitingPhoto, activity, other_photos
from tests.conftest import Roles
from tests.store.factories import DAY, NOON, Photo, night, register_models, rows

CLERKS = 8
TABLES = ("review_claim", "review", "audit", "decision", "prediction", "run_photo", "photo", "run")


@pytest.fixture(scope="module")
def shared_roles(database: Roles) -> Roles:
    """The database of all tests here: thirty of their own would take a minute to make."""
    register_models(database)
    return database


@pytest.fixture
def roles(shared_roles: Roles) -> Iterator[Roles]:
    yield shared_roles
    rows(shared_roles.owner, "; ".join(f"DELETE FROM refund.{table}" for table in TABLES) + "; SELECT 1")


def waiting(refund: str | None, name: str, *, score: float = 0.4, reason: str = "low_score", **over: Any) -> Photo:
    """A photo that a person is to look at."""
    folder = refund or "loose"
    return Photo(
        key=f"incoming/2026-11-21/{folder}/{name}.jpg",
        refund_id=refund,
        kind="review",
        reasons=(reason,),
        score=score,
        **over,
    )


def names(held: list[list[WaitingPhoto]]) -> list[list[str]]:
    return [[photo.key.rpartition("/")[2].removesuffix(".jpg") for photo in photos] for photos in held]


def claim(orders: Orders, by: str = "ana", *, at: Any = NOON, **over: Any) -> list[list[WaitingPhoto]]:
    return claim_photos(orders, **{"queue": Queue.REVIEW, "by": by, "at": at, "wanted": 1, **over})


def say(roles: Roles, photo: Photo, by: str = "ana", *, category: str = "shoes", at: Any = NOON, **over: Any) -> Any:
    values = {"photo_date": photo.day, "photo_id": photo.photo_id, "category": category, "note": None, **over}
    return decide(Database(roles.app), by=by, at=at, **values)


def orders_of(roles: Roles) -> Orders:
    return Orders(Database(roles.app))


def test_contradictions_come_first_then_no_products_then_the_least_sure_and_refunds_stay_together(roles: Roles) -> None:
    night(
        roles.app,
        "r1",
        waiting("R1", "unsure", score=0.3),
        waiting("R2", "no-product", reason="not_a_product", score=0.9),
        waiting("R3", "contradiction", reason="declared_mismatch", score=0.8),
        waiting("R3", "beside-it", score=0.2),
        waiting(None, "least-sure", score=0.1),
        Photo(key="incoming/2026-11-21/R1/sure.jpg", refund_id="R1"),
    )
    held = claim(orders_of(roles), wanted=9)
    assert names(held) == [["contradiction", "beside-it"], ["no-product"], ["least-sure"], ["unsure"]]


def test_an_order_counts_what_waits_by_reason_and_night(roles: Roles) -> None:
    both = ("declared_mismatch", "low_score")
    night(roles.app, "r1", waiting("R1", "a"), Photo(key="incoming/2026-11-21/b.jpg", kind="review", reasons=both))
    night(roles.app, "r2", waiting("R2", "c"), run_date=DAY + timedelta(days=1))
    order = orders_of(roles).get(Queue.REVIEW, now=NOON)
    assert order.by_reason == {ReviewReason.DECLARED_MISMATCH: 1, ReviewReason.LOW_SCORE: 2}
    assert (order.by_night, order.waiting) == ({DAY: 2, DAY + timedelta(days=1): 1}, 3)


def test_nobody_is_given_a_refund_that_somebody_has_before_them(roles: Roles) -> None:
    night(roles.app, "r1", waiting("R1", "a"), waiting("R1", "b"), waiting("R2", "c"))
    orders = orders_of(roles)
    assert names(claim(orders, "ana")) == [["a", "b"]]
    assert names(claim(orders, "ben")) == [["c"]]
    assert names(claim(orders, "cleo")) == []
    assert names(claim(orders, "ana")) == [["a", "b"]], "asking again gives what one holds"
    assert names(claim(orders, "ana", wanted=2)) == [["a", "b"]]


def test_a_refund_of_many_photos_comes_in_parts_to_one_person(roles: Roles) -> None:
    photos = [waiting("R1", f"{number:02}") for number in range(13)]
    night(roles.app, "r1", *photos)
    orders = orders_of(roles)
    assert names(claim(orders)) == [[f"{number:02}" for number in range(10)]]
    assert claim(orders, "ben") == []
    for photo in photos[:10]:
        say(roles, photo)
    assert names(claim(orders)) == [["10", "11", "12"]]


def test_a_claim_that_ran_out_is_anybodys(roles: Roles) -> None:
    night(roles.app, "r1", waiting("R1", "a"))
    orders = orders_of(roles)
    claim(orders, "ana")
    assert claim(orders, "ben", at=NOON + CLAIM - timedelta(seconds=1)) == []
    assert names(claim(orders, "ben", at=NOON + CLAIM)) == [["a"]]
    assert claim(orders, "ana", at=NOON + CLAIM) == []


def test_who_is_at_work_keeps_what_they_hold(roles: Roles) -> None:
    a, b = waiting("R1", "a"), waiting("R1", "b")
    night(roles.app, "r1", a, b)
    orders = orders_of(roles)
    claim(orders, "ana")
    say(roles, a, at=NOON + timedelta(minutes=9))
    assert claim(orders, "ben", at=NOON + timedelta(minutes=18)) == []


def test_new_photos_are_given_as_soon_as_the_known_ones_are_used_up(roles: Roles) -> None:
    orders = orders_of(roles)
    assert claim(orders) == []
    night(roles.app, "r1", waiting("R1", "a"))
    assert names(claim(orders)) == [["a"]]


def test_an_order_is_read_once_in_a_while(roles: Roles) -> None:
    orders = orders_of(roles)
    night(roles.app, "r1", waiting("R1", "a"))
    first = orders.get(Queue.REVIEW, now=NOON)
    assert orders.get(Queue.REVIEW, now=NOON + KEPT_FOR / 2) is first
    assert orders.get(Queue.REVIEW, now=NOON + KEPT_FOR) is not first


def test_a_photo_that_was_replaced_or_decided_meanwhile_is_not_given(roles: Roles) -> None:
    a, b = waiting("R1", "a"), waiting("R2", "b")
    night(roles.app, "r1", a, b)
    orders = orders_of(roles)
    orders.get(Queue.REVIEW, now=NOON)
    night(roles.app, "r2", waiting("R1", "a", etag="e2", score=0.45))
    say(roles, b, "ben")
    held = claim(orders, wanted=5)
    assert [photo.photo_id for photos in held for photo in photos] == [waiting("R1", "a", etag="e2").photo_id]
    with pytest.raises(ReviewConflictError, match="This photo waits for nobody: a newer version took its place"):
        say(roles, a)


def test_a_verdict_says_who_when_and_how_the_photo_was_chosen(roles: Roles) -> None:
    a = waiting("R1", "a")
    night(roles.app, "r1", a)
    written = say(roles, a, category="clothing", note="<b>'; DROP TABLE refund.review; --\u202e")
    assert rows(
        roles.app, "SELECT review_id, category, reviewed_by, reviewed_at, chosen_by, note FROM refund.review"
    ) == [(written.review_id, "clothing", "ana", NOON, "queue", "<b>'; DROP TABLE refund.review; --\u202e")]
    assert rows(roles.app, "SELECT count(*) FROM refund.review_claim") == [(0,)]


def test_the_same_verdict_sent_twice_is_there_once(roles: Roles) -> None:
    a = waiting("R1", "a")
    night(roles.app, "r1", a)
    first, second = say(roles, a), say(roles, a, at=NOON + timedelta(seconds=1))
    assert (second.review_id, first.known, second.known) == (first.review_id, False, True)
    with pytest.raises(
        ReviewConflictError, match=r"You have decided this photo: shoes, at 12:00 UTC\. Undo it first\."
    ):
        say(roles, a, category="media")


def test_a_verdict_on_a_photo_that_another_holds_or_decided_is_refused(roles: Roles) -> None:
    a = waiting("R1", "a")
    night(roles.app, "r1", a)
    orders = orders_of(roles)
    claim(orders, "ana")
    later = NOON + CLAIM + timedelta(minutes=1)
    claim(orders, "ben", at=later)
    with pytest.raises(
        ReviewConflictError, match="'ben' is looking at this photo until 12:21 UTC: it is yours no longer"
    ) as refused:
        say(roles, a, "ana", at=later)
    assert refused.value.word == "claimed"
    say(roles, a, "ben", category="media", at=later)
    with pytest.raises(ReviewConflictError, match=r"'ben' has decided this photo: media, at 12:11 UTC\. Nothing"):
        say(roles, a, "ana", at=later)
    assert rows(roles.app, "SELECT reviewed_by FROM refund.review") == [("ben",)]


def test_photos_that_wait_for_nobody_take_no_verdict(roles: Roles) -> None:
    sure = Photo(key="incoming/2026-11-21/sure.jpg")
    night(roles.app, "r1", sure)
    with pytest.raises(ReviewConflictError, match="This photo waits for nobody") as refused:
        say(roles, sure)
    assert refused.value.word == "not_waiting"
    with pytest.raises(ReviewConflictError, match=r"No photo .* of 2026-11-21 is known") as unknown:
        say(roles, Photo(key="never"))
    assert unknown.value.word == "unknown_photo"
    assert rows(roles.app, "SELECT count(*) FROM refund.review_claim") == [(0,)]


def test_audits_are_a_queue_of_their_own(roles: Roles) -> None:
    drawn = [Photo(key=f"incoming/2026-11-21/R{number}/x.jpg", refund_id=f"R{number}") for number in range(3)]
    night(roles.app, "r1", *drawn, waiting("R9", "w"), audit_share=1.0)
    orders = orders_of(roles)
    held = claim(orders, queue=Queue.AUDIT, wanted=3)
    assert {photo.photo_id for photos in held for photo in photos} == {photo.photo_id for photo in drawn}
    assert names(claim(orders)) == [["w"]]
    assert say(roles, drawn[0]).chosen_by == "audit"
    assert len(claim(orders, queue=Queue.AUDIT, wanted=3)) == 2


def test_an_audit_that_somebody_looked_for_still_waits(roles: Roles) -> None:
    drawn = Photo(key="incoming/2026-11-21/R1/x.jpg", refund_id="R1")
    night(roles.app, "r1", drawn, audit_share=1.0)
    rows(
        roles.app,
        "INSERT INTO refund.review (photo_date, photo_id, category, reviewed_by, chosen_by) "
        "VALUES (%s, %s, 'media', 'ben', 'search') RETURNING 1",
        drawn.day,
        drawn.photo_id,
    )
    assert len(claim(orders_of(roles), queue=Queue.AUDIT)) == 1
    assert say(roles, drawn).chosen_by == "audit"


def test_a_verdict_taken_back_is_kept_in_the_audit_and_its_photo_held_again(roles: Roles) -> None:
    a = waiting("R1", "a")
    night(roles.app, "r1", a)
    orders = orders_of(roles)
    review = say(roles, a, note="=1+1")
    undone = undo(Database(roles.app), review_id=review.review_id, by="ana", at=NOON + UNDO)
    assert (undone.photo_date, undone.photo_id, undone.category) == (a.day, a.photo_id, "shoes")
    assert rows(roles.app, "SELECT count(*) FROM refund.review") == [(0,)]
    ((actor, subject, details),) = rows(
        roles.app, "SELECT actor, subject, details FROM refund.audit WHERE action = 'review.undo'"
    )
    assert (actor, subject) == ("ana", f"photo {a.photo_id}")
    assert (details["category"], details["note"], details["chosen_by"]) == ("shoes", "=1+1", "queue")
    assert claim(orders, "ben", at=NOON + UNDO) == []
    assert names(claim(orders, "ana", at=NOON + UNDO)) == [["a"]]


def test_only_ones_own_newest_verdict_of_a_moment_ago_can_be_taken_back(roles: Roles) -> None:
    a = waiting("R1", "a")
    night(roles.app, "r1", a)
    database = Database(roles.app)
    review_id = say(roles, a).review_id
    with pytest.raises(ReviewConflictError, match=f"Review {review_id} was given by 'ana', not by you"):
        undo(database, review_id=review_id, by="ben", at=NOON)
    with pytest.raises(ReviewConflictError, match="given more than 15 minutes ago"):
        undo(database, review_id=review_id, by="ana", at=NOON + UNDO + timedelta(seconds=1))
    rows(
        roles.app,
        "INSERT INTO refund.review (photo_date, photo_id, category, reviewed_by, reviewed_at, chosen_by) "
        "VALUES (%s, %s, 'media', 'ben', %s, 'import') RETURNING 1",
        a.day,
        a.photo_id,
        NOON + timedelta(minutes=1),
    )
    with pytest.raises(ReviewConflictError, match="'ben' has decided on this photo since"):
        undo(database, review_id=review_id, by="ana", at=NOON + timedelta(minutes=2))
    with pytest.raises(ReviewConflictError, match="There is no review 4711"):
        undo(database, review_id=4711, by="ana", at=NOON)


def test_the_other_photos_of_a_refund_say_what_became_of_them(roles: Roles) -> None:
    a = waiting("R1", "a")
    night(
        roles.app,
        "r1",
        a,
        waiting("R1", "b"),
        Photo(key="incoming/2026-11-21/R1/bad.jpg", refund_id="R1", reason="truncated"),
        Photo(key="incoming/2026-11-21/R1/sure.jpg", refund_id="R1", category="media"),
        Photo(key="incoming/2026-11-21/R2/else.jpg", refund_id="R2"),
    )
    found = other_photos(Database(roles.app), refund_ids=["R1"], shown=[a.photo_id])
    told = [(photo.key.rpartition("/")[2], photo.state, photo.final_category) for photo in found["R1"]]
    assert told == [("b.jpg", "waiting", "shoes"), ("bad.jpg", "rejected", None), ("sure.jpg", "machine", "media")]


def test_activity_counts_what_is_held_and_what_i_decided_today(roles: Roles) -> None:
    a = waiting("R1", "a")
    night(roles.app, "r1", a, waiting("R2", "b"), waiting("R3", "c"))
    orders, database = orders_of(roles), Database(roles.app)
    claim(orders, "ana", wanted=2)
    claim(orders, "ben")
    say(roles, a)
    seen = activity(database, by="ana", at=NOON)
    assert (seen.claimed, seen.claimed_by_me, seen.decided_today) == (2, 1, 1)
    assert activity(database, by="ana", at=NOON + timedelta(days=1)).decided_today == 0


def test_eight_clerks_at_once_are_never_given_the_same_photo(roles: Roles) -> None:
    photos = [waiting(f"R{number // 3}", f"{number:03}", score=number / 1000) for number in range(200)]
    night(roles.app, "r1", *photos)
    orders = [orders_of(roles), orders_of(roles)]  # two servers, each with an order of its own
    given: dict[str, list[str]] = {}
    failed: list[Exception] = []
    begin = threading.Barrier(CLERKS)

    def work(number: int) -> None:
        by, moment = f"clerk-{number}", NOON
        try:
            begin.wait()
            while held := claim(orders[number % 2], by, at=moment, wanted=2):
                for photo in held[0]:
                    given.setdefault(photo.photo_id, []).append(by)
                    decide(
                        orders[0].database, photo_date=photo.photo_date, photo_id=photo.photo_id,
                        category="shoes", note=None, by=by, at=moment,
                    )  # fmt: skip
                moment += timedelta(seconds=1)
        except Exception as exc:  # noqa: BLE001  (told by the test's own thread)
            failed.append(exc)

    clerks = [threading.Thread(target=work, args=(number,)) for number in range(CLERKS)]
    for clerk in clerks:
        clerk.start()
    for clerk in clerks:
        clerk.join()
    assert not failed
    assert {photo_id: len(by) for photo_id, by in given.items()} == {photo.photo_id: 1 for photo in photos}
    assert rows(roles.app, "SELECT count(*), count(DISTINCT photo_id) FROM refund.review") == [(200, 200)]


def test_of_two_verdicts_on_one_photo_at_once_the_second_is_refused(roles: Roles) -> None:
    photos = [waiting(f"R{number}", "x") for number in range(12)]
    night(roles.app, "r1", *photos)
    refused: list[str] = []
    begin = threading.Barrier(2)

    def work(by: str) -> None:
        for photo in photos:
            begin.wait()
            try:
                say(roles, photo, by)
            except ReviewConflictError as exc:
                refused.append(exc.word)

    clerks = [threading.Thread(target=work, args=(by,)) for by in ("ana", "ben")]
    for clerk in clerks:
        clerk.start()
    for clerk in clerks:
        clerk.join()
    assert refused == ["already_decided"] * 12
    assert rows(roles.app, "SELECT count(*) FROM refund.review") == [(12,)]


def test_one_person_may_decide_several_of_their_photos_at_once(roles: Roles) -> None:
    photos = [waiting("R1", f"{number}") for number in range(10)]
    night(roles.app, "r1", *photos)
    claim(orders_of(roles))
    failed: list[Exception] = []

    def work(photo: Photo) -> None:
        try:
            say(roles, photo, at=NOON + timedelta(minutes=5))
        except Exception as exc:  # noqa: BLE001
            failed.append(exc)

    presses = [threading.Thread(target=work, args=(photo,)) for photo in photos]
    for press in presses:
        press.start()
    for press in presses:
        press.join()
    assert not failed
    assert rows(roles.app, "SELECT count(*) FROM refund.review") == [(10,)]


def test_made_up_nights_are_in_no_queue(roles: Roles) -> None:
    made_up = waiting("R1", "a")
    night(roles.app, "r1", made_up)
    for table in ("run", "photo", "decision"):
        rows(roles.owner, f"UPDATE refund.{table} SET synthetic = true RETURNING 1")
    assert claim(orders_of(roles)) == []
    with pytest.raises(ReviewConflictError, match="This photo waits for nobody"):
        say(roles, made_up)


def test_undated_photos_are_reviewed_as_well(roles: Roles) -> None:
    lost = Photo(key="incoming/lost.jpg", day=date(1970, 1, 1), kind="review", reasons=("low_score",))
    night(roles.app, "r1", lost)
    assert names(claim(orders_of(roles))) == [["lost"]]
    assert not say(roles, lost).known
