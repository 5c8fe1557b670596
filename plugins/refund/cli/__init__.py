"""The command line ``refund``: one module per group of commands."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; our own errors become a line on standard error and an exit code."""
    from rich.text import Text

    from refund.cli import model, night, photos, reports, stack  # noqa: F401 -- they add their commands to `app`
    from refund.cli.app import app, errors, printable
    from refund.cli.exit_codes import exit_code
    from refund.errors import RefundError

    try:
        app()
    except RefundError as exc:
        errors.print(Text.assemble((type(exc).__name__, "bold red"), f": {printable(exc)}"))
        sys.exit(exit_code(exc))
