"""Loopback servers that keep what Airflow sends them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer

from refund.local.ports import HOST


@dataclass(kw_only=True)
class Sink:
    """What came in: StatsD lines, or (path, body) of HTTP requests."""

    port: int
    lines: list[str] = field(default_factory=list)
    requests: list[tuple[str, bytes]] = field(default_factory=list)


@contextmanager
def statsd_sink() -> Iterator[Sink]:
    """Keeps every line of every datagram, as a StatsD server would take it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((HOST, 0))
        sink = Sink(port=server.getsockname()[1])
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
                client.sendto(stop.encode(), (HOST, sink.port))
            thread.join(10)


@contextmanager
def http_sink() -> Iterator[Sink]:
    """Answers every POST with 200 and keeps its body."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sink.requests.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer((HOST, 0), Handler)
    sink = Sink(port=server.server_port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield sink
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
