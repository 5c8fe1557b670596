"""Serves the desk to a real browser: `serve` runs the app under uvicorn in a thread, on loopback.

Tests of pages use it with the fixtures ``desk`` (tests/desk/conftest.py) and ``browser`` (tests/conftest.py)::

    desk.sign_in("ana", may_write=True)  # whom the app takes every request for
    with serve(desk.app) as url:  # such as http://127.0.0.1:41234/refund
        page = browser.new_page()
        page.goto(f"{url}/tonight")

`watched` gives a page that also keeps what it asked for and complained of. Around the desk there is a stand-in for
Airflow's own API: pass ``airflow``, an ASGI app that answers every path outside ``/refund``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

from tests.postgres import free_port

_PATIENCE_S = 120


@contextmanager
def serve(app: Any, *, airflow: Any = None) -> Iterator[str]:
    """The desk under ``/refund`` of a server on 127.0.0.1, as Airflow mounts it; gives its address without a slash."""
    import uvicorn
    from fastapi import FastAPI

    from refund.desk.app import PREFIX

    outer = FastAPI(openapi_url=None)
    outer.mount(PREFIX, app)
    if airflow is not None:
        outer.mount("/", airflow)
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(
            outer, host="127.0.0.1", port=port, log_level="error", lifespan="off", timeout_graceful_shutdown=2
        )
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + _PATIENCE_S
    while not server.started:
        assert thread.is_alive(), "uvicorn ended before it listened"
        assert time.monotonic() < deadline, f"uvicorn did not listen within {_PATIENCE_S} s"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}{PREFIX}"
    finally:
        server.should_exit = True
        thread.join(_PATIENCE_S)
        assert not thread.is_alive(), f"uvicorn did not end within {_PATIENCE_S} s"


@contextmanager
def slow_post(url: str, sent: bytes, *, path: str = "/api/review/claims") -> Iterator[HTTPResponse]:
    """The answer to a write that announces a body and sends this much of it."""
    parts = urlsplit(url)
    with closing(HTTPConnection(parts.hostname or "", parts.port, timeout=_PATIENCE_S)) as connection:
        connection.putrequest("POST", parts.path + path)
        for name, value in (("Content-Type", "application/json"), ("Content-Length", "1000"), ("X-Refund-Desk", "1")):
            connection.putheader(name, value)
        connection.endheaders(sent)
        yield connection.getresponse()


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A page of the browser, what it asked for, and what the browser complained of (console, errors, CSP)."""

    page: Any
    asked: list[str] = field(default_factory=list)  # addresses
    complaints: list[str] = field(default_factory=list)

    @property
    def overflow_px(self) -> int:
        """How much wider than the window the page is; at most 0 is right."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - innerWidth"))

    def strangers(self, url: str) -> list[str]:
        """Addresses asked for that do not lie on the server of ``url``."""
        own = url.removesuffix("/refund") + "/"
        return [asked for asked in self.asked if not asked.startswith((own, "data:", "blob:"))]


@contextmanager
def watched(
    browser: Any, *, width: int = 1280, height: int = 900, scheme: str = "light", **over: Any
) -> Iterator[Watched]:
    """A fresh page of the fixture ``browser``; ``scheme`` is light or dark."""
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **over)
    context.set_default_timeout(1000 * _PATIENCE_S)
    page = context.new_page()
    seen = Watched(page=page)
    page.on("request", lambda request: seen.asked.append(request.url))
    page.on("console", lambda told: seen.complaints.append(told.text) if told.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    try:
        yield seen
    finally:
        context.close()
