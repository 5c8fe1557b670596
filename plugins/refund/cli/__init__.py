"""The command line ``refund``: one module per group of commands."""

from __future__ import annotations

import sys

from refund.errors import ConfigurationError, FatalRunError, RefundError, RetriableRunError

EXIT_NO = 1  # the question was answered with no: the night failed, the check found none
EXIT_CONFIGURATION = 3
EXIT_RETRIABLE = 4
EXIT_FATAL = 5


def main() -> None:
    """Run the command line; our own errors become one line on standard error and an exit code."""
    from refund.cli import model, night, photos, reports, stack  # noqa: F401 -- they add their commands to `app`
    from refund.cli.app import app, errors

    try:
        app()
    except RefundError as exc:
        errors.print(f"[bold red]{type(exc).__name__}[/]", end=": ")
        errors.print(str(exc), markup=False, highlight=False)
        sys.exit(exit_code(exc))


def exit_code(error: RefundError) -> int:
    """The exit code of an error: by what one has to do about it."""
    for branch, code in (
        (ConfigurationError, EXIT_CONFIGURATION),
        (RetriableRunError, EXIT_RETRIABLE),
        (FatalRunError, EXIT_FATAL),
    ):
        if isinstance(error, branch):
            return code
    return EXIT_NO
