from __future__ import annotations

import re
from datetime import date, timedelta
from xml.etree import ElementTree

import pytest

from refund.report.charts import MAX_BARS, NightShares, category_chart, describe_chart, sorting_chart
from tests.report.factories import USUAL, categories

SVG = "{http://www.w3.org/2000/svg}"


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)  # noqa: S314 - our own drawing


def texts(svg: str) -> list[str]:
    return ["".join(node.itertext()).strip() for node in parsed(svg).iter(f"{SVG}text")]


def test_the_chart_names_every_category_and_its_share() -> None:
    svg = category_chart(categories(USUAL))
    assert {"Clothing", "Shoes", "Bags & luggage", "37%", "21%", "Automatic", "To review"} <= set(texts(svg))
    assert "Usual" not in texts(svg)


def test_the_usual_share_is_marked_where_there_is_a_reference() -> None:
    assert "Usual" in texts(category_chart(categories(USUAL, USUAL)))


def test_small_categories_share_one_bar() -> None:
    svg = category_chart(categories({f"category_{n}": 100 - n for n in range(20)}))
    assert "9 others" in texts(svg)
    assert len([text for text in texts(svg) if text.startswith("Category")]) == MAX_BARS - 1


def test_it_takes_its_colours_from_the_page_and_is_transparent() -> None:
    svg = category_chart(categories(USUAL, USUAL))
    assert set(re.findall(r"var\(--[a-z]+\)", svg)) == {
        *("var(--ink)", "var(--muted)", "var(--auto)", "var(--review)", "var(--line)", "var(--paper)")
    }
    assert not re.search(r"fill: ?#(?!000000)", svg)
    assert "<style" not in svg
    assert "<metadata" not in svg


def test_it_is_described_for_those_who_hear_the_page() -> None:
    rows = categories({"shoes": 3, "bags_luggage": 1})
    root = parsed(category_chart(rows))
    assert root.get("role") == "img"
    assert root.get("aria-label") == describe_chart(rows)
    assert describe_chart(rows) == (
        "Bar chart of classified photos by category: Shoes 3 (75%), Bags & luggage 1 (25%)."
    )


def test_the_same_rows_give_the_same_bytes() -> None:
    assert category_chart(categories(USUAL, USUAL)) == category_chart(categories(USUAL, USUAL))


@pytest.mark.parametrize("name", ["$x^{2}$", "<b>&\"'", "日本語", "\u202eabc", "x" * 300])
def test_any_name_is_drawn_as_text(name: str) -> None:
    svg = category_chart(categories({name: 10}))
    drawn = texts(svg)
    assert not any("\u202e" in text for text in drawn)
    assert len(max(drawn, key=len)) <= 22


def test_a_photo_in_a_million_and_one_alone_are_drawn() -> None:
    assert "<1%" in texts(category_chart(categories({"shoes": 1_000_000, "media": 1})))
    assert "100%" in texts(category_chart(categories({"shoes": 1})))


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^a chart needs at least one category$"):
        category_chart([])


def test_it_leaves_matplotlib_as_it_was() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    category_chart(categories(USUAL))
    assert dict(mpl.rcParams) == before


def nights(*auto: float) -> list[NightShares]:
    return [
        NightShares(run_date=date(2026, 11, 1) + timedelta(days=n), auto=share, rejected=0.05)
        for n, share in enumerate(auto)
    ]


def test_nights_are_drawn_by_who_sorted_them_and_told_in_words() -> None:
    svg = sorting_chart(nights(0.8, 0.9, 0.6))
    assert {"Automatic", "To review", "Not usable", "1 Nov", "tonight", "0%", "100%"} == set(texts(svg)) - {"50%"}
    assert "var(--bad)" in svg
    assert parsed(svg).get("aria-label") == (
        "Bar chart of the last 3 nights: tonight 60% of the photos were sorted automatically, 35% went to review and "
        "5% could not be used; on the nights before 80% to 90% were sorted automatically."
    )
    with pytest.raises(ValueError, match=r"^a chart of nights needs at least two, got 1$"):
        sorting_chart(nights(0.8))


def test_two_charts_on_one_page_share_no_id() -> None:
    ids = [
        re.findall(r' id="([^"]+)"', svg) for svg in (category_chart(categories(USUAL)), sorting_chart(nights(1, 0)))
    ]
    assert ids[0]
    assert not set(ids[0]) & set(ids[1])
    for svg, own in zip((category_chart(categories(USUAL)), sorting_chart(nights(1, 0))), ids, strict=True):
        assert set(re.findall(r"url\(#([^)]+)\)", svg)) <= set(own)
