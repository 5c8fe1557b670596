from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from refund.report.charts import MAX_BARS, category_chart, describe_chart
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
        *("var(--ink)", "var(--muted)", "var(--auto)", "var(--review)", "var(--line)")
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
