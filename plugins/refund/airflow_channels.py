"""Sends alerts through Airflow's own notifiers: mail (SMTP), Slack webhooks, and whatever Apprise reaches.

Servers and credentials stand in the Airflow connections ``refund_smtp``, ``refund_slack`` and ``refund_apprise`` and
nowhere else. What a channel says when it fails is told without them.

The notifiers are asked by ``notify``, not called: a call would render subject and text as Jinja templates, so that a
key ``{{ … }}.jpg`` would be carried out, and would log an error's text as it is. Three more things are put right here,
each held by a test in tests/test_channels.py: the provider's mail has no plain text, its retries can take three minutes
at a server that does not answer, and its Apprise hook drops the answer whether anything was delivered.
"""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from refund.night.alert_message import AlertMessage, slack_fallback
from refund.night.notify import Channel, ChannelError

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from refund.settings import Settings

SMTP_CONNECTION = "refund_smtp"
SLACK_CONNECTION = "refund_slack"
APPRISE_CONNECTION = "refund_apprise"
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^\s'\"<>]+")
_ERROR_CHARACTERS = 500
_SHORTEST_SECRET = 4  # shorter pieces of an address are words, not secrets
_CHATTY = ("apprise", "urllib3")  # they log addresses, tokens and all: at DEBUG, Apprise one it does not know at ERROR


def open_channels(settings: Settings) -> Mapping[str, Channel]:
    """The channels that the settings name; nothing is connected or read before the first message."""
    made: dict[str, Callable[[], Channel]] = {
        "smtp": lambda: MailChannel(
            sender=settings.alert_email_from or "",
            receivers=tuple(word.strip() for word in (settings.alert_email_to or "").split(",")),
            timeout_s=settings.alert_timeout_s,
        ),
        "slack": lambda: SlackChannel(timeout_s=settings.alert_timeout_s),
        "apprise": lambda: AppriseChannel(timeout_s=settings.alert_timeout_s),
    }
    return {name: made[name]() for name in settings.channels}


@dataclass(frozen=True, slots=True, kw_only=True)
class MailChannel:
    """Mails in text and HTML through the SMTP server of the connection ``refund_smtp``."""

    sender: str
    receivers: tuple[str, ...]
    timeout_s: float

    def send(self, message: AlertMessage) -> None:
        """See `Channel.send`."""
        from airflow.providers.smtp.hooks.smtp import SmtpHook
        from airflow.providers.smtp.notifications.smtp import SmtpNotifier

        timeout_s = self.timeout_s

        class TextAndHtmlHook(SmtpHook):
            """The provider's hook, with a plain text before the HTML, one attempt, and a time limit of ours."""

            @property
            def timeout(self) -> int:
                return max(1, min(int(super().timeout), round(timeout_s)))

            @property
            def smtp_retry_limit(self) -> int:
                return 0

            def close(self) -> None:
                """End the connection of a login that was refused: the provider leaves it open."""
                if self._smtp_client is not None:
                    self._smtp_client.close()

            def _build_mime_message(self, **fields: Any) -> Any:  # type: ignore[override]
                from email.mime.text import MIMEText

                built, receivers = super()._build_mime_message(**fields)
                built.set_payload([MIMEText(message.text, "plain", "utf-8"), *built.get_payload()])
                return built, receivers

        class Notifier(SmtpNotifier):
            hook = TextAndHtmlHook(smtp_conn_id=SMTP_CONNECTION)

        with _told(SMTP_CONNECTION), closing(Notifier.hook):
            Notifier(
                smtp_conn_id=SMTP_CONNECTION,
                from_email=self.sender,
                to=list(self.receivers),
                subject=message.subject,
                html_content=message.html,
                mime_subtype="alternative",
                custom_headers={"Auto-Submitted": "auto-generated", "X-Refund-Severity": message.severity},
            ).notify({})


@dataclass(frozen=True, slots=True, kw_only=True)
class SlackChannel:
    """Messages to the Slack webhook of the connection ``refund_slack``, whose whole address is a secret."""

    timeout_s: float

    def send(self, message: AlertMessage) -> None:
        """See `Channel.send`."""
        from airflow.providers.slack.hooks.slack_webhook import SlackWebhookHook
        from airflow.providers.slack.notifications.slack_webhook import SlackWebhookNotifier

        silent = logging.Logger("refund.slack", level=logging.CRITICAL)  # the client logs the webhook's address

        class Notifier(SlackWebhookNotifier):
            hook = SlackWebhookHook(
                slack_webhook_conn_id=SLACK_CONNECTION,
                timeout=max(1, round(self.timeout_s)),
                retry_handlers=[],  # the next sending tries again; Slack's own retries log the address
                logger=silent,
            )

        with _told(SLACK_CONNECTION):
            Notifier(
                slack_webhook_conn_id=SLACK_CONNECTION,
                text=slack_fallback(message.subject),
                blocks=message.blocks,
                unfurl_links=False,
                unfurl_media=False,
            ).notify({})  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True, kw_only=True)
