"""``refund taxonomy``: check the mapping from classes to categories, and look classes up."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from refund.cli.app import AsJson, app, console, errors, print_json, printable
from refund.cli.exit_codes import EXIT_NO
from refund.model.labels import load_labels
from refund.model.taxonomy import (
    DEPARTMENTS,
    NOT_A_PRODUCT,
    check_taxonomy,
    find_classes,
    load_taxonomy,
    similar_names,
)
from refund.resources import include_path

taxonomies = typer.Typer(
    name="taxonomy", help="Check which class belongs to which category, and look it up.", no_args_is_help=True
)
app.add_typer(taxonomies)


@taxonomies.command()
def check(
    file: Annotated[Path | None, typer.Argument(help="A taxonomy; include/taxonomy.csv unless given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check a taxonomy and count what it holds; exit code 3 and every fault where it has any.

    Example: refund taxonomy check
    """
    file = file or include_path("taxonomy.csv")
    taxonomy = check_taxonomy(file, labels=load_labels())
    classes = Counter(taxonomy.class_categories)
    departments = {name: classes[name] for name in sorted(DEPARTMENTS - {NOT_A_PRODUCT})}
    nodes = Counter(department for _, department in taxonomy.nodes())  # each has one, so they add up
    if as_json:
        print_json(
            {
                "file": str(file),
                "version": taxonomy.version,
                "classes": len(taxonomy.class_ids),
                "departments": departments,
                NOT_A_PRODUCT: classes[NOT_A_PRODUCT],
                "nodes": nodes.total(),
            }
        )
        return
    console.print(printable(f"{file}: version {taxonomy.version}, no fault"))
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("department")
    for column in ("classes", "nodes"):
        table.add_column(column, justify="right")
    for name, count in departments.items():
        table.add_row(name, str(count), str(nodes[name]))
    table.add_row(NOT_A_PRODUCT, str(classes[NOT_A_PRODUCT]), "")
    table.add_row("all", str(len(taxonomy.class_ids)), str(nodes.total()))
    console.print(table)


@taxonomies.command()
def show(
    wanted: Annotated[str, typer.Argument(metavar="CLASS", help="A WordNet id, a class name or a part of one.")],
    as_json: AsJson = False,
) -> None:
    """Show the department and the product node of a class, or of all classes that the text may mean.

    Example: refund taxonomy show "running shoe"
    """
    labels = load_labels()
    taxonomy = load_taxonomy(labels=labels)
    names = dict(zip(labels.class_ids, labels.class_names, strict=True))
    found = [
        {
            "class_id": class_id,
            "class_name": names[class_id],
            "department": taxonomy.category_of(class_id),
            "product_id": taxonomy.product_id(class_id),
            "product_path": taxonomy.product_path(class_id),
        }
        for class_id in find_classes(wanted, labels=labels)
    ]
    if as_json:
        print_json(found)
    elif found:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in ("class", "name", "department", "node", "path"):
            table.add_column(column, overflow="fold")
        for row in found:
            table.add_row(*("" if value is None else printable(value) for value in row.values()))
        console.print(table)
    if not found:
        shown = wanted[:60]
        similar = similar_names(shown, labels=labels)
        close = f"; spelt most like it: {', '.join(similar)}" if similar else ""
        text = (
            f"no class has the id {shown!r}, nor that text in its name{close}; try a part of the English name, such as "
            f"shoe, or a WordNet id, such as n04120489"
        )
        errors.print(printable(text))
        raise typer.Exit(EXIT_NO)
