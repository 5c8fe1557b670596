"""``refund model evaluate``: how good a model is on photographs whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer
from rich.table import Table
from rich.text import Text

from refund.cli.access import command_services, who
from refund.cli.app import AsJson, console, print_json, printable, step
from refund.cli.model import models
from refund.params import NightParams
from refund.report.labels import category_label
from refund.report.reliability import FORMATS, reliability_plot

if TYPE_CHECKING:
    from refund.lifecycle.evaluate import Evaluation
    from refund.monitor.accuracy import Confusion
    from refund.monitor.resampling import Estimate

_FEW = 10  # photographs; the interval of a share of fewer says next to nothing
_CONFUSIONS = 8


@models.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="An alias or name@version.")],
    labels: Annotated[
        str,
        typer.Option(help="A CSV (path and class_id, category or both), a folder, or s3://bucket/prefix/ or .csv."),
    ],
    threshold: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Category score below which a photo goes to review.")
    ] = NightParams().review_threshold,
    plot: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write the reliability plot here too: .png or .svg.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate a model on labelled photographs; the figures are kept with its version.

    In a folder, photographs lie in subfolders named by class id or category, or are named like n01440764_tench.jpg.

    Example: refund model evaluate champion --labels photos/
    """
    from refund.lifecycle.evaluate import evaluate_model

    image_format = _image_format(plot)
    with command_services() as services:
        done = evaluate_model(services, model=model, where=labels, threshold=threshold, by=who(), progress=step)
    if plot is not None:
        try:
            plot.write_bytes(
                reliability_plot(done.figures, model=done.model, set_name=done.set_name, image_format=image_format)
            )
        except Exception as exc:  # noqa: BLE001 -- the evaluation is made and kept; its picture is an extra
            step(f"The plot could not be written to {plot}: {exc}")
    if done.plot_uri is None:
        step("The reliability plot could not be kept in S3; the figures are")
    if as_json:
        print_json(done.as_json())
    else:
        _show(done)


def _image_format(plot: Path | None) -> Literal["png", "svg"]:
    if plot is None:
        return "png"
    suffix = plot.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        msg = f"{plot} ends with {plot.suffix or 'nothing'}; expected .png or .svg"
        raise typer.BadParameter(msg, param_hint="--plot")
    if not plot.absolute().parent.is_dir():
        msg = f"there is no folder {plot.absolute().parent} to write {plot.name} to"
        raise typer.BadParameter(msg, param_hint="--plot")
    return cast("Literal['png', 'svg']", suffix)


def _show(done: Evaluation) -> None:
    figures = done.figures
    console.print(Text(f"{done.model} on {printable(done.set_name)}", style="bold"))
    console.print(
        f"{figures.photos} photographs classified of {done.photos}, taxonomy {done.taxonomy_version}, "
        f"evaluation {done.evaluation_id}, {done.seconds:.1f} s"
    )
    _show_left_out(done)
    console.print(_overall(done), "")
    console.print(_departments(done), "")
    if any(row.photos < _FEW for row in figures.categories):
        console.print(Text(f"* fewer than {_FEW} photographs: read such a ratio as an anecdote", style="dim"))
    if confused := _confused(figures.confusion):
        console.print(f"Most often confused: {'; '.join(confused)}")
    if done.plot_uri is not None:
        console.print(f"Plot: {done.plot_uri}")


def _show_left_out(done: Evaluation) -> None:
    left_out = done.left_out
    if left_out.duplicates:
        console.print(f"{left_out.duplicates} photographs are there more than once and count once")
    if left_out.ignored:
        console.print(f"{left_out.ignored} files are named otherwise than photographs and were passed over")
    if left_out.rejected:
        place, reason = left_out.rejected[0]
        console.print(
            f"{len(left_out.rejected)} photographs were rejected and are in no ratio, for example "
            f"{printable(place)}: {printable(reason)}"
        )


def _overall(done: Evaluation) -> Table:
    figures = done.figures
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("figure", "value", "95 % interval", "of"):
        table.add_column(column, justify="left" if column in {"figure", "of"} else "right")
    rows: list[tuple[str, Estimate | None, str]] = [
        ("accuracy (category)", figures.accuracy, f"{figures.photos} photographs"),
        ("macro-F1", figures.macro_f1, f"{sum(row.photos > 0 for row in figures.categories)} categories"),
        ("top-1 (class)", figures.top1, f"{figures.top1_photos} photographs with a known class"),
        ("calibration error (ECE)", figures.ece, f"{len(figures.reliability)} bins of the category score"),
        (f"automatic at threshold {done.threshold:g}", figures.coverage, f"{figures.photos} photographs"),
        (
            "accuracy of the automatic",
            figures.auto_accuracy,
            f"{sum(row.auto for row in figures.categories)} photographs",
        ),
    ]
    for name, estimate, of in rows:
        if estimate is not None:
            table.add_row(name, f"{estimate.value:.3f}", f"{estimate.low:.3f} to {estimate.high:.3f}", of)
    return table


def _departments(done: Evaluation) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    columns = ("department", "photos", "accuracy", "precision", "F1", "automatic", "their accuracy")
    for column in columns:
        table.add_column(column, justify="left" if column == "department" else "right")
    for row in sorted(done.figures.categories, key=lambda row: (-row.photos, row.category)):
        table.add_row(
            category_label(row.category),
            f"{row.photos}{'*' if row.photos < _FEW else ' '}",
            *map(_cell, (row.recall, row.precision, row.f1, row.coverage, row.auto_accuracy)),
        )
    return table


def _cell(estimate: Estimate | None) -> str:
    return "–" if estimate is None else f"{estimate.value:.2f} [{estimate.low:.2f}–{estimate.high:.2f}]"


def _confused(confusion: Confusion) -> list[str]:
    names = [category_label(category) for category in confusion.categories]
    wrong = [
        (count, names[truth], names[answer])
        for truth, row in enumerate(confusion.counts)
        for answer, count in enumerate(row)
        if count and truth != answer
    ]
    most = sorted(wrong, key=lambda item: (-item[0], item[1], item[2]))[:_CONFUSIONS]
    return [f"{truth} taken for {answer} ({count})" for count, truth, answer in most]
