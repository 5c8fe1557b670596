"""The desk's frame: what every answer carries, and errors in one form."""

from __future__ import annotations

import json
import re

import httpx
import pytest

from tests.desk.conftest import DeskWorld
from tests.desk.serving import serve, slow_post


def test_the_front_leads_to_tonight(desk: DeskWorld) -> None:
    answer = desk.sign_in().get("/", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/refund/tonight")


def test_an_unknown_address_is_told_as_json(desk: DeskWorld) -> None:
    answer = desk.sign_in().get("/api/nothing")
    assert answer.status_code == 404
    assert answer.json() == {
        "status": "error",
        "error": "not_found",
        "message": "Not Found",
        "what_to_do": "Look at the address; docs/api.md lists them.",
        "request_id": answer.headers["x-request-id"],
    }


def test_a_given_request_id_is_taken_unless_it_could_forge_a_line(desk: DeskWorld) -> None:
    client = desk.sign_in()
    assert client.get("/api/nothing", headers={"X-Request-ID": "night-7.a"}).headers["x-request-id"] == "night-7.a"
    made = client.get("/api/nothing", headers={"X-Request-ID": "x y"}).headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{16}", made)


def test_every_answer_says_what_a_browser_may_run(desk: DeskWorld) -> None:
    headers = desk.sign_in().get("/static/desk.css").headers
    assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; ")
    assert headers["x-content-type-options"] == "nosniff"


def test_a_body_that_does_not_come_is_not_waited_for(desk: DeskWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    from refund.desk import middleware

    monkeypatch.setattr(middleware, "BODY_TIMEOUT_S", 0.2)
    desk.sign_in("ana")
    with serve(desk.app) as url, slow_post(url, b'{"queue": ') as answer:
        assert (answer.status, answer.headers["connection"]) == (400, "close")
        assert json.load(answer)["message"] == "Bad Request: the body was not there within 0.2 s"


def test_an_answer_may_take_longer_than_a_body(desk: DeskWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    from refund.desk import middleware

    monkeypatch.setattr(middleware, "BODY_TIMEOUT_S", 0.0)  # whatever is waited for once the body is there would end
    desk.sign_in("ana")
    with serve(desk.app) as url:
        table = httpx.get(f"{url}/api/history.csv", timeout=30)
    assert (table.status_code, table.text[:10]) == (200, "\ufeffrun_date,")
