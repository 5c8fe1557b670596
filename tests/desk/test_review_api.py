"""The review queue over REST: who is given what, what a verdict leaves behind, and what is refused in which words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from refund.model.taxonomy import DEPARTMENTS
from tests.conftest import Roles
from tests.desk.conftest import DeskWorld, desk_in
from tests.night.conftest import World
from tests.store.factories import NOON, Photo, night, register_models, rows

TABLES = ("review_claim", "review", "decision", "prediction", "run_photo", "photo", "run")


@dataclass(kw_only=True)
class Clock:
    """The time of the desk, for tests to set."""

    now: datetime = NOON

    def __call__(self) -> datetime:
        return self.now

    def pass_by(self, **span: float) -> None:
        self.now += timedelta(**span)


@dataclass(kw_only=True)
class Reviewing:
    """A desk with photos to review, and whoever asks it for something."""

    desk: DeskWorld
    clock: Clock
    clients: dict[str, Any] = field(default_factory=dict)

    def ask(self, method: str, path: str, body: Any = None, *, by: str = "ana") -> Any:
        client = self.desk.sign_in(by)  # whoever signed in last is the one that asks
        return client.request(method, f"/api/review/{path}", json=body)

    def claim(self, *, by: str = "ana", **body: Any) -> dict[str, Any]:
        answer = self.ask("POST", "claims", body, by=by)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def decide(self, photo: Photo, category: Any = "shoes", *, by: str = "ana", **more: Any) -> Any:
        body = {"photo_date": photo.day.isoformat(), "photo_id": photo.photo_id, "category": category, **more}
        return self.ask("POST", "decisions", body, by=by)

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        return rows(self.desk.world.roles.app, sql, *values)

    def night(self, *photos: Photo, **over: Any) -> None:
        night(self.desk.world.roles.app, over.pop("run_id", "r1"), *photos, **over)


@contextmanager
def emptied(world: World) -> Iterator[None]:
    """Take the photos of a test out of the world again."""
    register_models(world.roles)
    try:
        yield
    finally:
        empty(world.roles)


def empty(roles: Roles) -> None:
    """Remove every photo and run; TRUNCATE would take seconds for so many partitions."""
    rows(roles.owner, "; ".join(f"DELETE FROM refund.{table}" for table in TABLES) + "; SELECT 1")


@pytest.fixture
def reviewing(shared_world: World) -> Iterator[Reviewing]:
    clock = Clock()
    timed = replace(shared_world, services=replace(shared_world.services, now=clock))
    with emptied(shared_world), desk_in(timed) as desk:
        yield Reviewing(desk=desk, clock=clock)


def waiting(refund: str | None, name: str, **over: Any) -> Photo:
    values = {"kind": "review", "reasons": ("low_score",), "score": 0.4, "declared": "media", **over}
    return Photo(key=f"incoming/2026-11-21/{refund}/{name}.jpg", refund_id=refund, **values)


def test_a_claim_has_all_that_a_clerk_decides_by(reviewing: Reviewing) -> None:
    photo = waiting("R1", "a")
    sure = Photo(key="incoming/2026-11-21/R1/sure.jpg", refund_id="R1", category="media")
    reviewing.night(photo, sure)
    answer = reviewing.claim()
    (refund,) = answer["refunds"]
    (told,) = refund["photos"]
    assert {name: value for name, value in told.items() if name != "picture"} == {
        "photo_date": "2026-11-21",
        "photo_id": photo.photo_id,
        "filename": "a.jpg",
        "run_date": "2026-11-21",
        "refund_id": "R1",
        "declared_category": "media",
        "predicted_category": "shoes",
        "category_score": pytest.approx(0.4),
        "review_reasons": ["low_score"],
        "category_scores": [{"category": "shoes", "score": 0.4}],
        "class_name": "running shoe",
        "confidence": pytest.approx(0.8),
        "model": "mobilenet_v2@1",
    }
    assert all(path.startswith("/pictures/") for path in told["picture"].values())
    (other,) = refund["others"]
    assert (other["filename"], other["state"], other["category"]) == ("sure.jpg", "machine", "media")
    assert (answer["waiting"], answer["claimed_until"]) == (1, "2026-11-22T12:10:00Z")


def test_an_audit_does_not_lead(reviewing: Reviewing) -> None:
    photo = Photo(key="incoming/2026-11-21/R1/a.jpg", refund_id="R1", declared="shoes")
    reviewing.night(photo, Photo(key="incoming/2026-11-21/R1/b.jpg", refund_id="R1", reason="truncated"), audit_share=1)
    text = reviewing.ask("POST", "claims", {"queue": "audit"}).text
    assert photo.photo_id in text
    for told in ("shoe", "0.9", "machine", "mobilenet"):
        assert told not in text
    assert reviewing.decide(photo).json()["chosen_by"] == "audit"


def test_two_clerks_are_never_given_the_same_refund(reviewing: Reviewing) -> None:
    reviewing.night(waiting("R1", "a"), waiting("R1", "b"), waiting("R2", "c"))
    mine, theirs = reviewing.claim(by="ana"), reviewing.claim(by="ben")
    assert [refund["refund_id"] for refund in (*mine["refunds"], *theirs["refunds"])] == ["R1", "R2"]
    assert reviewing.claim(by="cleo")["refunds"] == []


def test_a_clerk_may_hold_the_next_refunds_too(reviewing: Reviewing) -> None:
    reviewing.night(*(waiting(f"R{number}", "a") for number in range(5)))
    assert len(reviewing.claim(also=2)["refunds"]) == 3
    refused = reviewing.ask("POST", "claims", {"also": 3})
    assert (refused.status_code, refused.json()["message"]) == (
        422,
        "body.also: Input should be less than or equal to 2",
    )


def test_what_is_let_go_comes_to_somebody_else(reviewing: Reviewing) -> None:
    photo = waiting("R1", "a")
    reviewing.night(photo)
    reviewing.claim()
    body = {"photos": [{"photo_date": "2026-11-21", "photo_id": photo.photo_id}]}
    assert reviewing.ask("POST", "release", body, by="ben").json()["released"] == 0
    assert reviewing.ask("POST", "release", body).json() == {"status": "success", "released": 1}
    assert reviewing.claim(passed_over=[photo.photo_id])["refunds"] == []
    assert len(reviewing.claim(by="ben")["refunds"]) == 1
    assert reviewing.ask("POST", "release", {}, by="ben").json()["released"] == 1


def test_a_verdict_is_written_with_who_and_when(reviewing: Reviewing) -> None:
    photo = waiting("R1", "a")
    reviewing.night(photo)
    answer = reviewing.decide(photo, "not_a_product", note=" a cat ").json()
    assert answer == {
        "status": "success",
        "review_id": answer["review_id"],
        "category": "not_a_product",
        "reviewed_at": "2026-11-22T12:00:00Z",
        "chosen_by": "queue",
        "known": False,
    }
    written = reviewing.rows("SELECT review_id, category, reviewed_by, reviewed_at, note FROM refund.review")
    assert written == [(answer["review_id"], "not_a_product", "ana", NOON, "a cat")]


def test_a_key_pressed_twice_is_one_verdict(reviewing: Reviewing) -> None:
    photo = waiting("R1", "a")
    reviewing.night(photo)
    first, second = reviewing.decide(photo).json(), reviewing.decide(photo).json()
    assert (first["known"], second["known"], second["review_id"]) == (False, True, first["review_id"])


def test_a_photo_that_went_to_somebody_else_says_to_whom(reviewing: Reviewing) -> None:
    photo = waiting("R1", "a")
    reviewing.night(photo)
    reviewing.claim()
    reviewing.clock.pass_by(minutes=11)
    reviewing.claim(by="ben")
    refused = reviewing.decide(photo)
    assert refused.status_code == 409
    assert refused.json() | {"request_id": None} == {
        "status": "error",
        "error": "claimed",
        "message": "'ben' is looking at this photo until 12:21 UTC: it is yours no longer.",
        "what_to_do": "Nothing was written. Go on with the next photo.",
        "request_id": None,
    }
    reviewing.decide(photo, "media", by="ben")
    refused = reviewing.decide(photo).json()
    assert (refused["error"], refused["message"]) == (
        "already_decided",
        "'ben' has decided this photo: media, at 12:11 UTC.",
    )


def test_a_claim_that_ran_out_costs_nothing_while_nobody_else_has_it(reviewing: Reviewing) -> None:
    photo = waiting("R1", "a")
    reviewing.night(photo)
    reviewing.claim()
    reviewing.clock.pass_by(hours=1)
    assert reviewing.decide(photo).status_code == 200


@pytest.mark.parametrize(
    "category", ["", "Shoes", "'; DROP TABLE refund.review; --", "<script>", "x" * 5_000, "\u202e"]
)
def test_only_a_department_is_a_verdict(reviewing: Reviewing, category: str) -> None:
    photo = waiting("R1", "a")
    reviewing.night(photo)
    refused = reviewing.decide(photo, category)
    assert (refused.status_code, refused.json()["error"]) == (422, "unknown_category")
    assert refused.json()["categories"] == sorted(DEPARTMENTS)
    assert "expected a department or not_a_product." in refused.json()["message"]
    assert len(refused.json()["message"]) < 250
    assert reviewing.rows("SELECT count(*) FROM refund.review") == [(0,)]


@pytest.mark.parametrize(
    ("note", "kept"),
    [
        ("'; DROP TABLE refund.review; --", "'; DROP TABLE refund.review; --"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("a\x00b", "ab"),
        ("\x00 ", None),
        ("=cmd|' /C calc'!A0", "=cmd|' /C calc'!A0"),
        ("\u202egpj.exe", "\u202egpj.exe"),
    ],
)
def test_a_note_is_kept_as_text(reviewing: Reviewing, note: str, kept: str | None) -> None:
    photo = waiting("R1", "a")
    reviewing.night(photo)
    assert reviewing.decide(photo, note=note).status_code == 200
    assert reviewing.rows("SELECT note FROM refund.review") == [(kept,)]


def test_half_a_character_in_a_note_is_no_fault_of_ours(reviewing: Reviewing) -> None:
    photo = waiting("R1", "a")
    reviewing.night(photo)
    body = f'{{"photo_date": "2026-11-21", "photo_id": "{photo.photo_id}", "category": "shoes", "note": "a\\ud800"}}'
    client = reviewing.desk.sign_in("ana")
    answer = client.post("/api/review/decisions", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 422)


def test_photos_nobody_knows_or_needs_reviewed_are_refused(reviewing: Reviewing) -> None:
    sure = Photo(key="incoming/2026-11-21/sure.jpg")
    reviewing.night(sure)
    refused = reviewing.decide(sure)
    assert (refused.status_code, refused.json()["error"]) == (409, "not_waiting")
    refused = reviewing.decide(Photo(key="never"))
    assert (refused.status_code, refused.json()["error"]) == (404, "unknown_photo")


def test_a_verdict_can_be_taken_back_for_a_quarter_of_an_hour(reviewing: Reviewing) -> None:
    photo = waiting("R1", "a")
    reviewing.night(photo)
    reviewing.claim()
    review_id = reviewing.decide(photo).json()["review_id"]
    refused = reviewing.ask("POST", "undo", {"review_id": review_id}, by="ben")
    assert (refused.status_code, refused.json()["error"]) == (409, "not_yours")
    reviewing.clock.pass_by(minutes=15)
    undone = reviewing.ask("POST", "undo", {"review_id": review_id}).json()
    assert undone == {
        "status": "success",
        "review_id": review_id,
        "photo_date": "2026-11-21",
        "photo_id": photo.photo_id,
        "category": "shoes",
        "queue": "review",
    }
    assert reviewing.rows("SELECT actor, action FROM refund.audit WHERE action LIKE 'review%'") == [
        ("ana", "review.undo")
    ]
    assert reviewing.claim(by="ben")["refunds"] == [], "it is before the person who took it back"
    again = reviewing.ask("POST", "undo", {"review_id": review_id})
    assert (again.status_code, again.json()["error"]) == (404, "unknown_review")
    review_id = reviewing.decide(photo).json()["review_id"]
    reviewing.clock.pass_by(minutes=16)
    late = reviewing.ask("POST", "undo", {"review_id": review_id})
    assert (late.status_code, late.json()["error"]) == (409, "too_late")


def test_the_summary_counts_what_waits_and_what_i_did(reviewing: Reviewing) -> None:
    a = waiting("R1", "a")
    reviewing.night(a, waiting("R2", "b", reasons=("not_a_product", "low_score")), waiting("R3", "c"))
    reviewing.night(Photo(key="incoming/2026-11-21/d.jpg"), run_id="r2", audit_share=1)
    reviewing.claim(also=1)
    reviewing.decide(a)
    reviewing.clock.pass_by(minutes=1)
    assert reviewing.ask("GET", "summary").json() == {
        "status": "success",
        "as_of": "2026-11-22T12:01:00Z",
        "review": 2,
        "audit": 1,
        "by_reason": [
            {"reason": "declared_mismatch", "photos": 0},
            {"reason": "not_a_product", "photos": 1},
            {"reason": "low_score", "photos": 1},
        ],
        "by_night": [{"run_date": "2026-11-21", "review": 2, "audit": 1}],
        "claimed": 1,
        "claimed_by_me": 1,
        "decided_today": 1,
    }


def test_names_that_mislead_are_shown_as_what_they_are(reviewing: Reviewing) -> None:
    reviewing.night(waiting("<b>R1</b>", "photo\u202egpj.exe"))
    (refund,) = reviewing.claim()["refunds"]
    assert refund["refund_id"] == "<b>R1</b>"
    assert refund["photos"][0]["filename"] == "photo\\u202egpj.exe.jpg"


def test_nobody_may_take_more_than_the_form_says(reviewing: Reviewing) -> None:
    for path, body, place in (
        ("claims", {"queue": "mine"}, "body.queue"),
        ("undo", {"review_id": 0}, "body.review_id"),
        ("undo", {"review_id": 2**63}, "body.review_id"),
        ("release", {"photos": [{"photo_date": "2026-11-21", "photo_id": "x"}]}, "body.photos.0.photo_id"),
        ("decisions", {"photo_date": "2026-11-21"}, "body.photo_id"),
    ):
        answer = reviewing.ask("POST", path, body)
        assert (answer.status_code, answer.json()["error"]) == (422, "invalid")
        assert answer.json()["message"].startswith(f"{place}: ")


def test_a_photo_that_was_let_go_can_be_asked_for_by_its_name(reviewing: Reviewing) -> None:
    a, b = waiting("R1", "a"), waiting("R2", "b")
    reviewing.night(a, b)
    reviewing.claim()
    reviewing.ask("POST", "release", {})
    name = {"photo_date": "2026-11-21", "photo_id": b.photo_id}
    assert [refund["refund_id"] for refund in reviewing.claim(photo=name)["refunds"]] == ["R2"]
    reviewing.ask("POST", "release", {})
    reviewing.claim(by="ben", photo=name)
    refused = reviewing.ask("POST", "claims", {"photo": name})
    assert (refused.status_code, refused.json()["error"]) == (409, "claimed")
    refused = reviewing.ask("POST", "claims", {"photo": {**name, "photo_date": "2026-11-20"}})
    assert (refused.status_code, refused.json()["error"]) == (404, "unknown_photo")


@pytest.mark.parametrize("day", [1_795_219_200, 0, True, "1795219200", "2026-11-21T00:00:00", "20261121", None])
def test_a_date_is_text_as_iso_has_it(reviewing: Reviewing, day: Any) -> None:
    name = {"photo_date": day, "photo_id": Photo(key="a").photo_id}
    for path, body in (("claims", {"photo": name}), ("decisions", {**name, "category": "shoes"})):
        refused = reviewing.ask("POST", path, body)
        assert refused.status_code == 422
        assert refused.json()["message"].endswith(
            "photo_date: Value error, expected a date as text, such as 2026-11-21"
        )
