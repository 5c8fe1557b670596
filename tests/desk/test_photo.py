"""One photo, over REST and as a page: what stands and why, versions, predictions, decisions and reviews."""

from __future__ import annotations

import html
from collections.abc import Iterator

import pytest

from tests.desk.conftest import DeskWorld, desk_in
from tests.desk.history_world import HOSTILE, HOSTILE_KEY, HOSTILE_REFUND, page_of, photo_id, tell
from tests.night.conftest import World

NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def told(shared_world: World) -> Iterator[DeskWorld]:
    """A desk over two nights and what people made of them."""
    tell(shared_world)
    with desk_in(shared_world) as made:
        yield made


def text_of(desk: DeskWorld, name: str, *, newest: bool = True) -> str:
    """What a photo's page says."""
    answer = desk.sign_in("ana").get(page_of(desk.world, name, newest=newest))
    assert answer.status_code == 200
    return answer.text


def json_of(desk: DeskWorld, name: str, *, newest: bool = True) -> dict[str, object]:
    path = page_of(desk.world, name, newest=newest).replace("/history/", "/api/photos/")
    answer = desk.sign_in("ana").get(path)
    assert answer.status_code == 200
    body: dict[str, object] = answer.json()
    return body


def test_a_photo_tells_all_that_is_known_of_it(told: DeskWorld) -> None:
    body = json_of(told, "photo 1.jpg")
    assert set(body) == {
        "status", "photo", "outcome", "final_category", "versions", "outcomes", "predictions", "decisions", "reviews",
        "picture",
    }  # fmt: skip
    assert (body["status"], body["final_category"]) == ("success", "clothing")
    assert body["photo"]["photo_id"] == photo_id(told.world, "photo 1.jpg")
    assert [row["reviewed_by"] for row in body["reviews"]] == ["<b>ana</b>", "bob"]
    assert [row["model"] for row in body["predictions"]] == ["tiny@2", "tiny@1"]
    assert [row["superseded_by"] for row in body["decisions"]] == [None, "run-2"]


def test_its_picture_can_be_fetched_by_whoever_asked(told: DeskWorld) -> None:
    picture = json_of(told, "photo 2.jpg")["picture"]
    assert told.sign_in("ana").get(picture).headers["content-type"] == "image/jpeg"
    assert told.sign_in("bob").get(picture).status_code == 403


@pytest.mark.parametrize(("name", "newest"), [("replaced.jpg", False), ("broken.jpg", True)])
def test_what_cannot_be_shown_has_no_picture(told: DeskWorld, name: str, newest: bool) -> None:
    assert json_of(told, name, newest=newest)["picture"] is None
    assert "<img" not in text_of(told, name, newest=newest)


@pytest.mark.parametrize("where", ["/api/photos", "/history"])
def test_a_photo_that_no_night_has_seen_is_not_found(told: DeskWorld, where: str) -> None:
    answer = told.sign_in("ana").get(f"{where}/2026-11-21/{NOBODY}")
    assert (answer.status_code, answer.json()["error"]) == (404, "no_such_photo")
    assert answer.json()["message"] == f"No night has seen a photo {NOBODY} of 2026-11-21."
    assert answer.json()["what_to_do"] == (
        "Look for it in the history; the date is that of the folder it lies in, not the night's."
    )


@pytest.mark.parametrize("path", ["2026-02-30/" + NOBODY, "2026-11-21/x", "2026-11-21/' OR 1=1"])
def test_an_address_that_names_no_photo_is_refused(told: DeskWorld, path: str) -> None:
    answer = told.sign_in("ana").get(f"/api/photos/{path}")
    assert (answer.status_code, answer.json()["error"]) == (422, "invalid")


