from __future__ import annotations

import re
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jinja2 import meta

from refund.report import charts
from refund.report.csv_table import render_csv
from refund.report.figures import ReportFigures
from refund.report.labels import MADE_UP
from refund.report.page import (
    CHART_WARNING,
    MAX_PICTURES_BYTES,
    PageContext,
    page_context,
    render_html,
    template_environment,
)
from refund.report.rows import StageRow
from refund.report.text import render_text
from refund.report.thumbnails import Thumbnail
from tests.report.factories import TWO_MODELS, USUAL, empty_night, hostile_night, night, shifted_night, thumbnails

TEMPLATES = Path(charts.__file__).parent / "templates"
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Collects elements, checks that they nest, and gathers what a reader sees."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += f" {' '.join(data.split())}"


NIGHTS = {
    "normal": night(),
    "empty": empty_night(),
    "hostile": hostile_night(),
    "first": night(reference=0),
    "drift": night({**USUAL, "shoes": 2600}),
    "all rejected": night({}, rejected={"corrupt": 4}),
    "two models": night(models=TWO_MODELS, audits=24),
    "shifted": shifted_night(),
    "made up": shifted_night(synthetic=True),
    "one category": night({"shoes": 400}, reference=0),
    "three photos": night({"shoes": 2}, rejected={"corrupt": 1}),
    "wrong": replace(night(), reconciliation=replace(night().reconciliation, adds_up=False)),
}

PICTURES = {"shifted": thumbnails(NIGHTS["shifted"])}


def test_the_template_uses_exactly_the_context_and_every_field_has_help() -> None:
    environment, used, parts = template_environment(), set[str](), ["report.html.j2"]
    for name in parts:  # grows while it is read
        tree = environment.parse((TEMPLATES / name).read_text(encoding="utf-8"))
        used |= meta.find_undeclared_variables(tree)
        parts += [part for part in meta.find_referenced_templates(tree) if part is not None]
    assert sorted(parts) == sorted(path.name for path in TEMPLATES.iterdir())
    assert used == {spec.name for spec in fields(PageContext)}
    assert all(spec.metadata["help"].endswith(".") for spec in fields(PageContext))


@pytest.mark.parametrize("name", NIGHTS)
def test_the_page_asks_nothing_of_anyone_and_runs_nothing(name: str) -> None:
    rendered = render_html(NIGHTS[name], PICTURES.get(name))
    page = Page(rendered)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {
        "script",
        "iframe",
        "link",
        "object",
        "embed",
        "form",
        "base",
        "a",
        "image",
        "foreignobject",
    }
    for tag, attributes in page.elements:
        for attribute, value in attributes.items():
            assert not attribute.startswith("on"), (tag, attribute)
            assert attribute not in ("srcset", "action", "formaction"), (tag, attribute)
            if attribute == "src":
                assert tag == "img"
                assert (value or "").startswith("data:image/jpeg;base64,")
            if attribute.endswith("href"):
                assert (value or "").startswith("#"), (tag, value)
            if not attribute.startswith("xmlns"):
                assert "url(http" not in (value or "")
    policy = [attributes["content"] for tag, attributes in page.elements if "http-equiv" in attributes]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    style = re.findall(r"<style>(.*?)</style>", rendered, flags=re.DOTALL)
    assert len(style) == 1
    assert "url(" not in style[0]
    assert "@import" not in style[0]


def test_hostile_names_are_shown_as_text() -> None:
    rendered = render_html(hostile_night())
    rendered.encode("utf-8")
    page = Page(rendered)
    assert "incoming/2026-11-21/<script>alert(1)</script>/a.jpg" in page.text
    assert '"onload="x/{{ 7*7 }}.jpg' in page.text
    assert r"\u202egpj.exe\x00\ud800\n<img src=https://example.com/x>.jpg" in page.text
    assert "</style><script>alert(4)</script>" in page.text
    assert "\u202e" not in rendered


@pytest.mark.parametrize("name", NIGHTS)
def test_the_sentence_comes_first(name: str) -> None:
    page = Page(render_html(NIGHTS[name]))
    headings = [tag for tag, _ in page.elements if tag in ("h1", "h2")]
    assert headings[0] == "h1"
    assert headings.count("h1") == 1
    assert page.text.index(page_context(NIGHTS[name]).sentence) < page.text.index("Photos of the night")


def test_a_normal_night_shows_all_its_figures() -> None:
    text = Page(render_html(night())).text
    for shown in (
        *("2,462", "88%", "268.4 MB, 12 late", "312 wait in all", "✓ Adds up", "Bags & luggage", "37.0%", "Blurry"),
        *("Cut off", "upload it again", "As usual", "Read and check", "98 photos per second"),
        *("mobilenet_v2@1.0.0-float32", "scheduled__2026-11-22T02:00:00+00:00", "2026-11-22 02:04 UTC"),
        "FROM reporting.daily_categories WHERE run_date = DATE '2026-11-21'",
    ):
        assert shown in text, shown


