"""What the command line's exit codes mean: what one has to do next."""

from __future__ import annotations

from refund.errors import ConfigurationError, FatalRunError, RefundError, RetriableRunError

EXIT_NO = 1  # the question was answered with no: the night failed, the check found none
EXIT_CONFIGURATION = 3
EXIT_RETRIABLE = 4
EXIT_FATAL = 5


def exit_code(error: RefundError) -> int:
    """The exit code of an error."""
    for branch, code in (
        (ConfigurationError, EXIT_CONFIGURATION),
        (RetriableRunError, EXIT_RETRIABLE),
        (FatalRunError, EXIT_FATAL),
    ):
        if isinstance(error, branch):
            return code
    return EXIT_NO
