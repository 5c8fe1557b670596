"""A loopback proxy before an S3 server that breaks what it is told to break, and counts what it broke.

Requests go on as they came, the Host header too: signatures hold. No kept library fits: toxiproxy is a program in Go,
knows bytes but neither keys nor status codes, and mitmproxy pins other versions than our lock.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from refund.settings import S3Access
from refund.store.s3_clients import Patience

# for stores behind the proxy: seconds where a night waits for minutes, and yet not so few that a busy machine is late
QUICK = Patience(
    connect_s=5, answer_s=10, tries=2, silence_s=2, body_s=6, read_tries=1, pause_s=0, round_pauses_s=(0.0,)
)
ACTIONS = ("status", "slow", "stall", "cut", "shorter", "longer", "trailing")
_TO_HIM_ALONE = frozenset({"connection", "keep-alive", "transfer-encoding", "expect"})


@dataclass(kw_only=True)
class Rule:
    """What to break, and how often: requests whose method is `method` and whose decoded path and query hold `key`."""

    do: str  # one of ACTIONS
    method: str = "GET"
    key: str = ""
    skip: int = 0  # so many requests pass first
    times: int | None = None  # None: for ever
    status: int = 503  # for status
    code: str = "SlowDown"  # for status: S3's error code
    after_bytes: int = 0  # for cut and stall: so much of the body comes first; -1: not even the head of the answer
    bytes_per_s: int = 1000  # for slow
    done: int = field(default=0, init=False)  # how often it broke something

    def __post_init__(self) -> None:
        if self.do not in ACTIONS:
            msg = f"do must be one of {ACTIONS}, got {self.do!r}"
            raise ValueError(msg)


class S3Proxy:
    """Breaks what `rules` say, the first that fits; the list may be changed at any time."""

    def __init__(self, upstream: S3Access) -> None:
        self.upstream = urlsplit(upstream.endpoint_url or "").netloc
        self.rules: list[Rule] = []
        self.stopped = threading.Event()
        self.requests: list[str] = []  # "GET /bucket/key", decoded
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._server: _Server | None = None
        self._port = 0
        self.up()
        self.access = replace(upstream, endpoint_url=f"http://127.0.0.1:{self._port}")

    def up(self) -> None:
        """Listen, on the same port every time."""
        self._server = _Server(("127.0.0.1", self._port), _Handler)
        self._server.proxy = self
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def down(self) -> None:
        """Refuse connections and drop those that are open."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def broke(self) -> int:
        """How often any of the present rules broke something."""
        return sum(rule.done for rule in self.rules)

    def rule_for(self, method: str, target: str) -> Rule | None:
        """The first rule that breaks this request, counted as broken."""
        with self._lock:
            self.requests.append(f"{method} {target}")
            for rule in self.rules:
                if rule.method in ("", method) and rule.key in target:
                    if rule.skip > 0:
                        rule.skip -= 1
                    elif rule.times is None or rule.done < rule.times:
                        rule.done += 1
                        return rule
        return None

    @contextmanager
    def opened(self, connection: socket.socket) -> Iterator[None]:
        with self._lock:
            self._open.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(connection)


@contextmanager
def s3_proxy(upstream: S3Access, *rules: Rule) -> Iterator[S3Proxy]:
    """A proxy that listens until the block ends."""
    proxy = S3Proxy(upstream)
    proxy.rules.extend(rules)
    try:
        yield proxy
    finally:
        proxy.stopped.set()
        proxy.down()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    proxy: S3Proxy

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that were cut off, or gave up, are no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def handle(self) -> None:
        with self.server.proxy.opened(self.connection):
            super().handle()

    def pass_on(self) -> None:
        request = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        rule = self.server.proxy.rule_for(self.command, unquote(self.path))
        if rule is not None and rule.do == "cut" and rule.after_bytes < 0:
            self._hang_up()
        elif rule is not None and rule.do == "stall" and rule.after_bytes < 0:
            self.server.proxy.stopped.wait(60)
            self._hang_up()
        elif rule is not None and rule.do == "status":
            text = f"<Error><Code>{rule.code}</Code><Message>told to</Message></Error>"
            self._head(rule.status, "Told To", [("Content-Type", "application/xml")], len(text))
            if self.command != "HEAD":
                self.wfile.write(text.encode())
        else:
            self._answer(*self._ask(request), rule)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on  # noqa: N815 -- http.server looks them up by these names

    def _ask(self, request: bytes) -> tuple[HTTPResponse, bytes]:
        connection = HTTPConnection(self.server.proxy.upstream, timeout=30)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in _TO_HIM_ALONE:
                connection.putheader(name, value)
        connection.endheaders(request)
        try:
            found = connection.getresponse()
            return found, found.read()
        finally:
            connection.close()

    def _answer(self, found: HTTPResponse, body: bytes, rule: Rule | None) -> None:
        kept = [(name, value) for name, value in found.getheaders() if name.lower() not in _TO_HIM_ALONE]
        headers = [(name, value) for name, value in kept if name.lower() != "content-length"]
        announced = int(found.headers.get("Content-Length") or len(body))
        do = rule.do if rule is not None else ""
        self._head(found.status, found.reason, headers, announced + {"shorter": -1, "longer": 1}.get(do, 0))
        if self.command == "HEAD":
            return
        if rule is None:
            self.wfile.write(body)
        elif do == "slow":
            step = max(1, rule.bytes_per_s // 20)
            for start in range(0, len(body), step):
                self.wfile.write(body[start : start + step])
                if self.server.proxy.stopped.wait(0.05):
                    break
        elif do in ("cut", "stall"):
            self.wfile.write(body[: rule.after_bytes])
            if do == "stall":
                self.server.proxy.stopped.wait(60)
            self._hang_up()
        elif do == "shorter":
            self.wfile.write(body[:-1])
        else:  # longer: announced, and sent
            self.wfile.write(body + b"x")
            self.close_connection = True

    def _head(self, status: int, reason: str, headers: list[tuple[str, str]], length: int) -> None:
        self.send_response_only(status, reason)
        for name, value in [*headers, ("Content-Length", str(length))]:
            self.send_header(name, value)
        self.end_headers()

    def _hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *args: object) -> None:
        """Say nothing."""
