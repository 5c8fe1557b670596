"""Channels against real servers on loopback: what arrives, and what is told when nothing does."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from html.parser import HTMLParser
from typing import Any

import pytest

from refund.airflow_channels import AppriseChannel, MailChannel, SlackChannel, open_channels, scrub, secrets_of
from refund.night.alert_message import write_message
from refund.night.notify import ChannelError
from refund.settings import Settings
from refund.store.alerts import PendingAlert
from tests.postgres import free_port
from tests.sinks import LOGIN, PASSWORD, http_sink, mail_connection, mail_sink, silent_server

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # Apprise, at first use

HOSTILE = 'incoming/2026-11-21/R-1/<img src=x onerror=alert(1)>&<!channel> {{ 7*7 }} *b*\r\nBcc: x@y.z\u202e"gpj.jpg'
ALERT = PendingAlert(
    alert_id=12,
    rule="drift:category_shares",
    severity="warning",
    run_id="scheduled__1",
    run_date=date(2026, 11, 21),
    message="in one line",
    details={
        "seen": "Category shares moved by 0.21, more than 0.1\r\nBcc: x@y.z",
        "against": "Tonight's 1,000 photos against 28,000",
        "certainty": "p-value 0.0001",
        "action": "Look at the photos",
        "sql": "SELECT 1 AS a < 2",
        "examples": [HOSTILE, *(f"incoming/2026-11-21/R-2/{number}.jpg" for number in range(9))],
        "examples_are": "photos of shoes, surest first",
    },
    first_seen_at=datetime(2026, 11, 22, 2, 0, tzinfo=UTC),
    seen_count=1,
    cooling_down=False,
)
MESSAGE = write_message(ALERT)
MAIL = MailChannel(sender="night@example.com", receivers=("a@example.com", "b@example.com"), timeout_s=1)
SLACK_TOKEN = "T000SECRET/B000SECRET/XXXXSECRETXXXX"


@pytest.fixture(autouse=True)
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An Airflow home of these tests' own, no proxy, and every library as chatty as it gets."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
            patch.delenv(name, raising=False)
        yield


def failure(channel: Any) -> str:
    with pytest.raises(ChannelError) as caught:
        channel.send(MESSAGE)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    return str(caught.value)


# --- mail ----------------------------------------------------------------------------------------------------------


def test_a_mail_arrives_in_text_and_html(monkeypatch: pytest.MonkeyPatch) -> None:
    with mail_sink() as sink:
        monkeypatch.setenv("AIRFLOW_CONN_REFUND_SMTP", mail_connection(sink.port))
        MAIL.send(MESSAGE)
    (mail,) = sink.mails
    assert sink.envelopes == [("night@example.com", ["a@example.com", "b@example.com"])]
    assert (mail["From"], mail["To"]) == ("night@example.com", "a@example.com, b@example.com")
    assert mail["Subject"] == MESSAGE.subject
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Bcc"] is None
    assert mail.get_content_type() == "multipart/alternative"
    text, html = mail.iter_parts()
    assert (text.get_content_type(), html.get_content_type()) == ("text/plain", "text/html")
    assert text.get_content().replace("\r\n", "\n") == MESSAGE.text
    assert html.get_content().replace("\r\n", "\n") == MESSAGE.html


def test_hostile_keys_stay_text() -> None:
    assert "\n" not in MESSAGE.subject
    assert r"\r\nBcc: x@y.z" in MESSAGE.subject
    shown = HOSTILE.replace("\r\n", r"\r\n").replace("\u202e", r"\u202e")
    assert f"  {shown}\n" in MESSAGE.text

    class Reader(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.tags: set[str] = set()
            self.words = ""

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.tags.add(tag)
            assert not any(name.startswith("on") or name == "src" for name, _ in attrs)

        def handle_data(self, data: str) -> None:
            self.words += data

    reader = Reader()
    reader.feed(MESSAGE.html)
    assert reader.tags == {"html", "head", "meta", "title", "body", "div", "h1", "h2", "p", "pre"}
    assert shown in reader.words
    assert "SELECT 1 AS a < 2" in reader.words


def test_a_message_holds_everything_that_an_alert_says() -> None:
    for words in (
        "more than 0.1", "1,000 photos against 28,000", "p-value 0.0001", "Look at the photos", "R-2/8.jpg",
        "SELECT 1 AS a < 2", "Alert 12", "refund alerts ack 12", "Photos of shoes, surest first",
    ):  # fmt: skip
        assert words in MESSAGE.text
        assert any(words in json.dumps(block) for block in MESSAGE.blocks), words


def test_an_alert_with_a_message_alone_is_told_by_it() -> None:
    plain = write_message(replace(ALERT, details={}))
    assert plain.subject == "[refund] warning: in one line"
    assert plain.text.startswith("What was seen:\nin one line.\n\nAlert 12")


def test_a_wrong_password_is_told_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with mail_sink() as sink:
        monkeypatch.setenv("AIRFLOW_CONN_REFUND_SMTP", mail_connection(sink.port, password="wrong-secret"))
        text = failure(MAIL)
    assert text == (
        "SMTPAuthenticationError: (535, b'5.7.8 Authentication credentials invalid'); "
        "look at the Airflow connection refund_smtp"
    )
    assert sink.received == []


def test_a_mail_server_that_is_down_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_REFUND_SMTP", mail_connection(free_port()))
    assert failure(MAIL) == (
        "ConnectionRefusedError: [Errno 111] Connection refused; look at the Airflow connection refund_smtp"
    )


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # smtplib leaves its socket to the end
def test_a_mail_server_that_says_nothing_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider would try six times, each for the 30 s of the connection."""
    with silent_server() as port:
        monkeypatch.setenv("AIRFLOW_CONN_REFUND_SMTP", mail_connection(port, timeout=30, retry_limit=5))
        assert failure(MAIL) == (
            "AirflowException: Unable to connect to smtp server; look at the Airflow connection refund_smtp"
        )


