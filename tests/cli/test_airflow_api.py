"""A busy Airflow is asked again; one that stays silent, or was sent something, ends the command with words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import pytest

from refund.cli.airflow_api import AirflowApi, AirflowUnavailableError


@contextmanager
def an_airflow(*, silent: int) -> Iterator[tuple[str, list[str]]]:
    """A server that leaves the first ``silent`` requests after the login unanswered; its URL, and what it was sent."""
    asked: list[str] = []
    over = Event()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.path == "/auth/token":
                body = {"access_token": "t"}
            else:
                asked.append(f"{self.command} {self.path}")
                if len(asked) <= silent:
                    over.wait()
                    return
                body = {"state": "running", "dag_run_id": "r"}
            content = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _answer  # noqa: N815  (the names that http.server calls)

        def log_message(self, *_: object) -> None:
            """Nothing on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving = Thread(target=server.serve_forever)
    serving.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        serving.join()


def test_a_question_that_a_busy_server_did_not_answer_is_asked_again() -> None:
    with (
        an_airflow(silent=2) as (url, asked),
        AirflowApi(url, user="u", password="p", timeout_s=0.2) as api,
    ):
        assert api.run_state("night", "r") == "running"
        assert asked == ["GET /api/v2/dags/night/dagRuns/r"] * 3


def test_a_server_that_stays_silent_is_given_up() -> None:
    with (
        an_airflow(silent=9) as (url, _),
        AirflowApi(url, user="u", password="p", timeout_s=0.1, patience_s=0.15) as api,
        pytest.raises(
            AirflowUnavailableError, match=rf"^Airflow at {url} cannot be reached \(timed out\); start it with"
        ),
    ):
        api.run_state("night", "r")


def test_what_changes_something_is_sent_once() -> None:
    with (
        an_airflow(silent=9) as (url, asked),
        AirflowApi(url, user="u", password="p", timeout_s=0.2) as api,
        pytest.raises(AirflowUnavailableError, match="timed out"),
    ):
        api._send("POST", "/api/v2/dags/night/dagRuns", json={})
    assert asked == ["POST /api/v2/dags/night/dagRuns"]
