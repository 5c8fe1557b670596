"""Servers on loopback that take what is sent: mails, calls of webhooks and collectors, metrics, or nothing at all."""

from __future__ import annotations

import json
import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.postgres import free_port

LOGIN, PASSWORD = "night", "pass/word+with=marks"


@dataclass(kw_only=True)
class MailSink:
    """What arrived, as bytes and parsed."""

    port: int
    received: list[bytes] = field(default_factory=list)
    envelopes: list[tuple[str, list[str]]] = field(default_factory=list)  # sender, receivers

    @property
    def mails(self) -> list[EmailMessage]:
        return [message_from_bytes(body, policy=policy.default) for body in self.received]

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 -- aiosmtpd's name
        self.received.append(envelope.original_content)
        self.envelopes.append((envelope.mail_from, envelope.rcpt_tos))
        return "250 taken"


@contextmanager
def mail_sink(*, auth: bool = True) -> Iterator[MailSink]:
    """An SMTP server that takes `LOGIN` with `PASSWORD` and nobody else."""
    from aiosmtpd.controller import Controller
    from aiosmtpd.smtp import AuthResult

    def authenticate(_server: Any, _session: Any, _envelope: Any, _mechanism: str, given: Any) -> Any:
        right = (given.login, given.password) == (LOGIN.encode(), PASSWORD.encode())
        return AuthResult(success=right, handled=False)

    sink = MailSink(port=free_port())
    options = {"authenticator": authenticate, "auth_required": True, "auth_require_tls": False} if auth else {}
    controller = Controller(sink, hostname="127.0.0.1", port=sink.port, **options)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Requiring AUTH while not requiring TLS")  # on loopback, in a test
        controller.start()
        try:
            yield sink
        finally:
            controller.stop()


def mail_connection(port: int, *, password: str = PASSWORD, **extra: Any) -> str:
    """The connection to a sink as AIRFLOW_CONN_REFUND_SMTP holds it."""
    extra = {"disable_ssl": True, "disable_tls": True, **extra}
    fields = {"conn_type": "smtp", "host": "127.0.0.1", "port": port, "login": LOGIN, "password": password}
    return json.dumps({**fields, "extra": extra})


@dataclass(kw_only=True)
class HttpSink:
    """What was asked for: method, path and body."""

    port: int
    status: int
    requests: list[tuple[str, str, bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(body) for _, _, body in self.requests]


@contextmanager
def http_sink(*, status: int = 200, body: bytes = b"ok", headers: dict[str, str] | None = None) -> Iterator[HttpSink]:
    """A web server that answers every call alike; ``sink.status`` may be changed."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            sink.requests.append((self.command, self.path, self.rfile.read(length)))
            self.send_response(sink.status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = _answer  # noqa: N815 -- http.server's names

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    sink = HttpSink(port=server.server_address[1], status=status)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield sink
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


@contextmanager
def silent_server() -> Iterator[int]:
    """A port where connections are taken and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@dataclass(kw_only=True)
class StatsdSink:
    """Every line that arrived."""

    port: int
    lines: list[str] = field(default_factory=list)


@contextmanager
def statsd_sink() -> Iterator[StatsdSink]:
    """Keeps every line of every datagram, as a StatsD server would take it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        sink = StatsdSink(port=server.getsockname()[1])
        stop = "stop"

        def listen() -> None:
            while (datagram := server.recv(65_536).decode()) != stop:
                sink.lines += datagram.splitlines()

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield sink
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.sendto(stop.encode(), ("127.0.0.1", sink.port))
            thread.join(10)
