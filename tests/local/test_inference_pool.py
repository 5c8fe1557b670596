"""The pool of the local Airflow, asked of a server that answers as Airflow's API does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from refund.errors import StackError
from refund.local import airflow_service
from refund.local.credentials import StackCredentials
from refund.night.room import HEAVY_TASKS_AT_ONCE

NAME = "refund_inference"
EARLIER = {"name": NAME, "slots": 1, "description": "Tasks that keep all cores busy."}
OURS = {"name": NAME, "slots": HEAVY_TASKS_AT_ONCE, "description": airflow_service.POOL_DESCRIPTION}


class Api(ThreadingHTTPServer):
    """Keeps one pool, or refuses everything."""

    pool: dict[str, Any] | None = None
    refuses = False


class Handler(BaseHTTPRequestHandler):
    server: Api

    def _answer(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "null")
        path, _, query = self.path.partition("?")
        status, answer = 404, {"detail": "Not Found"}
        if self.server.refuses:
            status, answer = 403, {"detail": "Forbidden"}
        elif path == "/auth/token":
            status, answer = 201, {"access_token": "t"}
        elif self.headers["Authorization"] != "Bearer t":
            status, answer = 401, {"detail": "Not authenticated"}
        elif (self.command, path) == ("POST", "/api/v2/pools"):
            status, answer = 409, {"detail": "Unique constraint violation"}
            if self.server.pool is None:
                self.server.pool, status, answer = body, 201, body
        elif path == f"/api/v2/pools/{NAME}" and self.server.pool is not None:
            if self.command == "PATCH":
                assert body["pool"] == NAME, "Airflow calls it so in a PATCH"
                masked = [part.partition("=")[2] for part in query.split("&")]
                self.server.pool |= {name: body[name] for name in masked}
            status, answer = 200, self.server.pool
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PATCH = _answer  # noqa: N815  the names that http.server calls

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def airflow(pool: dict[str, Any] | None = None, *, refuses: bool = False) -> Iterator[Api]:
    with Api(("127.0.0.1", 0), Handler) as api:
        api.pool, api.refuses = pool and dict(pool), refuses
        thread = threading.Thread(target=api.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield api
        finally:
            api.shutdown()
            thread.join()


def ensured(pool: dict[str, Any] | None) -> dict[str, Any] | None:
    with airflow(pool) as api:
        airflow_service.ensure_pool(port=api.server_port, credentials=StackCredentials.draw())
        return api.pool


def test_a_new_stack_lets_two_shards_overlap() -> None:
    assert ensured(None) == OURS
    assert OURS["slots"] == 2


def test_a_pool_that_an_earlier_version_made_is_given_as_many_slots() -> None:
    assert ensured(EARLIER) == OURS


@pytest.mark.parametrize(
    "pool", [{**OURS, "slots": 1}, {**EARLIER, "slots": 3}, {**EARLIER, "description": "Decoding at night"}]
)
def test_a_pool_that_somebody_changed_keeps_its_size(pool: dict[str, Any]) -> None:
    assert ensured(pool) == pool


def test_a_refusal_is_told() -> None:
    with airflow(refuses=True) as api, pytest.raises(StackError) as caught:
        airflow_service.ensure_pool(port=api.server_port, credentials=StackCredentials.draw())
    assert str(caught.value) == ("Airflow did not make the pool refund_inference: answer 403 {'detail': 'Forbidden'}")


def test_no_answer_is_told() -> None:
    with airflow() as api:
        port = api.server_port
    with pytest.raises(StackError, match=r"did not make the pool refund_inference: answer 0 .*refused"):
        airflow_service.ensure_pool(port=port, credentials=StackCredentials.draw())