class AppriseChannel:
    """Messages to every service of the connection ``refund_apprise``."""

    timeout_s: float

    def send(self, message: AlertMessage) -> None:
        """See `Channel.send`."""
        import apprise
        from airflow.providers.apprise.hooks.apprise import AppriseHook
        from airflow.providers.apprise.notifications.apprise import AppriseNotifier

        timeout_s = self.timeout_s

        class CheckedHook(AppriseHook):
            """The provider's hook, which looks at Apprise's answer and bounds the time of each service."""

            def notify(self, *, config: Any = None, **fields: Any) -> None:  # type: ignore[override]
                services = apprise.Apprise()
                with apprise.LogCapture(level=logging.WARNING, fmt="%(message)s") as said:  # type: ignore[no-untyped-call]
                    self.set_config_from_conn(conn=self.get_connection(self.apprise_conn_id), apprise_obj=services)
                    for service in services:
                        service.socket_connect_timeout = min(service.socket_connect_timeout or timeout_s, timeout_s)
                        service.socket_read_timeout = min(service.socket_read_timeout or timeout_s, timeout_s)
                    delivered = len(services) > 0 and services.notify(**fields)
                if not len(services):
                    msg = "none of the addresses under `config` in its extra is one that Apprise knows"
                    raise ChannelError(msg)
                if not delivered:
                    msg = " ".join(said.getvalue().split()) or "Apprise does not say why"
                    raise ChannelError(msg)

        class Notifier(AppriseNotifier):
            hook = CheckedHook(apprise_conn_id=APPRISE_CONNECTION)

        kinds = {"info": "info", "warning": "warning", "critical": "failure"}
        with _told(APPRISE_CONNECTION):
            Notifier(
                apprise_conn_id=APPRISE_CONNECTION,
                title=message.subject,
                body=message.text,
                notify_type=apprise.NotifyType(kinds[message.severity]),
                body_format=apprise.NotifyFormat.TEXT,
            ).notify({})  # type: ignore[no-untyped-call]


@contextmanager
def _told(conn_id: str) -> Iterator[None]:
    """Turn whatever goes wrong into a `ChannelError` whose text holds no part of the connection that is secret."""
    from airflow.sdk.bases.hook import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        connection = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        msg = (
            f"Airflow has no connection {conn_id}; add it under Admin > Connections, or as "
            f"AIRFLOW_CONN_{conn_id.upper()} (docs/alerts.md shows both)"
        )
        raise ChannelError(msg) from None
    except Exception as exc:  # noqa: BLE001 -- whatever keeps connections: a secrets backend, Airflow's API
        msg = f"the Airflow connection {conn_id} could not be read: {scrub(f'{type(exc).__name__}: {exc}', ())}"
        raise ChannelError(msg) from None
    try:
        with _hushed():
            yield
    except Exception as exc:  # noqa: BLE001 -- four libraries' errors; none of them may cost the night
        said = str(exc) if isinstance(exc, ChannelError) else f"{type(exc).__name__}: {exc}"
        text = f"{scrub(said, secrets_of(connection))}; look at the Airflow connection {conn_id}"
        raise ChannelError(text) from None  # the cause holds what was scrubbed


@contextmanager
def _hushed() -> Iterator[None]:
    """Keep libraries from logging addresses, whatever level Airflow logs at; what matters is in the error."""
    loggers = [logging.getLogger(name) for name in _CHATTY]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.setLevel(level)
            logger.propagate = propagate


def secrets_of(connection: Connection) -> frozenset[str]:
    """Every piece of a connection that must not be told: password, values of the extra, addresses and their parts."""
    found = {connection.password or ""}
    for text in _strings(connection.extra_dejson):
        found.add(text)
        found |= _parts_of(text)
    found |= _parts_of(connection.password or "")
    if connection.host and "/" in connection.host:  # a webhook's address
        found |= _parts_of(connection.host)
    return frozenset(secret for secret in found if len(secret) >= _SHORTEST_SECRET)


def scrub(text: str, secrets: Iterable[str]) -> str:
    """The text in one line without secrets in any common form, addresses cut to the host."""
    for secret in sorted({form for known in secrets for form in _forms(known)}, key=len, reverse=True):
        text = text.replace(secret, "***")
    text = _URL.sub(lambda found: _host_only(found[0]), text)
    return " ".join(text.split())[:_ERROR_CHARACTERS]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _strings(inner)


def _parts_of(address: str) -> set[str]:
    """User, password, path segments and query values of each address in the text; its host where it is no name.

    Services of Apprise's may keep a token in that place: ``slack://TOKEN/…``.
    """
    found: set[str] = set()
    for url in _URL.findall(address) or [address]:
        rest = url.partition("://")[2] or url
        login, _, after = rest.rpartition("@")
        found |= set(login.split(":"))
        path, _, query = after.partition("?")
        host, *segments = path.split("/")
        found |= {*segments, *([] if "." in host or host.startswith("localhost") else [host])}
        found |= {pair.partition("=")[2] for pair in query.split("&")}
    return found


def _forms(secret: str) -> set[str]:
    """As libraries write it: plain, quoted and unquoted for URLs, escaped as in a repr, in base64."""
    encoded = base64.b64encode(secret.encode()).decode()
    forms = {secret, quote(secret, safe=""), quote(secret), unquote(secret), repr(secret)[1:-1], encoded.rstrip("=")}
    return {form for form in forms if len(form) >= _SHORTEST_SECRET}


def _host_only(url: str) -> str:
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.hostname or '***'}/***"
    except ValueError:  # an address that is none
        return "***"