@pytest.mark.parametrize(
    ("channel", "conn_id"),
    [
        (MAIL, "refund_smtp"),
        (SlackChannel(timeout_s=1), "refund_slack"),
        (AppriseChannel(timeout_s=1), "refund_apprise"),
    ],
)
def test_a_missing_connection_is_told_with_its_fix(channel: Any, conn_id: str) -> None:
    assert failure(channel) == (
        f"Airflow has no connection {conn_id}; add it under Admin > Connections, or as AIRFLOW_CONN_{conn_id.upper()} "
        "(docs/alerts.md shows both)"
    )


# --- Slack ---------------------------------------------------------------------------------------------------------


def slack_connection(url: str) -> str:
    return json.dumps({"conn_type": "slackwebhook", "host": url, "password": SLACK_TOKEN})


def test_a_slack_message_arrives_within_slacks_limits(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with http_sink() as sink:
        monkeypatch.setenv("AIRFLOW_CONN_REFUND_SLACK", slack_connection(sink.url + "/services"))
        SlackChannel(timeout_s=1).send(MESSAGE)
    ((method, path, _),) = sink.requests
    assert (method, path) == ("POST", f"/services/{SLACK_TOKEN}")
    (sent,) = sink.bodies
    assert sent["blocks"] == MESSAGE.blocks
    assert "<" not in sent["text"]
    assert "SECRET" not in caplog.text


def test_slack_blocks_keep_to_the_limits_whatever_an_alert_holds() -> None:
    long = {"seen": "s" * 9000, "action": "a" * 9000, "sql": "x" * 9000, "examples": ["k" * 9000] * 50}
    blocks = write_message(replace(ALERT, details=long)).blocks
    assert len(blocks) <= 50
    texts = [block["text"] for block in blocks if "text" in block]
    assert {text["type"] for text in texts} == {"plain_text"}  # no markup, no mentions
    assert all(len(text["text"]) <= (150 if number == 0 else 3000) for number, text in enumerate(texts))
    for block in blocks:
        if block["type"] == "rich_text":
            assert len(block["elements"][0]["elements"][0]["text"]) <= 3000


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (403, b"invalid_token", "invalid_token', Status Code: 403"),
        (404, b"no_service", "no_service', Status Code: 404"),
    ],
)
def test_a_webhook_that_refuses_is_told_without_its_address(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, status: int, body: bytes, text: str
) -> None:
    caplog.set_level(logging.DEBUG)
    with http_sink(status=status, body=body) as sink:
        monkeypatch.setenv("AIRFLOW_CONN_REFUND_SLACK", slack_connection(sink.url))
        told = failure(SlackChannel(timeout_s=1))
    assert text in told
    assert "SECRET" not in told + caplog.text
    assert len(sink.requests) == 1


@pytest.mark.parametrize("address", ["ftp://x/{}", "http://127.0.0.1:nonsense/{}", "http://[::1/{}"])
def test_a_malformed_webhook_is_told_without_its_address(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, address: str
) -> None:
    caplog.set_level(logging.DEBUG)
    whole = {"conn_type": "slackwebhook", "password": address.format(SLACK_TOKEN)}
    monkeypatch.setenv("AIRFLOW_CONN_REFUND_SLACK", json.dumps(whole))
    told = failure(SlackChannel(timeout_s=1))
    assert told.endswith("; look at the Airflow connection refund_slack")
    assert "SECRET" not in told + caplog.text


