"""The command line ``refund``: one module per group of commands."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer


def load_app() -> typer.Typer:
    """The application with every group's commands."""
    from refund.cli import (  # noqa: F401 -- they add their commands to `app`
        alerts,
        check,
        demo,
        model,
        model_build,
        model_change,
        model_evaluate,
        night,
        photos,
        reports,
        requeue,
        reviews,
        stack,
        taxonomy,
    )
    from refund.cli.app import app

    return app


def main() -> None:
    """Run the command line; our own errors become a line on standard error and an exit code."""
    from rich.text import Text

    from refund.cli.app import errors, printable
    from refund.cli.exit_codes import exit_code
    from refund.errors import RefundError

    try:
        load_app()()
    except RefundError as exc:
        errors.print(Text.assemble((type(exc).__name__, "bold red"), f": {printable(exc)}"))
        sys.exit(exit_code(exc))
