"""``refund model list``, ``show``, ``diff`` and ``verify``: what the registry holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from refund.cli.access import command_services, find_access
from refund.cli.app import AsJson, app, console, print_json, printable, step
from refund.cli.exit_codes import EXIT_NO
from refund.errors import RetriableRunError, StackError
from refund.keys import path_safe
from refund.settings import Settings

if TYPE_CHECKING:
    from refund.lifecycle.promote import Comparison

models = typer.Typer(name="model", help="Build, evaluate, promote and look at models.", no_args_is_help=True)
app.add_typer(models)


@models.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List every registered model and the aliases that point at it.

    Example: refund model list
    """
    with command_services() as services:
        rows = services.registry.list()
    if as_json:
        print_json([row.as_json() for row in rows])
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("model", "alias", "precision", "agreement", "accuracy", "registered", "by", "state"):
        table.add_column(column, overflow="fold")  # a key that is cut off cannot be typed
    for row in rows:
        table.add_row(
            row.model,
            ", ".join(row.aliases),
            row.card.precision,
            "" if row.card.agreement is None else row.card.agreement.state,
            "" if row.accuracy is None else f"{row.accuracy:.3f} on {printable(row.evaluated_on)}",
            f"{row.created_at:%Y-%m-%d %H:%M}",
            row.created_by,
            row.state,
        )
    console.print(table if rows else "No model is registered; build one with: refund model build")


@models.command()
def show(
    model: Annotated[str, typer.Argument(help="An alias or name@version.")] = "champion", as_json: AsJson = False
) -> None:
    """Show a model's card.

    Example: refund model show champion
    """
    with command_services() as services:
        row = services.registry.resolve(model)
    card = json.loads(row.card.to_json())
    if as_json:
        print_json(card)
    else:
        console.print_json(data=card)


@models.command()
def diff(
    first: Annotated[str, typer.Argument(help="An alias or name@version.")],
    second: Annotated[str, typer.Argument(help="Another one.")],
    as_json: AsJson = False,
) -> None:
    """Compare two models: what differs in their cards, and what both scored on the set they were evaluated on last.

    Example: refund model diff champion challenger
    """
    from refund.lifecycle.diff import diff_models

    with command_services() as services:
        difference = diff_models(services, first, second)
    if as_json:
        print_json(difference.as_json())
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("field", difference.first, difference.second):
        table.add_column(column, overflow="fold")
    for name, values in difference.fields.items():
        table.add_row(name, *(printable(value) for value in values))
    console.print(
        table if difference.fields else f"The cards of {difference.first} and {difference.second} say the same"
    )
    for line in [] if difference.comparison is None else comparison_lines(difference.comparison):
        console.print(line)
    if difference.comparison is None and difference.first != difference.second:
        console.print(
            "They were not evaluated on one and the same set: refund model evaluate NAME@VERSION --labels SET"
        )


@models.command()
def verify(
    model: Annotated[str, typer.Argument(help="An alias, name@version, or all.")] = "all", as_json: AsJson = False
) -> None:
    """Check every registered file in S3 against Postgres and load it in a process of its own; exit code 1 if one fails.

    Example: refund model verify
    """
    from refund.lifecycle.verify import verify_models

    with command_services() as services:
        verified = verify_models(services, None if model == "all" else model, progress=step)
    if as_json:
        print_json([one.as_json() for one in verified])
    else:
        for one in verified:
            console.print(f"{one.model}: {'wrong' if one.faults else 'as registered, loads and predicts'}")
            for fault in one.faults:
                console.print(f"  {printable(fault)}")
        if not verified:
            console.print("No model is registered; build one with: refund model build")
    if any(one.faults for one in verified):
        raise typer.Exit(EXIT_NO)


def comparison_lines(comparison: Comparison) -> list[str]:
    """Two models on one set, for people."""
    from refund.lifecycle.promote import difference_text

    figures = (
        ("accuracy", comparison.current_accuracy, comparison.candidate_accuracy, comparison.paired.accuracy),
        ("macro-F1", comparison.current_macro_f1, comparison.candidate_macro_f1, comparison.paired.macro_f1),
    )
    return [
        f"On the {comparison.paired.photos} photographs of {printable(comparison.set_name)}, {comparison.current} and "
        f"{comparison.candidate}:",
        *(f"  {name} {now:.3f} and {then:.3f}, {difference_text(gap)}" for name, now, then, gap in figures),
    ]


def local_model_folder(model: str) -> tuple[Settings, Path]:
    """A verified model folder, from the registry where it answers, else the copy that was used last.

    Raises:
        NoModelError: the registry does not know it, or does not answer and there is no copy.
    """
    access = find_access()
    try:
        with command_services() as services:
            key = services.registry.resolve(model).model
            folder = services.registry.fetch(key, access.settings.cache_folder)
    except (RetriableRunError, StackError) as exc:
        pointer = _pointer(access.settings, model)
        if not pointer.exists():
            raise
        kept = access.settings.cache_folder / pointer.read_text(encoding="utf-8")
        step(f"The registry does not answer ({exc.args[0].splitlines()[0]}); using the copy in {kept}")
        return access.settings, kept
    pointer = _pointer(access.settings, model)
    temporary = pointer.with_suffix(".tmp")
    temporary.write_text(folder.name, encoding="utf-8")
    temporary.replace(pointer)
    return access.settings, folder


def _pointer(settings: Settings, alias: str) -> Path:
    """The file that remembers which copy an alias meant when the registry last answered."""
    return settings.cache_folder / f"{path_safe(alias)}.last"
