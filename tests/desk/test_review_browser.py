"""The page Review in a real browser: ten photos by keyboard, one taken back, looked at from end to end."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from refund.desk import review, review_page
from refund.desk.review_page import LETTERS, TAKEN_LETTERS
from refund.model.taxonomy import DEPARTMENTS
from refund.store import review_claims
from tests.desk.conftest import DeskWorld, desk_in
from tests.desk.serving import serve, watched
from tests.desk.test_review_api import emptied
from tests.e2e.driver import await_that
from tests.night.conftest import DAY, World
from tests.night.factories import jpeg
from tests.store.factories import Photo, night, rows

REFUNDS = 6  # of two photos each
SCORES = {
    "shoes": 0.3,
    "clothing": 0.21,
    "bags_luggage": 0.12,
    "not_a_product": 0.1,
    "electronics": 0.08,
    "media": 0.05,
}


def test_every_department_has_a_letter_of_its_own() -> None:
    assert set(LETTERS) == DEPARTMENTS
    assert len({*LETTERS.values()}) == len(LETTERS)
    assert not TAKEN_LETTERS & {*LETTERS.values()}
    assert all(len(letter) == 1 and letter.isupper() for letter in LETTERS.values())


@pytest.fixture
def desk(shared_world: World) -> Iterator[DeskWorld]:
    """Twelve photos that lie in the bucket and wait for review, the least sure first, and one audit."""
    with emptied(shared_world), desk_in(shared_world) as made:
        put(shared_world)
        yield made


def put(world: World, **over: Any) -> None:
    objects = world.services.objects
    bodies = [jpeg(seed) for seed in range(2 * REFUNDS)]
    photos = [
        Photo(
            key=f"incoming/{DAY}/R-{number // 2}/{number:02}.jpg",
            refund_id=f"R-{number // 2}",
            declared="media",
            kind="review",
            reasons=("declared_mismatch", "low_score"),
            score=0.2 + number / 100,
            **over,
        )
        for number in range(len(bodies))
    ]
    others = [
        Photo(key=f"incoming/{DAY}/R-0/sure.jpg", refund_id="R-0", category="media"),
        Photo(key=f"incoming/{DAY}/R-0/torn.jpg", refund_id="R-0", reason="truncated"),
    ]
    drawn = Photo(key=f"incoming/{DAY}/A-1/drawn.jpg", refund_id="A-1", declared="shoes")
    night(world.roles.app, "r1", *photos, *others)
    night(world.roles.app, "r2", drawn, audit_share=1.0)
    rows(
        world.roles.owner,
        "UPDATE refund.decision SET category_scores = %s::jsonb WHERE kind = 'review' RETURNING 1",
        json.dumps(SCORES),
    )
    for photo, body in zip([*photos, others[0], drawn], [*bodies, jpeg(98), jpeg(99)], strict=True):
        objects.put(photo.key, body, content_type="image/jpeg")
        listed = objects.head(photo.key)
        assert listed is not None
        rows(
            world.roles.owner,
            "UPDATE refund.photo SET bucket = %s, etag = %s, size_bytes = %s WHERE key = %s RETURNING 1",
            objects.bucket,
            listed.etag,
            len(body),
            photo.key,
        )


def title(page: Any) -> str:
    return str(page.locator("#which").text_content())


def shows(page: Any, text: str) -> None:
    page.wait_for_function("text => document.getElementById('which').textContent === text", arg=text)


def verdicts(desk: DeskWorld) -> list[tuple[Any, ...]]:
    return rows(
        desk.world.roles.app,
        "SELECT right(p.key, 6), v.category, v.reviewed_by, v.chosen_by, v.note FROM refund.review v "
        "JOIN refund.photo p USING (photo_date, photo_id) ORDER BY p.key",
    )


def settled(page: Any, count: int) -> None:
    page.wait_for_function("count => document.getElementById('today').textContent === count", arg=str(count))


def test_ten_photos_by_keyboard_and_one_taken_back(desk: DeskWorld, browser: Any) -> None:
    desk.sign_in("ana")
    with serve(desk.app) as url, watched(browser) as seen:
        page = seen.page
        page.goto(f"{url}/review")
        shows(page, "Refund R-0, photo 1 of 2")
        keys = ["Enter", "d", "1", "n", "w", "Enter", "Enter", "Enter", "Enter"]
        for number, key in enumerate(keys):
            shows(page, f"Refund R-{number // 2}, photo {number % 2 + 1} of 2")
            page.keyboard.press(key)
        shows(page, "Refund R-4, photo 2 of 2")
        settled(page, 9)
        page.keyboard.press("u")
        shows(page, "Refund R-4, photo 1 of 2")
        settled(page, 8)
        page.keyboard.press("t")
        shows(page, "Refund R-4, photo 2 of 2")
        page.keyboard.press("/")
        page.keyboard.type("pet")
        page.keyboard.press("Enter")
        shows(page, "Refund R-5, photo 1 of 2")
        settled(page, 10)
        assert page.evaluate("document.activeElement.id") == "photo"
        page.locator("#note").fill("a remark, d and Enter are text here")
        page.locator(".choice").first.click()
        shows(page, "Refund R-5, photo 2 of 2")
        page.keyboard.press("s")
        page.locator("#end-title", has_text="Nothing is left for you here").wait_for()
        look(page, "review-end")
        assert page.locator("#waiting").text_content() == "1"
        assert page.locator("#unskip").text_content() == "Show the 1 you skipped"
        page.locator("#unskip").click()
        shows(page, "Refund R-5")
        page.goto("about:blank")
        claims = "SELECT count(*) FROM refund.review_claim"
        await_that(lambda: rows(desk.world.roles.app, claims) == [(0,)])  # leaving lets go, a moment later
        assert seen.complaints == []
        assert seen.strangers(url) == ["about:blank"] or seen.strangers(url) == []
    categories = ["shoes", "media", "clothing", "not_a_product", "shoes", "shoes", "shoes", "shoes", "toys_games"]
    assert verdicts(desk) == [
        *((f"{number:02}.jpg", name, "ana", "queue", None) for number, name in enumerate(categories)),
        ("09.jpg", "pet_supplies", "ana", "queue", None),
        ("10.jpg", "shoes", "ana", "queue", "a remark, d and Enter are text here"),
    ]
    assert rows(desk.world.roles.app, "SELECT count(*) FROM refund.audit WHERE action = 'review.undo'") == [(1,)]


@pytest.mark.slow
def test_a_skip_taken_back_is_the_clerks_again(desk: DeskWorld, browser: Any) -> None:
    desk.sign_in("ana")
    with serve(desk.app) as url, watched(browser) as seen:
        page = seen.page
        page.goto(f"{url}/review")
        shows(page, "Refund R-0, photo 1 of 2")
        page.keyboard.press("s")
        shows(page, "Refund R-0, photo 2 of 2")
        page.keyboard.press("u")
        page.locator("#last", has_text="It is before you again.").wait_for()
        assert title(page) == "Refund R-0, photo 1 of 2"
        held = rows(
            desk.world.roles.app,
            "SELECT c.claimed_by FROM refund.review_claim c JOIN refund.photo p USING (photo_date, photo_id) "
            "WHERE p.key LIKE '%%/00.jpg'",
        )
        assert held == [("ana",)]
        page.keyboard.press("Enter")
        settled(page, 1)
        shows(page, "Refund R-0, photo 2 of 2")
        assert seen.complaints == []
    assert [row[:3] for row in verdicts(desk)] == [("00.jpg", "shoes", "ana")]


@pytest.mark.slow
def test_a_skip_that_somebody_else_was_given_stays_skipped(desk: DeskWorld, browser: Any) -> None:
    desk.sign_in("ana")
    with serve(desk.app) as url, watched(browser) as seen:
        page = seen.page
        page.goto(f"{url}/review")
        shows(page, "Refund R-0, photo 1 of 2")
        with page.expect_response("**/api/review/release"):
            page.keyboard.press("s")
        rows(
            desk.world.roles.app,
            "INSERT INTO refund.review_claim SELECT photo_date, photo_id, 'ben', now(), now() + interval '1 day' "
            "FROM refund.photo WHERE key LIKE '%%/00.jpg' RETURNING 1",
        )
        page.keyboard.press("u")
        page.locator("#said", has_text="It stays skipped. 'ben' is looking at this photo until").wait_for()
        shows(page, "Refund R-0, photo 2 of 2")
    assert verdicts(desk) == []


@pytest.mark.slow
def test_the_rest_of_a_large_refund_comes_before_the_next_refund(
    desk: DeskWorld, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (review_claims, review_page):
        monkeypatch.setattr(module, "PHOTOS_AT_ONCE", 2)
    rows(desk.world.roles.owner, "UPDATE refund.photo SET refund_id = 'R-0' WHERE refund_id = 'R-1' RETURNING 1")
    desk.sign_in("ana")
    with serve(desk.app) as url, watched(browser) as seen:
        page = seen.page
        page.goto(f"{url}/review")
        for told in ("1 of 2", "2 of 2", "3 of 3"):
            shows(page, f"Refund R-0, photo {told}")
            with page.expect_response("**/api/review/claims") as answer:
                page.keyboard.press("Enter")
            answer.value.finished()
            page.evaluate(
                "async () => { await (await fetch(location.href)).text(); }"
            )  # what came before is merged then
        shows(page, "Refund R-0, photo 4 of 4")
        page.keyboard.press("Enter")
        shows(page, "Refund R-2, photo 1 of 2")


@pytest.mark.slow
def test_who_skips_more_than_a_request_holds_is_given_the_first_again(
    desk: DeskWorld, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(review, "MOST_PASSED_OVER", 11)
    desk.sign_in("ana")
    with serve(desk.app) as url, watched(browser) as seen:
        page = seen.page
        page.goto(f"{url}/review")
        for number in range(12):
            shows(page, f"Refund R-{number // 2}, photo {number % 2 + 1} of 2")
            page.keyboard.press("s")
        shows(page, "Refund R-0")
        assert seen.complaints == []


@pytest.mark.slow
def test_a_verdict_that_cannot_be_written_comes_back(desk: DeskWorld, browser: Any) -> None:
    desk.sign_in("ana")
    with serve(desk.app) as url, watched(browser) as seen:
        page = seen.page
        page.goto(f"{url}/review")
        shows(page, "Refund R-0, photo 1 of 2")
        page.route("**/api/review/decisions", lambda route: route.abort())
        page.keyboard.press("Enter")
        page.locator("#said", has_text="00.jpg was not written. The server cannot be reached.").wait_for()
        page.unroute("**/api/review/decisions")
        shows(page, "Refund R-0, photo 2 of 2")
        page.keyboard.press("Enter")
        shows(page, "Refund R-0, photo 1 of 2")
        page.keyboard.press("Enter")
        settled(page, 2)
    assert [row[0] for row in verdicts(desk)] == ["00.jpg", "01.jpg"]


def test_an_audit_shows_nothing_of_the_machines(desk: DeskWorld, browser: Any) -> None:
    desk.sign_in("ana")
    with serve(desk.app) as url, watched(browser) as seen:
        page = seen.page
        page.goto(f"{url}/review?queue=audit")
        shows(page, "Refund A-1")
        assert page.locator(".choice").count() == 1
        assert "not shown, so that it does not lead" in page.locator("#why").text_content()
        page.keyboard.press("Enter")
        page.keyboard.press("d")
        page.keyboard.press("1")
        assert title(page) == "Refund A-1"
        page.keyboard.press("m")
        page.locator("#end-title", has_text="Nothing is left for you here").wait_for()
        settled(page, 1)
        assert seen.complaints == []
    assert [row[1:4] for row in verdicts(desk)] == [("media", "ana", "audit")]


@pytest.mark.slow
def test_tab_walks_from_the_photo_over_the_proposals_to_the_list(desk: DeskWorld, browser: Any) -> None:
    desk.sign_in("ana")
    with serve(desk.app) as url, watched(browser) as seen:
        page = seen.page
        page.goto(f"{url}/review")
        shows(page, "Refund R-0, photo 1 of 2")
        walked = []
        for _ in range(11):
            page.keyboard.press("Tab")
            walked.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        assert walked[0] == "its own page"
        assert [text[:5] for text in walked[1:4]] == ["Enter", "DMedi", "1Clot"]
        assert walked[6][:5] == "NNot "
        assert walked[7:] == ["skip", "keys", "note", "find"], "there is nothing to undo yet"
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")
        page.keyboard.press("?")
        assert page.locator("#help").is_visible()
        look(page, "review-keys")
        page.keyboard.press("n")
        page.keyboard.press("Escape")
        assert title(page) == "Refund R-0, photo 1 of 2"


def test_a_viewer_sees_what_waits_and_why_no_more(desk: DeskWorld, browser: Any) -> None:
    desk.sign_in("vic", may_write=False)
    with serve(desk.app) as url, watched(browser) as seen:
        seen.page.goto(f"{url}/review")
        text = seen.page.locator("main").text_content()
        assert "You may look at the queue, but not decide." in text
        said = " ".join(text.split())
        assert "it takes a right that vic does not have" in said
        assert "“can edit on Refund Desk” where it keeps such permissions, else for the right to edit the DAG" in said
        assert "12 photos of which the machine is unsure and 1 audit wait" in text
        assert seen.page.locator("#work").count() == 0
        look(seen.page, "review-viewer")
        assert seen.complaints == []


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (390, "dark"),
        pytest.param(390, "light", marks=pytest.mark.slow),
        pytest.param(1280, "light", marks=pytest.mark.slow),
        pytest.param(1280, "dark", marks=pytest.mark.slow),
    ],
)
def test_it_fits_and_axe_finds_nothing_serious(desk: DeskWorld, browser: Any, width: int, scheme: Any) -> None:
    from axe_playwright_python.sync_playwright import Axe

    desk.sign_in("ana")
    with serve(desk.app) as url, watched(browser, width=width, scheme=scheme) as seen:
        seen.page.goto(f"{url}/review")
        shows(seen.page, "Refund R-0, photo 1 of 2")
        seen.page.wait_for_function("() => document.querySelector('#picture img').naturalWidth > 0")
        assert seen.overflow_px <= 0
        look(seen.page, f"review-{width}-{scheme}")
        assert serious(Axe().run(seen.page)) == []
        assert seen.complaints == []


def look(page: Any, name: str) -> None:
    """Keep a picture of the page where somebody wants to look at it."""
    if folder := os.environ.get("REFUND_TEST_SCREENSHOTS"):
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


def serious(found: Any) -> list[tuple[str, str]]:
    return [
        (each["id"], each["nodes"][0]["html"])
        for each in found.response["violations"]
        if each["impact"] in ("serious", "critical")
    ]
