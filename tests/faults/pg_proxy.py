"""A loopback proxy before Postgres that stops, watches or cuts a connection at a named point of what the client says.

A point is a pattern of the bytes that the client has sent on one connection so far: no timing is involved.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

from refund.settings import DatabaseAccess

CLOSES_RUN = re.compile(rb"UPDATE refund\.run SET state = .*COMMIT", re.DOTALL)  # the end of the publishing transaction
PUBLISHES = re.compile(rb"pg_try_advisory_xact_lock")


class PostgresProxy:
    """Listens on ``access``; passes everything on until a point is set."""

    def __init__(self, upstream: DatabaseAccess) -> None:
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.access = replace(upstream, port=self._listener.getsockname()[1])
        self._point: re.Pattern[bytes] | None = None
        self._at_point: Callable[[], None] = lambda: None
        self._lose_reply = False
        self._passing_half = False
        self.on_message: Callable[[bytes], None] | None = None  # gets a publishing client's every message, held back
        self.reached = threading.Event()
        self.go_on = threading.Event()
        self._sockets: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def hold_at(self, point: re.Pattern[bytes], *, passing_half: bool = False) -> None:
        """Hold back, once, the message that completes ``point``: sets ``reached``, then waits for ``go_on``.

        With ``passing_half`` the first half of that message is passed on before.
        """

        def wait() -> None:
            self.reached.set()
            assert self.go_on.wait(60)

        self._arm(point, wait, passing_half=passing_half)

    def cut_at(self, point: re.Pattern[bytes]) -> None:
        """Cut both sides, once, instead of passing on the message that completes ``point``."""
        self._arm(point, self.cut)

    def lose_reply_at(self, point: re.Pattern[bytes]) -> None:
        """Pass on the message that completes ``point``, but cut, once, instead of giving the client the reply."""
        self._arm(point, lambda: None, lose_reply=True)

    def _arm(
        self,
        point: re.Pattern[bytes],
        at_point: Callable[[], None],
        *,
        lose_reply: bool = False,
        passing_half: bool = False,
    ) -> None:
        self.reached.clear()
        self.go_on.clear()
        self._at_point, self._lose_reply, self._passing_half = at_point, lose_reply, passing_half
        self._point = point

    def cut(self) -> None:
        """Cut every connection."""
        self.reached.set()
        for sock in list(self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.go_on.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection((self._upstream.host, self._upstream.port), timeout=10)
                except OSError:
                    client.close()
                    continue
                server.settimeout(None)
                self._sockets |= {client, server}
                state = _Connection()
                for source, target, upwards in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pump, args=(source, target, state, upwards), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, state: _Connection, upwards: bool) -> None:
        try:
            while chunk := source.recv(1 << 16):
                if upwards and self._is_point(chunk, state):
                    if self._passing_half:
                        target.sendall(chunk[: len(chunk) // 2])
                        chunk = chunk[len(chunk) // 2 :]
                    self._at_point()
                if not upwards and state.reply_is_lost:
                    break
                target.sendall(chunk)
        except OSError:
            pass
        finally:
            for sock in (source, target):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            self._sockets -= {source, target}
            if upwards:
                source.close()
                target.close()

    def _is_point(self, chunk: bytes, state: _Connection) -> bool:
        if self.on_message is not None and PUBLISHES.search(state.said):
            self.on_message(chunk)
        state.said += chunk
        if self._point is not None and self._point.search(state.said):
            self._point = None
            state.reply_is_lost = self._lose_reply
            return True
        return False


class _Connection:
    def __init__(self) -> None:
        self.said = bytearray()
        self.reply_is_lost = False


@contextlib.contextmanager
def postgres_proxy(upstream: DatabaseAccess) -> Iterator[PostgresProxy]:
    proxy = PostgresProxy(upstream)
    try:
        yield proxy
    finally:
        proxy.close()