def test_a_night_without_photos_has_no_chart_and_no_empty_table() -> None:
    page = Page(render_html(empty_night()))
    assert "svg" not in {tag for tag, _ in page.elements}
    assert "What came back" not in page.text
    assert "What could not be used" not in page.text
    assert "No photo waits for a person." in page.text


def test_figures_that_do_not_add_up_are_marked() -> None:
    page = Page(render_html(NIGHTS["wrong"]))
    assert "Does not add up" in page.text
    assert "✓ Adds up" not in page.text


def test_a_chart_that_fails_is_a_note_and_not_a_failed_report(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_: object) -> str:
        msg = "no fonts"
        raise RuntimeError(msg)

    monkeypatch.setattr(charts, "category_chart", fails)
    monkeypatch.setattr(charts, "sorting_chart", fails)
    page = Page(render_html(night()))
    assert page.text.count(CHART_WARNING) == 1
    assert "svg" not in {tag for tag, _ in page.elements}
    assert "Bags & luggage" in page.text
    assert "a chart could not be drawn" in caplog.text
    assert "no fonts" in caplog.text


def test_a_made_up_night_says_so_in_every_form() -> None:
    made_up, real = night(synthetic=True), night()
    for rendered in (render_html(made_up), render_text(made_up), render_csv(made_up)):
        assert MADE_UP.lower() in " ".join(rendered.split()).lower()
    for rendered in (render_html(real), render_text(real), render_csv(real)):
        assert "made-up" not in rendered.lower()
    assert "AND synthetic" in render_html(made_up)
    assert "AND NOT synthetic" in render_html(real)


def test_refunds_are_shown_by_department_and_contradictions_one_by_one() -> None:
    text = " ".join(Page(render_html(night())).text.split())
    assert "Refunds by department" in text
    assert "All refunds 1,215 38" in text
    assert "38 of the 1,215 refunds (3.1%)" in text
    assert "R-10024 Shoes 2, Clothing 1 incoming/2026-11-21/R-10024/img_1.jpg" in text
    assert "2 of 38 are shown." in text


def test_every_measure_of_drift_is_shown_with_its_threshold_and_floor() -> None:
    text = " ".join(Page(render_html(shifted_night())).text.split())
    assert "Mix of goods – – 0.202 0.120 0.100 Differs" in text
    assert "Largest move (Toys & games) 23.9% 3.7% 0.202 0.036 0.030 Differs" in text
    assert "Number of photos 2,622 2,461" in text
    assert "Share that could not be used 1.2% 1.3%" in text
    assert "What moved most Category This night Usual Points Toys & games 23.9% 3.7% +20.2" in text
    calm = Page(render_html(night())).text
    assert "What moved most" not in calm
    assert "Compared with other nights As usual" in " ".join(calm.split())


def test_pictures_are_inside_the_page_and_missing_ones_are_named() -> None:
    figures = shifted_night()
    gone, huge, *_ = figures.examples
    figures = replace(figures, examples=(replace(gone, missing="gone"), *figures.examples[1:]))
    pictures = thumbnails(figures) | {huge.key: Thumbnail(jpeg=b"x" * MAX_PICTURES_BYTES, width_px=9, height_px=9)}
    rendered = render_html(figures, pictures)
    page = Page(rendered)
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    assert len(images) == 6
    assert images[0]["alt"] == "Photo sorted as Toys & games, score 0.97: incoming/2026-11-21/R-2/toys_games.jpg"
    assert f"Not shown: {gone.key} (gone)" in page.text
    assert f"Not shown: {huge.key} (the page would grow too large)" in page.text
    assert len(rendered.encode()) < 1_000_000


def test_latencies_and_error_rates_are_shown_where_they_were_measured() -> None:
    text = " ".join(Page(render_html(night())).text.split())
    assert "Read and check 9.3 s 2,462 1.3% 3.1 ms 14 ms 61 ms" in text
    assert "Write to the database 0.9 s 2,462 0.0% – – –" in text
    plain = night(stages=(StageRow(stage="validate", seconds=9.3),))
    assert "Median" not in Page(render_html(plain)).text


def test_open_alerts_are_shown() -> None:
    assert "Warning · rejection_spike · 9.1% of the photos" in Page(render_html(shifted_night())).text
    assert "Open alerts" not in Page(render_html(night())).text


@pytest.mark.parametrize("figures", [night(), hostile_night()])
def test_the_same_figures_give_the_same_bytes(figures: ReportFigures) -> None:
    assert render_html(figures) == render_html(figures)


def test_models_are_shown_with_their_photos_and_what_they_scored_last() -> None:
    seen = Page(render_html(night(models=TWO_MODELS, audits=24))).text
    shown = " ".join(seen.split())
    for text in (
        "mobilenet_v2@1.0.0-float32, 2,000 photos of the night",
        "mobilenet_v2@1.1.0-int8, 430 photos of the night",
        "91.2% of categories right (95% interval 87.6% to 94.4%) on 250 labelled photos, returns.csv",
        "24 are drawn for people to check",
    ):
        assert text in shown
    assert shown.count("of categories right") == 1
