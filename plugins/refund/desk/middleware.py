"""What every answer of the desk carries: its request's id, and headers that keep browsers to what is ours."""

from __future__ import annotations

import logging
import re
import time
from secrets import token_hex
from typing import TYPE_CHECKING

from starlette.datastructures import MutableHeaders

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

REQUEST_ID = "X-Request-ID"
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


class Marked:
    """ASGI middleware: sets ``request.state.request_id``, adds headers that the route did not set, logs the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == REQUEST_ID.lower().encode()), b"")
        text = given.decode("latin-1")
        request_id = text if _TAKEN_ID.fullmatch(text) else token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        begun = time.perf_counter()

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = request_id
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                elapsed_ms = (time.perf_counter() - begun) * 1000
                log.info(
                    "%s %s %s %s %.0f ms", request_id, scope["method"], scope["path"], message["status"], elapsed_ms
                )
            await send(message)

        await self._app(scope, receive, send_marked)
