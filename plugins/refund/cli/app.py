"""The Typer application, what all commands share, and the commands of the local stack."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict, is_dataclass
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from refund import __version__

EPILOG = (
    "Exit codes: 0 done; 1 the answer is no (the night failed, no night by that time, a model is not as registered); "
    "2 wrong usage; 3 the set-up is wrong, the message says what to mend; 4 a fault of the moment, try again; "
    "5 the run cannot be trusted."
)

app = typer.Typer(
    name="refund",
    help="The refund night: photographs of returned goods, classified every night.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# Into pipes and logs lines go whole: a path is never broken, and a table has room.
# What is printed is mostly data: a key `a[/].jpg` or `:cat:.jpg` must come out as it is, so styles are given as styles.
console = Console(
    soft_wrap=True, width=None if sys.stdout.isatty() else 200, markup=False, emoji=False, highlight=False
)
errors = Console(stderr=True, soft_wrap=True, markup=False, emoji=False, highlight=False)
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a machine instead of text.")]


def print_json(value: Any) -> None:
    """Print a record or plain value as JSON, undecorated."""
    typer.echo(json.dumps(asdict(value) if is_dataclass(value) and not isinstance(value, type) else value, default=str))


def step(text: str) -> None:
    """Say what is being done, on standard error, so that standard output stays the command's answer."""
    errors.print(Text.assemble(("·", "dim"), " ", printable(text)))


def printable(value: object) -> str:
    r"""Data fit for a terminal: control characters and bytes that are no UTF-8 become escapes such as ``\x1b``."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), str(value))


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    """Show the version; every command has its own help."""
    if version:
        typer.echo(f"refund {__version__}")
        raise typer.Exit
