"""The review queue is given whole: past what is skipped and what others hold, and a refund to one person alone."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from refund.store import review_desk
from refund.store.database import Database
from refund.store.review_claims import HOLD, PHOTOS_AT_ONCE, ReviewConflictError, hold, release
from refund.store.review_desk import Queue
from tests.conftest import Roles
from tests.store.factories import NOON, Photo, night, rows
from tests.store.test_review_desk import CLAIM, claim, names, orders_of, roles, say, shared_roles, waiting

__all__ = ["roles", "shared_roles"]  # fixtures


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """An order of three refunds at once."""
    monkeypatch.setattr(review_desk, "REFUNDS_AHEAD", 3)
    monkeypatch.setattr(review_desk, "PHOTOS_AHEAD", 4)


def take(roles: Roles, photo: Photo, by: str = "ana", *, at: Any = NOON) -> None:
    hold(Database(roles.app), photo_date=photo.day, photo_id=photo.photo_id, by=by, at=at)


@pytest.mark.usefixtures("short")
@pytest.mark.slow
def test_who_skips_more_than_is_read_at_once_is_given_what_comes_behind(roles: Roles) -> None:
    photos = [waiting(f"R{number:02}", f"{number:02}", score=number / 100) for number in range(30)]
    night(roles.app, "r1", *photos)
    orders = orders_of(roles)
    skipped: list[str] = []
    given = []
    while held := claim(orders, passed_over=skipped):
        given += names(held)
        skipped += [photo.photo_id for photo in held[0]]
    assert given == [[f"{number:02}"] for number in range(30)]


@pytest.mark.usefixtures("short")
def test_when_others_hold_all_that_is_read_at_once_there_is_more(roles: Roles) -> None:
    night(roles.app, "r1", *(waiting(f"R{number}", f"{number}", score=number / 100) for number in range(9)))
    orders = orders_of(roles)
    given = [names(claim(orders, f"clerk-{number}")) for number in range(9)]
    assert given == [[[f"{number}"]] for number in range(9)]
    assert claim(orders, "one-more") == []


@pytest.mark.usefixtures("short")
def test_an_order_says_whether_it_is_all(roles: Roles) -> None:
    night(roles.app, "r1", *(waiting(f"R{number}", f"{number}") for number in range(4)))
    database = Database(roles.app)
    assert not review_desk.read_order(database, Queue.REVIEW, now=NOON).whole
    assert review_desk.read_order(database, Queue.REVIEW, now=NOON, times=2).whole


def test_what_is_passed_over_is_let_go_and_takes_nobodys_place(roles: Roles) -> None:
    a, b = waiting("R1", "a", score=0.1), waiting("R2", "b")
    night(roles.app, "r1", a, b)
    orders = orders_of(roles)
    claim(orders)
    assert names(claim(orders, passed_over=[a.photo_id])) == [["b"]]
    assert names(claim(orders, "ben")) == [["a"]]


def test_nobody_is_given_the_rest_of_a_large_refund_while_it_is_worked_on(roles: Roles) -> None:
    photos = [waiting("R1", f"{number:02}") for number in range(13)]
    night(roles.app, "r1", *photos)
    orders = orders_of(roles)
    assert names(claim(orders)) == [[f"{number:02}" for number in range(PHOTOS_AT_ONCE)]]
    for photo in photos[:9]:
        say(roles, photo)
        assert claim(orders_of(roles), "ben") == []
    assert names(claim(orders)) == [["09", "10", "11", "12"]], "the rest comes while some of it is held"
    say(roles, photos[9])
    assert claim(orders, "ben") == []


def test_who_skips_the_photo_that_another_holds_is_not_given_its_refund(roles: Roles) -> None:
    a, b = waiting("R1", "a"), waiting("R1", "b")
    night(roles.app, "r1", a, b)
    take(roles, a, "ben")
    assert claim(orders_of(roles), "ana", passed_over=[a.photo_id]) == []


def test_a_refund_is_one_persons_in_both_queues(roles: Roles) -> None:
    night(roles.app, "r1", waiting("R1", "unsure"))
    night(roles.app, "r2", Photo(key="incoming/2026-11-21/R1/drawn.jpg", refund_id="R1"), audit_share=1.0)
    orders = orders_of(roles)
    assert names(claim(orders, "ana")) == [["unsure"]]
    assert claim(orders, "ben", queue=Queue.AUDIT) == []
    assert names(claim(orders, "ben", queue=Queue.AUDIT, at=NOON + CLAIM)) == [["drawn"]]


def test_a_photo_is_taken_back_by_its_name(roles: Roles) -> None:
    a, b = waiting("R1", "a"), waiting("R2", "b")
    night(roles.app, "r1", a, b)
    orders = orders_of(roles)
    claim(orders)
    release(orders.database, by="ana", photos=[(a.day, a.photo_id)])
    take(roles, a)
    assert names(claim(orders, "ben")) == [["b"]]
    with pytest.raises(ReviewConflictError, match="'ben' is looking at this photo until 12:10 UTC: it is yours no"):
        take(roles, b)


def test_a_photo_whose_refund_another_has_or_that_waits_no_more_is_not_taken_back(roles: Roles) -> None:
    a, b, sure = waiting("R1", "a"), waiting("R1", "b"), Photo(key="incoming/2026-11-21/sure.jpg")
    night(roles.app, "r1", a, b, sure)
    take(roles, a, "ben")
    with pytest.raises(ReviewConflictError, match="'ben' is looking at this refund until 12:10 UTC: it is yours no"):
        take(roles, b)
    with pytest.raises(ReviewConflictError, match="This photo waits for nobody"):
        take(roles, sure)
    say(roles, a, "ben")
    with pytest.raises(ReviewConflictError, match="'ben' has decided this photo: shoes, at 12:00 UTC"):
        take(roles, a)
    with pytest.raises(ReviewConflictError, match=r"No photo .* of 2026-11-21 is known"):
        take(roles, Photo(key="never"))
    assert rows(roles.app, "SELECT count(*) FROM refund.review_claim") == [(0,)]


def test_a_holder_cannot_decide_while_somebody_is_told_that_they_hold_it(roles: Roles) -> None:
    """HOLD locks the row that it may not have: between it and HOLDER nobody can let the photo go."""
    a = waiting("R1", "a")
    night(roles.app, "r1", a)
    take(roles, a, "ben")
    values = {"photo_date": a.day, "photo_id": a.photo_id, "by": "ana", "at": NOON, "until": NOON + CLAIM}
    deciding = threading.Thread(target=say, args=(roles, a, "ben"))
    with Database(roles.app).connect() as connection, connection.cursor() as cursor:
        cursor.execute(HOLD, values)
        assert cursor.fetchone() is None
        deciding.start()
        deciding.join(timeout=0.5)
        assert deciding.is_alive()
        cursor.execute("SELECT claimed_by FROM refund.review_claim")
        assert cursor.fetchall() == [("ben",)]
    deciding.join()
    assert rows(roles.app, "SELECT reviewed_by FROM refund.review") == [("ben",)]
