"""What every answer of the desk carries: its request's id, headers that keep browsers to what is ours, a log line."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from secrets import token_hex
from typing import TYPE_CHECKING

from fastapi import HTTPException, Request
from starlette.datastructures import MutableHeaders
from structlog.contextvars import bound_contextvars

from refund.desk.problems import as_desk_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from refund.desk.problems import DeskError

log = logging.getLogger(__name__)

REQUEST_ID = "X-Request-ID"
_PICTURE = re.compile(r"/pictures/.+", re.IGNORECASE | re.DOTALL)
_TAKEN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")  # anything else might forge a line of the log
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "frame-src 'self'; frame-ancestors 'self'; base-uri 'none'; form-action 'self'"
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
# What the framework reads by itself. Uploads are read, and limited, by their own routes.
MAX_BODY_BYTES = 256 * 1024
BODY_TIMEOUT_S = 10.0  # until the whole of it is there
_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS"})
_UPLOADS = "/api/classify"


class Marked:
    """ASGI middleware: sets ``request.state.request_id``, adds headers that the route did not set, logs the answer.

    It also answers whatever no handler of the app did, so that a fault has the same form, headers and line as the rest.
    Of a write nothing is read before ``admit`` has let it in, and then no more than `MAX_BODY_BYTES` in
    `BODY_TIMEOUT_S`.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        respond: Callable[[Request, DeskError], Response],
        admit: Callable[[Request], Awaitable[None]],
    ) -> None:
        self._app = app
        self._respond = respond
        self._admit = admit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        begun = time.perf_counter()
        started = False

        async def send_marked(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = request_id
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                _log_answer(scope, status=message["status"], elapsed_s=time.perf_counter() - begun)
            await send(message)

        with bound_contextvars(request_id=request_id):  # Airflow's log shows it beside every line of this request
            try:
                if scope["method"] not in _WITHOUT_BODY:
                    await self._admit(Request(scope))
                await self._app(scope, _limited(scope, receive), send_marked)
            except Exception as exc:
                if started:  # half an answer cannot be taken back; the server cuts it off
                    raise
                answer = self._respond(Request(scope), as_desk_error(exc))
                await answer(scope, receive, send_marked)


def _request_id(scope: Scope) -> str:
    given = next((value for name, value in scope["headers"] if name == REQUEST_ID.lower().encode()), b"")
    text = given.decode("latin-1")
    return text if _TAKEN_ID.fullmatch(text) else token_hex(8)


def _log_answer(scope: Scope, *, status: int, elapsed_s: float) -> None:
    """One line; paths and names come from outside and are quoted, queries (refund ids, texts sought) stay out."""
    state = scope["state"]
    path = _PICTURE.sub("/pictures/{token}", scope["path"])  # its address is a key to it, also where none is served
    log.info(
        "request %s: %s %a by %a: %s in %.0f ms",
        state["request_id"], scope["method"], path, state.get("visitor", "nobody"), status, elapsed_s * 1000,
    )  # fmt: skip


def _limited(scope: Scope, receive: Receive) -> Receive:
    inside = scope["path"].removeprefix(scope.get("root_path", ""))
    if inside.startswith(_UPLOADS):
        return receive
    seen, is_whole = 0, False
    deadline: float | None = None

    async def receive_limited() -> Message:
        nonlocal seen, is_whole, deadline
        if is_whole:  # what comes now is that the client went away, which may take as long as it likes
            return await receive()
        if deadline is None:
            deadline = asyncio.get_running_loop().time() + BODY_TIMEOUT_S
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError:
            detail = f"the body was not there within {BODY_TIMEOUT_S:g} s"
            raise HTTPException(400, detail, headers={"Connection": "close"}) from None
        seen += len(message.get("body", b""))
        if seen > MAX_BODY_BYTES:
            raise HTTPException(413, f"the body has more than {MAX_BODY_BYTES:,} bytes")
        is_whole = not message.get("more_body", False)
        return message

    return receive_limited
