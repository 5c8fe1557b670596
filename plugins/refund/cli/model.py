"""``refund model list`` and ``show``: what the registry holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from refund.cli.access import command_services, find_access
from refund.cli.app import AsJson, app, console, print_json, step
from refund.errors import RetriableRunError, StackError
from refund.keys import path_safe
from refund.settings import Settings

models = typer.Typer(name="model", help="Build, list and show models.", no_args_is_help=True)
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
    for column in ("model", "alias", "precision", "registered", "by", "state"):
        table.add_column(column, overflow="fold")  # a key that is cut off cannot be typed
    for row in rows:
        table.add_row(
            row.model,
            ", ".join(row.aliases),
            row.card.precision,
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
