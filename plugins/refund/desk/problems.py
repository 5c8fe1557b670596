"""Errors of the desk as JSON: what went wrong in a word and in a sentence, and what to do."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from refund.errors import ConfigurationError, ReasonCode, RefundError, RejectedPhotoError, RetriableRunError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastapi import FastAPI, Request
    from starlette.responses import Response

log = logging.getLogger(__name__)

_TOLD = {  # of what Airflow or the framework says: our word, and what to do
    400: ("bad_request", "Correct the request; docs/api.md shows each call."),
    401: ("not_signed_in", "Log in to Airflow, or send a bearer token: POST /auth/token gives one."),
    403: (
        "not_allowed",
        "Ask an administrator of this Airflow for the permission “can edit on Refund Desk” where it keeps such "
        "permissions, else for the right to edit the DAG refund_nightly.",
    ),
    404: ("not_found", "Look at the address; docs/api.md lists them."),
    405: ("method_not_allowed", "Use the method that docs/api.md names for this address."),
    413: ("too_large", "Send less."),
    415: ("unsupported_format", "Send JPEG, PNG, GIF, BMP or WEBP."),
    422: ("invalid", "Correct the field named."),
    429: ("too_many_requests", "Wait, then send again."),
    503: ("unavailable", "Try again in a moment."),
}


class DeskError(Exception):
    """What a route answers instead of what was asked for."""

    def __init__(
        self,
        *,
        status: int,
        error: str,
        message: str,
        what_to_do: str,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error = error
        self.message = message
        self.what_to_do = what_to_do
        self.headers = dict(headers or {})
        self.details = dict(details or {})  # further keys of the answer


def rejection_status(reason: ReasonCode) -> int:
    """The HTTP status of a photo that cannot be classified."""
    if reason is ReasonCode.FILE_TOO_LARGE:
        return 413
    if reason in (ReasonCode.NOT_AN_IMAGE, ReasonCode.UNSUPPORTED_FORMAT):
        return 415
    if reason is ReasonCode.EMPTY_FILE:
        return 400
    return 422


def answer(request: Request, exc: DeskError) -> Response:
    """The error as JSON."""
    body = {
        "status": "error",
        "error": exc.error,
        "message": exc.message,
        "what_to_do": exc.what_to_do,
        "request_id": getattr(request.state, "request_id", None),
        **exc.details,
    }
    return JSONResponse(body, status_code=exc.status, headers=exc.headers)


def as_desk_error(exc: Exception) -> DeskError:
    """What a page or route says of any exception; texts of unknown ones stay in the log."""
    if isinstance(exc, DeskError):
        return exc
    if isinstance(exc, HTTPException):
        word, what_to_do = _TOLD.get(exc.status_code, ("error", "docs/api.md shows each call."))
        phrase = HTTPStatus(exc.status_code).phrase
        return DeskError(
            status=exc.status_code,
            error=word,
            message=phrase if exc.detail == phrase else f"{phrase}: {exc.detail}",
            what_to_do=what_to_do,
            headers=exc.headers,
        )
    if isinstance(exc, ClientDisconnect):  # nobody reads the answer, but the log has a line
        return DeskError(
            status=400,
            error="cut_off",
            message="The connection ended before the whole body was there.",
            what_to_do="Send it again.",
        )
    if isinstance(exc, RequestValidationError):
        found = exc.errors()[0]
        if found["type"] == "json_invalid":
            at, why = found["loc"][-1], found["ctx"]["error"]
            return DeskError(
                status=400,
                error="malformed_body",
                message=f"The body is no JSON: {why} at character {at}.",
                what_to_do="Send JSON; docs/api.md shows each call.",
            )
        place = ".".join(str(part) for part in found["loc"])
        return DeskError(
            status=422,
            error="invalid",
            message=f"{place}: {found['msg']}",
            what_to_do="Correct the field named; docs/api.md lists fields and ranges.",
        )
    if isinstance(exc, RejectedPhotoError):
        return DeskError(
            status=rejection_status(exc.reason),
            error=exc.reason.value,
            message=exc.detail,
            what_to_do="docs/reason_codes.md says what each reason means and what helps.",
        )
    if isinstance(exc, (RetriableRunError, ConfigurationError)):
        log.error("The desk cannot answer: %s: %s", type(exc).__name__, one_line(exc))
        return DeskError(
            status=503,
            error="unavailable",
            message=_what_is_missing(exc),
            what_to_do="GET api/health says which; Airflow's log has the whole text under this request_id.",
            headers={"Retry-After": "5"} if isinstance(exc, RetriableRunError) else None,
        )
    if isinstance(exc, RefundError):
        log.error("The desk failed: %s: %s", type(exc).__name__, one_line(exc))
    else:
        log.error("The desk failed", exc_info=exc)
    return DeskError(
        status=500,
        error="internal",
        message="The desk failed over this request.",
        what_to_do="Airflow's log has the whole text under this request_id; tell whoever runs this Airflow.",
    )


def _what_is_missing(exc: Exception) -> str:
    """In words for everybody: the error's own text names servers and logins, which not every visitor may see."""
    named = [connection for connection in ("refund_s3", "refund_db") if connection in str(exc)]
    if named and isinstance(exc, ConfigurationError):
        return f"Airflow's connection {' or '.join(named)} is missing or wrong."
    return "The desk cannot reach or use a part that it needs."


def one_line(text: object) -> str:
    """A text that may quote what came from outside, without line breaks and what else would forge or garble a log."""
    return "".join(sign if sign.isprintable() else " " for sign in str(text))


def install(app: FastAPI, respond: Callable[[Request, DeskError], Response]) -> None:
    """Have errors of the app answered by ``respond(request, DeskError)``; unknown ones: `refund.desk.middleware`."""

    async def handle(request: Request, exc: Exception) -> Response:
        return respond(request, as_desk_error(exc))

    # Not `Exception`: its handler would stand outside all middleware, and the server would log the fault once more.
    for kind in (DeskError, HTTPException, RequestValidationError, RefundError, ClientDisconnect):
        app.add_exception_handler(kind, handle)
