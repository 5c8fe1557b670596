"""Photos tried in a real browser against the real desk: chosen, pasted and dropped, good ones and bad."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from PIL import Image

from refund.report.labels import category_label
from tests.desk.conftest import DeskWorld, desk_in
from tests.desk.serving import Watched, serve, watched
from tests.night.conftest import World
from tests.night.factories import jpeg

HOSTILE = "<img src=x onerror=alert(1)>.jpg"
TURNED = "photo\u202egpj.exe"  # would read as photoexe.jpg
# What Chromium itself writes to the console of every answer that is an error; for a bad photo it has to be one.
_TOLD_BY_STATUS = "Failed to load resource: the server responded with a status of"
_COUNT_BLOBS = """
window.blobs = { made: 0, revoked: 0 };
const make = URL.createObjectURL.bind(URL), revoke = URL.revokeObjectURL.bind(URL);
URL.createObjectURL = (file) => { blobs.made += 1; return make(file); };
URL.revokeObjectURL = (url) => { blobs.revoked += 1; revoke(url); };
"""
_DROP = """([kind, files]) => {
  const held = new DataTransfer();
  for (const [name, type, text] of files) {
    held.items.add(new File([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], name, { type }));
  }
  document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: held, bubbles: true, cancelable: true }));
}"""
_COPY_A_PICTURE = """async () => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 64;
  const drawn = canvas.getContext("2d");
  drawn.fillStyle = "#c33";
  drawn.fillRect(0, 0, 64, 64);
  const picture = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  await navigator.clipboard.write([new ClipboardItem({ "image/png": picture })]);
}"""


@pytest.fixture(scope="module")
def desk(shared_world: World) -> Iterator[DeskWorld]:
    with desk_in(shared_world, desk_requests_per_minute=1000, max_bytes=200_000) as made:
        yield made


@pytest.fixture(scope="module")
def url(desk: DeskWorld) -> Iterator[str]:
    with serve(desk.app) as address:
        yield address


@contextmanager
def trying(browser: Any, desk: DeskWorld, url: str, *, who: str = "ana", **over: Any) -> Iterator[Watched]:
    """The page, opened; afterwards nothing may have been complained of, and nobody else asked for anything."""
    desk.sign_in(who)
    with watched(browser, **over) as seen:
        seen.page.on("dialog", lambda dialog: seen.complaints.append(f"a dialog: {dialog.message}"))
        seen.page.add_init_script(_COUNT_BLOBS)
        seen.page.goto(f"{url}/try")
        yield seen
        assert [text for text in seen.complaints if not text.startswith(_TOLD_BY_STATUS)] == []
        assert seen.strangers(url) == []


def file(name: str = "shoe.jpg", body: bytes | None = None, *, seed: int = 1) -> dict[str, Any]:
    """A file as Playwright hands it to a file input."""
    return {"name": name, "mimeType": "image/jpeg", "buffer": jpeg(seed) if body is None else body}


def choose(page: Any, *files: dict[str, Any]) -> None:
    page.set_input_files("#photos", list(files))


def classify(page: Any) -> None:
    """Send what was chosen, and wait until all of it is through."""
    page.click("#go")
    page.wait_for_selector("#cancel", state="hidden")


def drag(page: Any, kind: str, *files: dict[str, Any]) -> None:
    """Tell the page that files are dragged over it, or dropped, as the browser would."""
    handed = [[each["name"], each["mimeType"], base64.b64encode(each["buffer"]).decode()] for each in files]
    page.evaluate(_DROP, [kind, handed])


def last_trial(desk: DeskWorld, columns: str) -> tuple[Any, ...]:
    return desk.world.rows(f"SELECT {columns} FROM refund.trial ORDER BY trial_id DESC LIMIT 1")[0]


def test_one_photo_gets_a_verdict_with_its_reasons(browser: Any, desk: DeskWorld, url: str) -> None:
    with trying(browser, desk, url) as seen:
        page = seen.page
        choose(page, file(seed=3))
        page.select_option("#top_k", "3")
        assert page.inner_text("#go") == "Classify 1 photo"
        classify(page)
        category, score, decision, model, kept = last_trial(desk, "category, category_score, decision, model, kept_key")
        card = page.locator("#cards > li")
        assert card.locator(".verdict strong").inner_text() == category_label(category)
        assert card.locator(".verdict .score").inner_text() == f"{100 * score:.1f} %"
        assert card.locator(".verdict .badge").inner_text() == ("automatic" if decision == "auto" else "for review")
        assert card.locator(".why").inner_text().startswith("A night would ")
        assert card.locator(".charts > div:nth-child(2) .bars li").count() == 3
        assert card.locator(".charts > div:nth-child(1) .bars li").count() == 23
        assert card.locator("summary").last.inner_text().startswith("JPEG · 320 × 240 pixels · ")
        assert model in card.locator("summary").last.inner_text()
        assert page.inner_text("#doing") == "1 of 1 photo through."
        assert kept is None  # only the verdict stays
        assert card.locator("summary").last.inner_text().endswith(" · not kept")
        page.wait_for_selector("#trials tbody tr")
        first = page.locator("#trials tbody tr").first.inner_text()
        assert first.split("\t")[1:4] == ["shoe.jpg", category_label(category), f"{100 * score:.1f} %"]
        assert page.evaluate("blobs") == {"made": 1, "revoked": 1}
        assert page.locator(".preview img").evaluate("image => image.naturalWidth") == 320


@pytest.mark.slow
def test_the_photo_is_kept_if_the_person_asks_for_it(browser: Any, desk: DeskWorld, url: str) -> None:
    with trying(browser, desk, url) as seen:
        choose(seen.page, file(seed=4))
        seen.page.check("#keep")
        classify(seen.page)
        (kept,) = last_trial(desk, "kept_key")
        assert kept is not None
        assert seen.page.inner_text(".facts summary").endswith(" · kept")
        seen.page.click(".facts summary")
        assert kept in seen.page.inner_text(".facts")


@pytest.mark.slow
def test_why_a_person_would_look_and_what_is_poor_about_the_photo_is_told(
    browser: Any, desk: DeskWorld, url: str
) -> None:
    strip = io.BytesIO()
    Image.new("RGB", (300, 80), (12, 48, 36)).save(strip, "PNG")  # of no colour that the tiny model is sure of
    with trying(browser, desk, url) as seen:
        choose(seen.page, file("strip.png", strip.getvalue()))
        classify(seen.page)
        (score,) = last_trial(desk, "category_score")
        assert seen.page.inner_text(".why") == (
            f"A night would put it before a person. The best category reaches {math.floor(1000 * score) / 10:.1f} %, "
            "and a night asks for 50 %."
        )
        assert seen.page.locator(".quality li").all_inner_texts() == [
            "Blurry hold the phone still, clean its lens",
            "Almost blank look whether there is anything in the picture",
            "Unusually long or tall do not crop to a strip",
        ]


def test_of_three_photos_a_broken_one_is_told_and_the_others_are_classified(
    browser: Any, desk: DeskWorld, url: str
) -> None:
    with trying(browser, desk, url) as seen:
        page = seen.page
        choose(page, file("a.jpg", seed=5), file("b.jpg", b"PK\3\4 a zip in disguise"), file("c.jpg", seed=6))
        page.wait_for_selector(".preview.none")
        assert page.inner_text(".preview.none") == "no preview"
        classify(page)
        assert page.locator("#cards > li").evaluate_all("cards => cards.map((card) => card.dataset.state)") == [
            "done",
            "refused",
            "done",
        ]
        told = page.inner_text("#cards .problem")
        assert told.startswith("Not an image")
        assert told.endswith("Look at what the file is, and choose the photo itself.")
        assert page.inner_text("#doing") == "3 of 3 photos through, 1 of them with a problem."
        assert page.evaluate("blobs.made === blobs.revoked")


def test_the_eleventh_photo_is_left_out_by_name(browser: Any, desk: DeskWorld, url: str) -> None:
    with trying(browser, desk, url) as seen:
        choose(seen.page, *(file(f"{number}.jpg", jpeg(number, width=40, height=40)) for number in range(11)))
        assert seen.page.inner_text("#refused") == (
            "At most 10 photos at once: 10 photos of these 11 taken. Left out, to be tried afterwards: 10.jpg"
        )
        assert seen.page.locator("#cards > li").count() == 10
        classify(seen.page)
        assert seen.page.inner_text("#doing") == "10 of 10 photos through."
        assert seen.page.locator("#refused").is_hidden()


def test_files_that_cannot_be_right_are_told_before_they_are_sent(browser: Any, desk: DeskWorld, url: str) -> None:
    with trying(browser, desk, url) as seen:
        page = seen.page
        choose(page, file("empty.jpg", b""), file("huge.jpg", jpeg(1) + bytes(200_000)))
        told = page.locator("#cards .problem").all_inner_texts()
        assert "The file holds nothing. It was not sent." in told[0]
        assert "and 200,000 bytes is the limit. It was not sent." in told[1]
        assert page.is_disabled("#go")
        assert not any(address.endswith("/api/classify") for address in seen.asked)


@pytest.mark.slow
def test_a_picture_too_large_to_unpack_is_not_shown(browser: Any, desk: DeskWorld, url: str) -> None:
    bomb = io.BytesIO()
    Image.new("1", (30_000, 3_000)).save(bomb, "PNG")
    with trying(browser, desk, url) as seen:
        choose(seen.page, file("bomb.png", bomb.getvalue()))
        seen.page.wait_for_selector("text=too large to show")
        classify(seen.page)
        assert seen.page.inner_text("#cards .problem").startswith("Too many pixels")


def test_a_photo_is_pasted_from_the_clipboard(browser: Any, desk: DeskWorld, url: str) -> None:
    with trying(browser, desk, url, permissions=["clipboard-read", "clipboard-write"]) as seen:
        seen.page.evaluate(_COPY_A_PICTURE)
        seen.page.keyboard.press("Control+V")
        seen.page.wait_for_selector("#go:focus")
        seen.page.keyboard.press("Enter")
        seen.page.wait_for_selector(".verdict")
        assert last_trial(desk, "filename, image_format, width_px") == ("image.png", "PNG", 64)


@pytest.mark.slow
def test_photos_are_dropped_anywhere_on_the_page(browser: Any, desk: DeskWorld, url: str) -> None:
    with trying(browser, desk, url) as seen:
        drag(seen.page, "dragenter", file())
        assert "over" in seen.page.get_attribute("#drop", "class")
        drag(seen.page, "drop", file("x.jpg"), file("y.jpg", seed=2))
        assert "over" not in seen.page.get_attribute("#drop", "class")
        classify(seen.page)
        assert seen.page.locator(".verdict").count() == 2
        assert seen.page.url == f"{url}/try"


def test_a_keyboard_is_enough(browser: Any, desk: DeskWorld, url: str) -> None:
    with trying(browser, desk, url) as seen:
        page = seen.page
        page.on("filechooser", lambda _: None)  # from here on Playwright takes them, not only once Enter is on its way
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "photos":
                break
        assert page.locator("#drop").evaluate("box => getComputedStyle(box).outlineStyle") == "solid"
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("Enter")
        chooser.value.set_files([file("a.jpg", seed=8), file("b.jpg", seed=9)])
        assert page.inner_text("button:focus") == "Classify 2 photos"
        page.focus("button.out >> nth=0")
        page.keyboard.press("Enter")
        assert page.get_attribute(":focus", "aria-label") == "Remove b.jpg"
        page.focus("#go")
        page.keyboard.press("Enter")
        page.wait_for_selector(".verdict")
        assert last_trial(desk, "filename") == ("b.jpg",)
        assert page.evaluate("document.activeElement.id") == "chosen"


def test_a_hostile_name_is_text(browser: Any, desk: DeskWorld, url: str) -> None:
    with trying(browser, desk, url) as seen:
        page = seen.page
        choose(page, file(HOSTILE), file(TURNED, b"MZ no photo"))
        assert page.locator("h3 bdi").all_inner_texts() == [HOSTILE, r"photo\u{202e}gpj.exe"]
        classify(page)
        assert page.locator(".verdict").count() == 1
        assert page.locator('img[src="x"]').count() == 0


@pytest.mark.slow
def test_cancelled_photos_can_be_sent_again(browser: Any, desk: DeskWorld, url: str) -> None:
    with trying(browser, desk, url) as seen:
        page = seen.page
        page.route("**/api/classify", lambda _: None)  # never answered
        choose(page, *(file(f"{number}.jpg", seed=number) for number in range(5)))
        page.click("#go")
        page.wait_for_function("document.querySelectorAll('#cards progress').length === 3")  # as many at a time
        assert page.evaluate("document.activeElement.id") == "cancel"
        assert page.is_disabled("#photos")
        page.click("#cancel")
        page.wait_for_selector("#cancel", state="hidden")
        assert page.inner_text("#go") == "Classify 5 photos"
        assert page.inner_text("#doing") == "Cancelled: 0 of 5 photos through. The others can be sent again."
        assert "Cancelled before it was sent." in page.inner_text("#cards > li:last-child")
        page.unroute("**/api/classify")
        classify(page)
        assert page.locator(".verdict").count() == 5


@pytest.mark.slow
def test_where_the_server_asks_for_a_pause_the_photo_waits_and_is_sent_again(
    browser: Any, desk: DeskWorld, url: str
) -> None:
    asked = []

    def busy_once(route: Any) -> None:
        asked.append(route)
        if len(asked) > 1:
            route.continue_()
        else:
            route.fulfill(status=503, headers={"Retry-After": "5"}, json={"error": "busy", "message": "Busy."})

    with trying(browser, desk, url) as seen:
        seen.page.route("**/api/classify", busy_once)
        choose(seen.page, file())
        seen.page.click("#go")
        seen.page.wait_for_selector(r"text=/The server asks for a pause\. It is sent again in [1-5] s\./")
        seen.page.wait_for_selector(".verdict")
    assert len(asked) == 2


@pytest.mark.slow
def test_past_the_limit_of_a_minute_the_page_waits_and_can_be_cancelled(browser: Any, shared_world: World) -> None:
    with (
        desk_in(shared_world, desk_requests_per_minute=1) as strict,
        serve(strict.app) as address,
        trying(browser, strict, address) as seen,
    ):
        page = seen.page
        choose(page, file("a.jpg"), file("b.jpg"))
        page.click("#go")
        page.wait_for_selector(".verdict")
        page.wait_for_selector("#cards .note")
        page.click("#cancel")
        page.wait_for_selector("#cancel", state="hidden")
        assert page.locator(".verdict").count() == 1
        assert page.inner_text("#go") == "Classify 1 photo"


@pytest.mark.slow
def test_a_line_that_breaks_costs_its_photo_alone(browser: Any, desk: DeskWorld, url: str) -> None:
    broken = []

    def break_one(route: Any) -> None:
        if broken:
            route.continue_()
        else:
            broken.append(route)
            route.abort("connectionreset")

    with trying(browser, desk, url) as seen:
        seen.page.route("**/api/classify", break_one)
        choose(seen.page, file("a.jpg"), file("b.jpg", seed=2))
        classify(seen.page)
        assert seen.page.inner_text(".problem") == (
            "It could not be classified\n\nThe connection broke off before the verdict came.\n\n"
            "Look at the network, and whether the file is still where it was; then send it again."
        )
        assert seen.page.inner_text("#go") == "Classify 1 photo"
        classify(seen.page)
        assert seen.page.locator(".verdict").count() == 2
        seen.complaints[:] = [text for text in seen.complaints if "net::ERR_CONNECTION_RESET" not in text]


LOOKS = [
    (1280, "light"),
    (390, "dark"),
    pytest.param(1280, "dark", marks=pytest.mark.slow),
    pytest.param(390, "light", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_the_page_fits_and_axe_finds_nothing_serious(
    browser: Any, desk: DeskWorld, url: str, width: int, scheme: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    with trying(browser, desk, url, width=width, scheme=scheme) as seen:
        page = seen.page
        long = "a_very_long_name_without_any_space_" * 6 + ".jpg"
        choose(page, file(long, seed=3), file("b.jpg", b"no photo"), file("dark.jpg", jpeg(4, width=400, height=40)))
        classify(page)
        page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
        assert seen.overflow_px <= 0
        found = Axe().run(page).response["violations"]
        serious = [f"{each['id']}: {each['nodes'][0]['html']}" for each in found if each["impact"] != "minor"]
        assert serious == []
