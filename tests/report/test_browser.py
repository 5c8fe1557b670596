"""The page as a browser shows it: wide and narrow, light, dark and on paper; nothing is asked of anyone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from refund.report.page import render_html
from tests.report.factories import TWO_MODELS, hostile_night, shifted_night, thumbnails

SHIFTED = shifted_night(models=TWO_MODELS, audits=9)
PAGES = {
    "shifted": render_html(SHIFTED, thumbnails(SHIFTED)),
    "hostile": render_html(hostile_night(), thumbnails(hostile_night())),
    "made up": render_html(shifted_night(synthetic=True, notes=("a note " * 80,))),
}
ADDRESS = "http://report.invalid/"

# WCAG 2.2: relative luminance and contrast ratio; every text of the page against the nearest painted ground.
LOW_CONTRAST = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const rgba = text => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const light = colour => [...colour].slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const ground = node => {
    for (let at = node; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      if (colour[3] === 255) return light(colour);
    }
    return 1;
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let checked = 0;
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.getClientRects().length) continue;
    const style = getComputedStyle(node);
    const contrast = ratio(light(rgba(node.closest("svg") ? style.fill : style.color)), ground(node));
    checked += 1;
    if (contrast < 4.5) found.push([walker.currentNode.data.trim().slice(0, 40), contrast.toFixed(2)]);
  }
  const paper = ground(document.body);
  for (const name of ["--auto", "--review", "--bad", "--ink"]) {
    const colour = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    if (ratio(light(rgba(colour)), paper) < 3) found.push([name, colour]);
  }
  return {checked, found};
}"""

SHAPE = """() => ({
  wide: document.documentElement.scrollWidth - innerWidth,
  levels: [...document.querySelectorAll("h1, h2, h3, h4")].map(node => Number(node.tagName[1])),
  pictures: [...document.images].map(image => [image.naturalWidth, image.complete, image.alt.length]),
  silent: [...document.querySelectorAll("svg")].filter(
    svg => svg.getAttribute("role") !== "img" || !(svg.getAttribute("aria-label") || "").trim()).length,
  charts: [...document.querySelectorAll("svg")].map(svg => svg.getBoundingClientRect().width),
  ids: [...document.querySelectorAll("[id]")].map(node => node.id),
})"""


class Shown:
    """A page in the browser, and what it asked for and complained of."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.body = ""
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.route("**/*", self._answer)

    def _answer(self, route: Any) -> None:
        self.asked.append(route.request.url)
        if route.request.url == ADDRESS:
            route.fulfill(body=self.body, content_type="text/html; charset=utf-8")
        else:
            route.abort()

    def show(self, body: str) -> Any:
        self.body = body
        self.page.goto(ADDRESS)
        return self.page


@pytest.fixture
def shown(browser: Any) -> Iterator[Shown]:
    page = browser.new_page()
    yield Shown(page)
    page.close()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_loads_and_is_told_to_those_who_do_not_see_it(shown: Shown, name: str) -> None:
    page = shown.show(PAGES[name])
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        shape = page.evaluate(SHAPE)
        assert shape["wide"] <= 0, width
        assert shape["charts"]
        assert all(0 < chart <= width for chart in shape["charts"])
        assert shape["silent"] == 0
        assert len(shape["ids"]) == len(set(shape["ids"]))
        assert shape["levels"][0] == 1
        assert shape["levels"].count(1) == 1
        steps = zip(shape["levels"], shape["levels"][1:], strict=False)
        assert all(after - before <= 1 for before, after in steps)
        assert all(width > 0 and complete and alt for width, complete, alt in shape["pictures"])
    assert bool(shape["pictures"]) == (name != "made up")
    assert shown.complaints == []
    assert [url for url in shown.asked if not url.startswith("data:")] == [ADDRESS]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_and_every_bar_stands_out(shown: Shown, scheme: str) -> None:
    page = shown.show(PAGES["shifted"])
    page.emulate_media(color_scheme=scheme)
    seen = page.evaluate(LOW_CONTRAST)
    assert seen["checked"] > 150
    assert seen["found"] == []


def test_on_paper_it_is_black_on_white_and_fits(shown: Shown) -> None:
    page = shown.show(PAGES["shifted"])
    page.emulate_media(media="print", color_scheme="dark")
    page.set_viewport_size({"width": 672, "height": 950})  # A4 within its margins, at 96 pixels an inch
    assert page.evaluate(SHAPE)["wide"] <= 0
    seen = page.evaluate(LOW_CONTRAST)
    assert seen["found"] == []
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    printed = page.pdf(format="A4", prefer_css_page_size=True)
    assert printed.startswith(b"%PDF")
