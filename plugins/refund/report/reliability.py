"""Draws the reliability diagram of an evaluation: how often the model is right where it says it is so sure.

After Guo et al. (2017, "On Calibration of Modern Neural Networks", ICML), with the number of photographs in each bin
below, because a bin of three photographs proves nothing.
"""

from __future__ import annotations

import io
import logging
import warnings
from typing import TYPE_CHECKING, Any, Literal

from refund.monitor.accuracy import Figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = ("png", "svg")
# Blue and orange of Okabe & Ito's palette, told apart by the colour-blind too; shape and label say the same.
_BAR, _MARK, _INK, _MUTED = "#0072b2", "#9c4a00", "#1a1a1a", "#5c5c5c"


def reliability_plot(figures: Figures, *, model: str, set_name: str, image_format: Literal["png", "svg"]) -> bytes:
    """The diagram as an image file; what it shows is also in it as text, see `describe_reliability`.

    The same figures give the same bytes on one machine.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # a read-only home folder is no news: it then uses /tmp
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style: Any = {  # an operator's matplotlibrc must not change the picture
        **{key: mpl.rcParamsDefault[key] for key in mpl.rcParamsDefault if not key.startswith("backend")},
        "svg.hashsalt": "refund",  # otherwise ids are random
        "font.size": 11,
    }
    words = describe_reliability(figures, model=model)
    metadata: dict[str, Any] = {"Title": f"Reliability of {model}", "Description": words}
    if image_format == "svg":
        metadata["Date"] = None
    else:
        metadata["Software"] = None
    with mpl.rc_context(style), warnings.catch_warnings():
        # a set may be named in any script; a box instead of a letter is no reason to complain
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure = Figure(figsize=(7.0, 7.8), layout="constrained")
        upper, lower = figure.subplots(2, 1, height_ratios=[4, 1], sharex=True)
        _draw_bins(upper, figures)
        _draw_counts(lower, figures)
        upper.set_title(
            f"{model}\n{figures.photos} photographs of {_short(set_name)}; "
            f"ECE {figures.ece.value:.3f} [{figures.ece.low:.3f}, {figures.ece.high:.3f}]",
            fontsize=11,
            loc="left",
            color=_INK,
            parse_math=False,
        )
        figure.legend(loc="outside lower left", frameon=False, fontsize=10)
        buffer = io.BytesIO()
        figure.savefig(buffer, format=image_format, dpi=120, metadata=metadata)
    return buffer.getvalue()


def describe_reliability(figures: Figures, *, model: str) -> str:
    """The diagram in words, for those who do not see it."""
    bins = "; ".join(
        f"{one.low:.2f} to {one.high:.2f}: {one.photos} photographs, score {one.mean_score:.2f}, "
        f"right {one.accuracy.value:.2f}"
        for one in figures.reliability
        if one.accuracy is not None and one.mean_score is not None
    )
    return (
        f"Reliability diagram of {model} on {figures.photos} photographs, expected calibration error "
        f"{figures.ece.value:.3f}. By category score, {bins}."
    )


def _draw_bins(axes: Axes, figures: Figures) -> None:
    axes.plot([0, 1], [0, 1], color=_MUTED, linestyle="--", linewidth=1.2, label="right as often as it says")
    filled = [(one, one.accuracy, one.mean_score) for one in figures.reliability]
    drawn = [(one, right, score) for one, right, score in filled if right is not None and score is not None]
    width = 1 / len(figures.reliability)
    axes.bar(
        [one.low for one, _, _ in drawn],
        [right.value for _, right, _ in drawn],
        width=width * 0.94,
        align="edge",
        color=_BAR,
        alpha=0.35,
        edgecolor=_BAR,
        label="share that is right, with 95 % interval",
    )
    axes.errorbar(
        [one.low + width * 0.47 for one, _, _ in drawn],
        [right.value for _, right, _ in drawn],
        yerr=[
            [max(0.0, right.value - right.low) for _, right, _ in drawn],
            [max(0.0, right.high - right.value) for _, right, _ in drawn],
        ],
        fmt="none",
        ecolor=_BAR,
        capsize=3,
    )
    axes.plot(
        [score for _, _, score in drawn],
        [score for _, _, score in drawn],
        marker="D",
        linestyle="none",
        color=_MARK,
        label="mean category score of the bin",
    )
    axes.set(xlim=(0, 1), ylim=(0, 1.03), ylabel="share put in the right category")
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)


def _draw_counts(axes: Axes, figures: Figures) -> None:
    width = 1 / len(figures.reliability)
    most = max(one.photos for one in figures.reliability)
    axes.bar(
        [one.low for one in figures.reliability],
        [one.photos for one in figures.reliability],
        width=width * 0.94,
        align="edge",
        color=_MUTED,
    )
    for one in figures.reliability:
        if one.photos:
            place = (one.low + width * 0.47, one.photos)
            axes.annotate(f"{one.photos:,}", place, ha="center", va="bottom", fontsize=9, color=_INK)
    axes.set(xlabel="category score", ylabel="photographs", ylim=(0, most * 1.3))


def _short(name: str) -> str:
    """The end of a long name, on one line."""
    line = "".join(character if character.isprintable() else "?" for character in name)
    return line if len(line) <= 40 else f"…{line[-39:]}"
