"""The reliability plot: an image that also says in words what it shows."""

from __future__ import annotations

import io
from typing import Literal

import pytest
from PIL import Image

from refund.monitor.accuracy import evaluate_predictions
from refund.report.reliability import describe_reliability, reliability_plot
from tests.monitor.factories import draw_verdicts, make_verdict

FIGURES = evaluate_predictions(draw_verdicts(120), auto=[True] * 120, resamples=50)


@pytest.mark.parametrize("image_format", ["png", "svg"])
def test_the_same_figures_give_the_same_bytes_which_say_in_words_what_they_show(
    image_format: Literal["png", "svg"],
) -> None:
    body, again = (
        reliability_plot(FIGURES, model="m@1", set_name="photos/", image_format=image_format) for _ in range(2)
    )
    assert body == again
    words = describe_reliability(FIGURES, model="m@1")
    if image_format == "svg":
        assert words in body.decode()
        return
    with Image.open(io.BytesIO(body)) as image:
        assert image.format == "PNG"
        assert image.width >= 600
        assert image.text["Description"] == words  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["$x_{1}$ \\frac weird\nname\x07", "s3://b/日本語/" + "a" * 300, ""])
def test_any_name_of_a_set_can_be_written(name: str) -> None:
    body = reliability_plot(FIGURES, model="m@1", set_name=name, image_format="svg")
    assert body.startswith(b"<?xml")


def test_one_photograph_can_be_drawn() -> None:
    figures = evaluate_predictions([make_verdict(1, "a", "b", score=1.0)], auto=[True], resamples=5)
    assert reliability_plot(figures, model="m@1", set_name="x", image_format="png").startswith(b"\x89PNG")


def test_the_words_name_the_error_and_every_bin_that_holds_photographs() -> None:
    figures = evaluate_predictions(
        [make_verdict(1, "a", "a", score=0.5), make_verdict(2, "a", "b", score=0.99)], auto=[True, True], resamples=5
    )
    assert describe_reliability(figures, model="m@1") == (
        "Reliability diagram of m@1 on 2 photographs, expected calibration error 0.745. By category score, "
        "0.47 to 0.53: 1 photographs, score 0.50, right 1.00; 0.93 to 1.00: 1 photographs, score 0.99, right 0.00."
    )