def test_a_webhook_that_says_nothing_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with silent_server() as port:
        monkeypatch.setenv("AIRFLOW_CONN_REFUND_SLACK", slack_connection(f"http://127.0.0.1:{port}"))
        assert failure(SlackChannel(timeout_s=1)).startswith("TimeoutError: timed out; look")


# --- Apprise -------------------------------------------------------------------------------------------------------


def apprise_connection(*paths: str) -> str:
    config = [{"path": path, "tag": "alerts"} for path in paths]
    return json.dumps({"conn_type": "apprise", "extra": {"config": config}})


def test_an_apprise_message_arrives(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with http_sink() as sink:
        address = f"json://user:SECRETpass@127.0.0.1:{sink.port}/SECRETpath"
        monkeypatch.setenv("AIRFLOW_CONN_REFUND_APPRISE", apprise_connection(address))
        AppriseChannel(timeout_s=1).send(MESSAGE)
    (sent,) = sink.bodies
    assert (sent["title"], sent["type"]) == (MESSAGE.subject, "warning")
    assert sent["message"].strip() == MESSAGE.text.strip()
    assert sink.requests[0][1] == "/SECRETpath"
    assert "SECRET" not in caplog.text


def test_what_apprise_could_not_deliver_is_told_without_its_address(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The provider's own hook takes no notice of Apprise's answer."""
    caplog.set_level(logging.DEBUG)
    with http_sink(status=500) as sink:
        address = f"json://user:SECRETpass@127.0.0.1:{sink.port}/SECRETpath"
        monkeypatch.setenv("AIRFLOW_CONN_REFUND_APPRISE", apprise_connection(address))
        told = failure(AppriseChannel(timeout_s=1))
    assert told == (
        "Failed to send JSON POST notification: Internal server error., error=500.; "
        "look at the Airflow connection refund_apprise"
    )
    assert "SECRET" not in caplog.text


@pytest.mark.parametrize("address", ["nosuch://SECRETtoken/x", "SECRETtoken", ""])
def test_an_address_that_apprise_does_not_know_is_told_without_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, address: str
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("AIRFLOW_CONN_REFUND_APPRISE", apprise_connection(address))
    assert failure(AppriseChannel(timeout_s=1)) == (
        "none of the addresses under `config` in its extra is one that Apprise knows; "
        "look at the Airflow connection refund_apprise"
    )
    assert "SECRET" not in caplog.text


def test_a_connection_without_config_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_REFUND_APPRISE", json.dumps({"conn_type": "apprise"}))
    assert failure(AppriseChannel(timeout_s=1)) == "KeyError: 'config'; look at the Airflow connection refund_apprise"


def test_a_service_that_says_nothing_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with silent_server() as port:
        monkeypatch.setenv("AIRFLOW_CONN_REFUND_APPRISE", apprise_connection(f"json://127.0.0.1:{port}/"))
        assert "A Connection error occurred sending JSON" in failure(AppriseChannel(timeout_s=1))


# --- all of them ---------------------------------------------------------------------------------------------------


def test_the_settings_choose_the_channels() -> None:
    settings = Settings(
        alert_channels="apprise, smtp",
        alert_email_to="a@example.com, b@example.com",
        alert_email_from="night@example.com",
        alert_timeout_s=1,
    )
    assert open_channels(settings) == {"apprise": AppriseChannel(timeout_s=1), "smtp": MAIL}
    assert open_channels(Settings()) == {}


def test_texts_are_scrubbed_of_every_form_of_a_secret() -> None:
    from airflow.sdk import Connection

    extra = {"config": {"path": "slack://TOKENa/TOKENb?key=TOKENc"}, "client_secret": "oauth-SECRET"}
    connection = Connection(conn_id="c", login=LOGIN, password=PASSWORD, extra=json.dumps(extra))
    text = (
        f"{PASSWORD} pass%2Fword%2Bwith%3Dmarks cGFzcy93b3JkK3dpdGg9bWFya3M= at https://u:p@h.example/a?b=c, "
        "TOKENa TOKENb TOKENc oauth-SECRET\nnext line"
    )
    assert scrub(text, secrets_of(connection)) == "*** *** ***= at https://h.example/*** *** *** *** *** next line"
    assert scrub("x" * 2000, ()) == "x" * 500


def test_the_page_shows_the_mail_as_it_was_received() -> None:
    from tests.night.mail_page import PAGE, written

    text = PAGE.read_text(encoding="utf-8")
    assert text == written(text), "run: python -m tests.night.mail_page"
