"""Every fault in one form, with headers, a line of the log and nothing that the visitor may not see."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from refund.desk.problems import DeskError, as_desk_error, one_line
from refund.errors import (
    ConfigurationError,
    FatalRunError,
    ReasonCode,
    RejectedPhotoError,
    RetriableRunError,
    SettingsError,
)
from tests.desk.conftest import DeskWorld


@pytest.mark.parametrize(
    ("raised", "status", "error", "message"),
    [
        (ClientDisconnect(), 400, "cut_off", "The connection ended before the whole body was there."),
        (RejectedPhotoError(ReasonCode.EMPTY_FILE, "0 bytes"), 400, "empty_file", "0 bytes"),
        (RejectedPhotoError(ReasonCode.FILE_TOO_LARGE, "17 MB"), 413, "file_too_large", "17 MB"),
        (RejectedPhotoError(ReasonCode.NOT_AN_IMAGE, "a zip"), 415, "not_an_image", "a zip"),
        (RejectedPhotoError(ReasonCode.TRUNCATED, "half"), 422, "truncated", "half"),
        (
            SettingsError("the connection refund_db needs a host and a login"),
            503, "unavailable", "Airflow's connection refund_db is missing or wrong.",
        ),
        (ConfigurationError("x"), 503, "unavailable", "The desk cannot reach or use a part that it needs."),
        (
            RetriableRunError("refund_db at 10.0.0.7 is down"),
            503, "unavailable", "The desk cannot reach or use a part that it needs.",
        ),
        (FatalRunError("row 7 of refund.photo"), 500, "internal", "The desk failed over this request."),
        (ValueError("password=hunter2"), 500, "internal", "The desk failed over this request."),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)  # fmt: skip
def test_an_exception_becomes_a_status_a_word_and_a_sentence(
    raised: Exception, status: int, error: str, message: str
) -> None:
    told = as_desk_error(raised)
    assert (told.status, told.error, told.message) == (status, error, message)
    assert told.what_to_do


def test_a_line_of_the_log_stays_one_line() -> None:
    assert one_line("a\nINFO forged\u202e\x1b[31m") == "a INFO forged  [31m"


def fail(desk: DeskWorld, exc: Exception) -> Any:
    """The answer of a route that raises this."""
    from fastapi import APIRouter

    router = APIRouter()

    @router.get("/api/failing")
    def failing() -> None:
        raise exc

    desk.app.router.routes[:0] = router.routes
    return desk.sign_in("ana").get("/api/failing")


def test_an_unknown_fault_is_answered_in_our_form_and_logged_under_its_request(
    desk: DeskWorld, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="refund.desk"):
        answer = fail(desk, ZeroDivisionError("secret <b>"))
    assert answer.status_code == 500
    told = answer.json()
    assert told == {
        "status": "error",
        "error": "internal",
        "message": "The desk failed over this request.",
        "what_to_do": "Airflow's log has the whole text under this request_id; tell whoever runs this Airflow.",
        "request_id": answer.headers["x-request-id"],
    }
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "ZeroDivisionError: secret" in caplog.text
    assert f"request {told['request_id']}: GET '/api/failing' by 'nobody': 500 in" in caplog.text


def test_the_log_quotes_paths_keeps_pictures_keys_out_and_names_no_query(
    desk: DeskWorld, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="refund.desk"):
        client = desk.sign_in("ana")
        client.get("/api/a%0Aforged%E2%80%AE?text=R-1234")
        client.get("/pictures/the-key-of-a-picture")
        client.get("/pictures/the-key-of-a-picture/", follow_redirects=False)
        client.get("/Pictures/x/the-key%0Aof-a-picture")
        client.head("/pictures/the-key-of-a-picture")
        client.post("/pictures/the-key-of-a-picture")
    ours = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("refund.desk"))
    assert r"/api/a\nforged\u202e'" in ours
    assert "R-1234" not in ours
    assert ours.count("/pictures/{token}'") == 5
    assert "the-key" not in ours


def test_a_body_that_no_route_needs_is_refused_while_it_arrives(desk: DeskWorld) -> None:
    from refund.desk.middleware import MAX_BODY_BYTES

    body = b" " * (MAX_BODY_BYTES + 1)
    answer = desk.sign_in("ana").post(
        "/api/review/decisions", content=body, headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, answer.json()["error"]) == (413, "too_large")
    assert answer.json()["message"] == "Request Entity Too Large: the body has more than 262,144 bytes"


def test_a_body_that_is_no_json_is_malformed_as_a_form_may_be(desk: DeskWorld) -> None:
    answer = desk.sign_in("ana").post(
        "/api/review/decisions", content=b'{"a": ', headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, answer.json()["error"]) == (400, "malformed_body")
    assert answer.json()["message"] == "The body is no JSON: Expecting value at character 6."


def test_a_refusal_names_both_ways_to_the_right_to_write() -> None:
    from refund.desk.auth import ASK_FOR_WRITING

    assert as_desk_error(HTTPException(403)).what_to_do == ASK_FOR_WRITING
    assert ASK_FOR_WRITING == (
        "Ask an administrator of this Airflow for the permission “can edit on Refund Desk” where it keeps such "
        "permissions, else for the right to edit the DAG refund_nightly."
    )


@pytest.mark.parametrize(("error", "doubts"), [("unavailable", True), ("busy", False)])
def test_what_cannot_be_reached_has_the_next_request_look_for_changed_connections(
    desk: DeskWorld, error: str, doubts: bool
) -> None:
    assert not desk.app.state.desk._doubted
    answer = fail(desk, DeskError(status=503, error=error, message="No.", what_to_do="Wait."))
    assert answer.status_code == 503
    assert desk.app.state.desk._doubted is doubts
