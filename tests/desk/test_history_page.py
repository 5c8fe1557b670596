"""The page History: filters, paging and rows, without a script."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Any

import pytest

from refund.desk import history_page
from tests.desk.conftest import DeskWorld, desk_in
from tests.desk.history_world import tell
from tests.night.conftest import World

NOVEMBER = "date_from=2026-11-01&date_to=2026-11-30"


@pytest.fixture(scope="module")
def told(shared_world: World) -> Iterator[DeskWorld]:
    """A desk over two nights and what people made of them."""
    tell(shared_world)
    with desk_in(shared_world) as made:
        yield made


def get(desk: DeskWorld, query: str = NOVEMBER) -> Any:
    return desk.sign_in("ana").get(f"/history?{query}")


def names(page: Any) -> list[str]:
    """The photos of a page."""
    return [html.unescape(found) for found in re.findall(r'<td class="name">(?:<a href="[^"]*">)?([^<]*)', page.text)]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("refund_id=R-0", ["photo 1.jpg", "photo 2.jpg"]),
        ("text=PHOTO%206", ["photo 6.jpg"]),
        ("text=%25", ["<img src=x onerror=alert(1)>\\u202egpj.exe.jpg"]),  # itself, no pattern
        ("outcome=rejected", ["broken.jpg", "notes.jpg"]),
        ("reviewed=true", ["photo 1.jpg"]),
        ("category=clothing", ["photo 1.jpg"]),
        ("decision=auto", ["replaced.jpg"]),
        ("text=later&date_from=2026-11-22", ["later.jpg"]),
        ("text=later&date_to=2026-11-21", []),
        ("refund_id=nobody", []),
        ("text=" + "' OR 1=1 --", []),
    ],
)
def test_a_filter_lets_its_photos_through(told: DeskWorld, query: str, found: list[str]) -> None:
    page = get(told, query if "date_" in query else f"{NOVEMBER}&{query}")
    assert page.status_code == 200
    assert names(page) == found


def test_what_was_asked_for_stays_in_the_form(told: DeskWorld) -> None:
    text = get(told, NOVEMBER + "&text=%3Cb%3E%22&decision=review&model=gone%401").text
    assert 'name="text" type="search" value="&lt;b&gt;&#34;"' in text
    assert '<option value="review" selected>' in text
    assert "<option selected>gone@1</option>" in text  # though the registry does not know it


def test_fields_left_empty_ask_for_nothing_and_the_last_thirty_days_are_meant(told: DeskWorld) -> None:
    page = get(told, "source=&date_from=&date_to=&category=&decision=&outcome=&model=&refund_id=&text=&reviewed=")
    today = told.services.now().date().isoformat()
    assert page.status_code == 200
    assert f'name="date_to" value="{today}"' in page.text


def test_pages_lead_on_and_back_with_every_filter_kept(told: DeskWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_page, "PAGE_SIZE", 2)
    first = get(told, NOVEMBER + "&text=photo")
    assert (names(first), 'rel="prev"' in first.text) == (["photo 1.jpg", "photo 2.jpg"], False)
    seen, page = names(first), first
    while later := re.search(r'rel="next" href="/refund/history\?([^"]*)"', page.text):
        page = get(told, html.unescape(later[1]))
        seen += names(page)
    assert seen == [f"photo {number}.jpg" for number in range(1, 7)]
    assert "Photos 5 to 6" in page.text
    earlier = re.search(r'rel="prev" href="/refund/history\?([^"]*)"', page.text)
    assert earlier is not None
    assert "text=photo" in earlier[1]
    assert names(get(told, html.unescape(earlier[1]))) == ["photo 3.jpg", "photo 4.jpg"]


def test_a_page_behind_the_last_leads_to_the_first(told: DeskWorld) -> None:
    text = get(told, NOVEMBER + "&page=7").text
    assert "There is no page 7." in text
    assert "Go to the first page" in text
    assert get(told, NOVEMBER + "&page=-1").status_code == 200
    assert get(told, NOVEMBER + "&page=x").status_code == 200
    assert get(told, NOVEMBER + "&page=99999999999999999999").status_code == 200


def test_the_table_to_download_has_the_same_filters(told: DeskWorld) -> None:
    text = get(told, NOVEMBER + "&text=photo&decision=review").text
    link = re.search(r'id="table" href="/refund(/api/history\.csv\?[^"]*)" download>', text)
    assert link is not None
    table = told.sign_in("ana").get(html.unescape(link[1]))
    assert table.status_code == 200
    assert [line.count("photo ") for line in table.text.splitlines()] == [0, 1, 1, 1, 1, 1, 1]  # a header, then photos


def test_every_row_leads_to_its_photo_and_shows_a_small_picture_when_it_is_seen(told: DeskWorld) -> None:
    text = get(told, NOVEMBER + "&text=photo%203").text
    page = re.search(r'<td class="name"><a href="/refund(/history/2026-11-21/[0-9a-f-]{36})">photo 3.jpg</a>', text)
    picture = re.search(r'<img src="/refund(/pictures/[^"]*)" alt="" loading="lazy" decoding="async">', text)
    assert page is not None
    assert picture is not None
    client = told.sign_in("ana")
    assert client.get(page[1]).status_code == 200
    assert client.get(picture[1]).headers["content-type"] == "image/jpeg"


def test_a_rejected_photo_has_no_picture_to_ask_for(told: DeskWorld) -> None:
    text = get(told, NOVEMBER + "&outcome=rejected").text
    assert "<img" not in text
    assert "<strong>Cut off</strong>" in text
    assert "<strong>Not an image</strong>" in text


def test_a_photo_that_a_person_corrected_says_what_the_machine_had_said(told: DeskWorld) -> None:
    text = get(told, NOVEMBER + "&reviewed=true").text
    assert "<strong>Clothing</strong>" in text
    assert "machine: Not a product" in text
    assert "Reviewed by &lt;b&gt;ana&lt;/b&gt;" in text


def test_trials_are_a_list_of_their_own(told: DeskWorld) -> None:
    page = get(told, "source=trials")
    assert names(page) == ["notes.pdf", "<img src=x onerror=alert(1)>\\u202egpj.exe"]
    assert "by bob" in page.text
    assert "<strong>Shoes</strong>" in page.text
    assert "running shoe 81%" in page.text
    assert "/pictures/" not in page.text


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("date_from=2026-02-30", "date_from: "),
        ("date_from=2026-11-22&date_to=2026-11-21", "date_from: 2026-11-22 lies after date_to, 2026-11-21."),
        ("decision=maybe", "decision: &#39;maybe&#39; is none; expected one of auto, review."),
        ("source=elsewhere", "source: &#39;elsewhere&#39; is none; expected one of nights, trials."),
        ("category=hats", "category: &#39;hats&#39; is none; expected one of arts_entertainment, "),
        ("text=a%00b", "text: expected at most 200 characters, without NUL."),
        ("refund_id=" + "x" * 1025, "refund_id: expected at most 1,024 characters, without NUL."),
        (
            "source=trials&refund_id=R-1",
            "refund_id: trials belong to no refund and are not reviewed; expected it with source=nights alone.",
        ),
    ],
)
def test_a_filter_that_cannot_be_is_told_and_the_form_stays(told: DeskWorld, query: str, message: str) -> None:
    page = get(told, query)
    assert page.status_code == 422
    assert f'<p class="problem" role="alert">{message}' in page.text
    assert '<form id="filters"' in page.text


def test_names_that_are_markup_are_shown_and_never_run(told: DeskWorld) -> None:
    for query in (NOVEMBER, "source=trials"):
        text = get(told, query).text
        assert "<script>alert" not in text
        assert "<img src=x" not in text
        assert "\u202e" not in text
        assert "&lt;img src=x onerror=alert(1)&gt;" in text
