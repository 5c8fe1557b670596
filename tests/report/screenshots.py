"""Makes the pictures of docs/report-*.png: python -m tests.report.screenshots

The figures are those of `tests.report.factories`; the photos are scikit-image's own, free to use.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from refund.report.figures import ReportFigures
from refund.report.page import render_html
from refund.report.rows import ExampleRow
from refund.report.thumbnails import Thumbnail, make_thumbnail
from tests.browser import chromium, find_chromium
from tests.report.factories import TWO_MODELS, USUAL, night

DOCS = Path(__file__).resolve().parents[2] / "docs"
_CROPS = ((0.0, 0.0, 1.0, 1.0), (0.1, 0.05, 0.8, 0.95), (0.2, 0.1, 1.0, 0.9), (0.0, 0.15, 0.75, 1.0))


def examples() -> tuple[tuple[ExampleRow, ...], dict[str, Thumbnail]]:
    """Four crops each of a photograph of a coffee cup and of one of a space suit."""
    from PIL import Image
    from skimage import data

    rows, pictures = [], {}
    for category, pixels in (("kitchen_dining", data.coffee()), ("clothing", data.astronaut())):
        height, width, _ = pixels.shape
        for number, (left, top, right, bottom) in enumerate(_CROPS, start=1):
            crop = pixels[int(top * height) : int(bottom * height), int(left * width) : int(right * width)]
            key = f"incoming/2026-11-21/R-2{number}07/{category[:3]}_{number}.jpg"
            rows.append(ExampleRow(category=category, key=key, score=0.99 - number / 100))
            squeezed = Image.fromarray(crop).resize((320, 320))
            pictures[key] = make_thumbnail(_array(squeezed), width_px=crop.shape[1], height_px=crop.shape[0])
    return tuple(rows), pictures


def _array(image: Any) -> Any:
    import numpy as np

    return np.asarray(image)


def shifted(rows: tuple[ExampleRow, ...]) -> ReportFigures:
    photos = {**USUAL, "kitchen_dining": 860, "clothing": 610, "toys_games": 95}
    return night(photos, models=TWO_MODELS[:1], audits=23, examples=rows)


def take(browser: Any, page: str, name: str, *, width: int, height: int | None = None, scheme: str = "light") -> None:
    """Take a picture of the page, or of its upper ``height`` pixels, with few enough colours for a small file."""
    from PIL import Image

    scale = 2 if width < 500 else 1
    shown = browser.new_page(
        viewport={"width": width, "height": height or 900}, color_scheme=scheme, device_scale_factor=scale
    )
    shown.set_content(page)
    body = shown.screenshot(full_page=height is None)
    shown.close()
    image = Image.open(io.BytesIO(body)).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(DOCS / name, optimize=True)


if __name__ == "__main__":
    executable = find_chromium()
    if executable is None:
        raise SystemExit("no Chromium is here")
    example_rows, thumbnails = examples()
    photos = {**USUAL, "clothing": 887, "shoes": 541, "kitchen_dining": 283, "toys_games": 97}
    normal = render_html(night(photos, models=TWO_MODELS[:1], audits=24))
    differs = render_html(shifted(example_rows), thumbnails)
    with chromium(executable) as running:
        take(running, normal, "report-normal.png", width=1000, height=1900)  # its upper half, for the README
        take(running, differs, "report-shifted.png", width=1000)
        take(running, differs, "report-phone.png", width=390, height=1900, scheme="dark")
