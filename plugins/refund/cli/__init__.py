"""The command line ``refund``: one module per group of commands."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; our own errors become a line on standard error and an exit code."""
    from refund.cli import model, night, photos, reports, stack  # noqa: F401 -- they add their commands to `app`
    from refund.cli.app import app, errors
    from refund.cli.exit_codes import exit_code
    from refund.errors import RefundError

    try:
        app()
    except RefundError as exc:
        errors.print(f"[bold red]{type(exc).__name__}[/]", end=": ")
        errors.print(str(exc), markup=False, highlight=False)
        sys.exit(exit_code(exc))