@pytest.mark.parametrize("where", ["/api/photos", "/history"])
@pytest.mark.parametrize("day", ["20261121", "0", "1763683200", "2026-11-21T00:00:00", "2026-W47-6", "２０２６-11-21"])
def test_a_number_or_another_way_to_write_a_date_is_not_taken_for_a_day(told: DeskWorld, where: str, day: str) -> None:
    answer = told.sign_in("ana").get(f"{where}/{day}/{NOBODY}")
    assert (answer.status_code, answer.json()["error"]) == (422, "invalid")
    assert answer.json()["message"] == (
        "path.photo_date: Value error, expected a date as YYYY-MM-DD, for example 2026-11-21"
    )


def test_the_day_of_undated_photos_is_one(told: DeskWorld) -> None:
    assert told.sign_in("ana").get(f"/api/photos/1970-01-01/{NOBODY}").status_code == 404


def test_the_page_of_a_reviewed_photo_says_who_decided_and_what_the_machine_had_said(told: DeskWorld) -> None:
    text = text_of(told, "photo 1.jpg")
    assert '<strong>Clothing</strong> <span class="badge good">Reviewed</span>' in text
    assert "&lt;b&gt;ana&lt;/b&gt; decided this on 22 Nov 2026, 09:30 UTC." in text
    assert "The machine had said Not a product, with a score of" in text
    assert "replaced by a later one" in text
    assert "“a &lt;script&gt; of a note”" in text


def test_the_page_of_a_waiting_photo_says_why_a_person_is_asked(told: DeskWorld) -> None:
    text = text_of(told, "photo 2.jpg")
    assert "Waits for review" in text
    assert "What it shows is no goods of any department but an animal, scenery or the like." in text
    assert 'href="/refund/review"' in text
    assert "No person has looked at this photo." in text


def test_the_page_shows_both_models_and_the_decision_that_was_replaced(told: DeskWorld) -> None:
    text = text_of(told, "photo 2.jpg")
    assert 'aria-label="Most probable classes by tiny@2"' in text
    assert 'aria-label="Most probable classes by tiny@1"' in text
    assert text.count('<span class="badge">replaced</span>') == 2  # the decision, and the run's outcome


def test_the_page_of_an_overwritten_photo_leads_to_the_version_that_counts_and_back(told: DeskWorld) -> None:
    old, new = page_of(told.world, "replaced.jpg", newest=False), page_of(told.world, "replaced.jpg")
    text = text_of(told, "replaced.jpg", newest=False)
    assert f'This version was overwritten. <a href="/refund{new}">The version that replaced it</a> counts.' in text
    assert "Overwritten: the bucket has a newer version." in text
    assert f'href="/refund{old}"' in text_of(told, "replaced.jpg")


def test_the_page_of_a_rejected_photo_says_why_and_what_to_do(told: DeskWorld) -> None:
    text = text_of(told, "notes.jpg")
    assert '<strong>Not an image</strong> <span class="badge bad">Rejected</span>' in text
    assert "The file is something else, whatever its name ends with." in text
    assert "What was seen: " in text
    assert "What to do: Find out what was uploaded, and upload the photo itself." in text
    assert "There is nothing that could be shown." in text


def test_names_that_are_markup_are_shown_and_never_run(told: DeskWorld) -> None:
    text = text_of(told, HOSTILE_KEY)
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert html.escape(HOSTILE.replace("\u202e", "\\u202e")) in text  # the turn of direction, too
    assert "\u202e" not in text


def test_the_refunds_other_photos_are_one_step_away_whatever_its_id_holds(told: DeskWorld) -> None:
    text = text_of(told, HOSTILE_KEY)
    refund = HOSTILE_REFUND.partition("/")[0]  # what the key's folder makes of it
    link = html.unescape(text.split('href="/refund/history?refund_id=')[1].split('"')[0])
    answer = told.sign_in("ana").get(f"/history?refund_id={link}")
    assert (
        f'value="{html.escape(refund, quote=True).replace("&#x27;", "&#39;")}"'.replace("&quot;", "&#34;")
        in answer.text
    )
    assert answer.text.count('<td class="name">') == 1
