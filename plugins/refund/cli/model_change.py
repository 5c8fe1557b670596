"""``refund model import``, ``promote``, ``rollback``, ``retire``, ``history``: who changes the registry, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from refund.cli.access import command_services, who
from refund.cli.app import AsJson, console, print_json, printable, step
from refund.cli.model import comparison_lines, models
from refund.errors import NoModelError

if TYPE_CHECKING:
    from refund.lifecycle.import_model import BareFile

CHAMPION = "champion"
ALIASES = "champion or challenger"
AliasOption = Annotated[str, typer.Option(help=f"Which alias: {ALIASES}.")]


@models.command("import")
def import_model(
    source: Annotated[
        str, typer.Argument(help="A folder or s3://bucket/prefix/ with card.json and its artefact, or a .tflite file.")
    ],
    name: Annotated[str, typer.Option(help="For a .tflite file: the network's name.")] = "",
    version: Annotated[str, typer.Option(help="For a .tflite file: its version.")] = "",
    output: Annotated[str, typer.Option(help="For a .tflite file: probabilities or logits.")] = "",
    input_scale: Annotated[
        float | None, typer.Option(help="For a .tflite file that takes float32: it gets pixel * scale + offset.")
    ] = None,
    input_offset: Annotated[float | None, typer.Option(help="The offset; pixels are 0 to 255.")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Its class list (index,class_id,class_name), which must be the project's.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a LiteRT model from outside in a process of its own and register it as a candidate.

    Example: refund model import from-the-lab/
    """
    from refund.lifecycle.import_model import import_model as take_in

    with command_services() as services:
        imported = take_in(
            services,
            source,
            by=who(),
            bare=_bare_file(name, version, output, input_scale, input_offset),
            labels=labels,
            progress=step,
        )
    row = imported.row
    if as_json:
        print_json(row.as_json())
    elif row.aliases:
        console.print(f"{row.model} is registered already and is {' and '.join(row.aliases)}: {imported.seen.sentence}")
    else:
        console.print(f"Registered {row.model} as a candidate: {imported.seen.sentence}")


@models.command()
def promote(
    model: Annotated[str, typer.Argument(help="name@version, or the alias challenger.")],
    reason: Annotated[str, typer.Option(help="Why; the history keeps it.")],
    alias: AliasOption = "champion",
    override: Annotated[
        bool, typer.Option("--override", help="Go through the gate all the same; the reason says why.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Let an alias mean another model; a champion must not be significantly worse than the one before it.

    Nights use a new champion from their next run on.

    Example: refund model promote challenger --reason "better on shoes, as good elsewhere"
    """
    from refund.lifecycle.promote import promote as let_in

    with command_services() as services:
        done = let_in(services, model, alias=alias, by=who(), reason=reason, override=override)
    if as_json:
        print_json(done.as_json())
        return
    if not done.changed:
        console.print(f"{done.model} is {alias} already")
        return
    if done.comparison is not None:
        for line in comparison_lines(done.comparison):
            console.print(line)
    for objection in done.objections:
        console.print(f"Overridden: {printable(objection)}")
    when = " from the next run on" if alias == CHAMPION else ""
    console.print(f"{done.model} is {alias}{when}; before: {done.before or 'none'}")


@models.command()
def rollback(
    reason: Annotated[str, typer.Option(help="What is wrong with the present model; the history keeps it.")],
    alias: AliasOption = "champion",
    as_json: AsJson = False,
) -> None:
    """Let an alias mean again what it meant before its present model; nights follow with their next shard.

    Example: refund model rollback --reason "sneakers go to Electronics"
    """
    with command_services() as services:
        try:
            present = services.registry.resolve(alias).model
        except NoModelError:
            present = None
        move = services.registry.rollback(alias, by=who(), reason=reason, expected=present)
    if as_json:
        print_json(move.as_json())
        return
    for skipped in move.skipped:
        console.print(f"Passed over {skipped}, which is retired")
    when = ", in a running night from its next shard on" if alias == CHAMPION else ""
    console.print(f"{move.after} is {alias} again{when}; before: {move.before}")


@models.command()
def retire(
    model: Annotated[str, typer.Argument(help="name@version.")],
    reason: Annotated[str, typer.Option(help="Why; the audit keeps it.")],
    as_json: AsJson = False,
) -> None:
    """Let no run, promotion or rollback use a model any more; what it predicted stays, and so do its files.

    Example: refund model retire net@1 --reason "trained on wrong labels"
    """
    with command_services() as services:
        key = services.registry.resolve(model).model
        changed = services.registry.retire(key, by=who(), reason=reason)
    if as_json:
        print_json({"model": key, "changed": changed})
    else:
        console.print(f"{key} is retired" if changed else f"{key} is retired already")


@models.command()
def history(
    alias: Annotated[str | None, typer.Option(help=f"Only this one: {ALIASES}.")] = None, as_json: AsJson = False
) -> None:
    """List who changed what the aliases mean, when and why; the newest change first.

    Example: refund model history --alias champion
    """
    with command_services() as services:
        changes = services.registry.history(alias)[::-1]
    if as_json:
        print_json([change.as_json() for change in changes])
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("when (UTC)", "alias", "action", "model", "by", "reason"):
        table.add_column(column, overflow="fold")
    for change in changes:
        action = f"{change.action}, overridden" if change.override else change.action
        table.add_row(
            f"{change.set_at:%Y-%m-%d %H:%M:%S}",
            change.alias,
            action,
            change.model,
            printable(change.by),
            printable(change.reason),
        )
    console.print(
        table if changes else "No alias was ever set; set one: refund model promote NAME@VERSION --reason TEXT"
    )


def _bare_file(
    name: str, version: str, output: str, input_scale: float | None, input_offset: float | None
) -> BareFile | None:
    from refund.lifecycle.import_model import BareFile

    if not (name or version or output or input_scale is not None or input_offset is not None):
        return None
    for value, option in ((name, "--name"), (version, "--version"), (output, "--output")):
        if not value:
            msg = "a .tflite file has no card, so its name, version and output must be said"
            raise typer.BadParameter(msg, param_hint=option)
    return BareFile(name=name, version=version, output=output, input_scale=input_scale, input_offset=input_offset)
