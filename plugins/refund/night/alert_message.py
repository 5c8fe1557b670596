"""Puts an alert into words for each kind of channel: plain text, HTML, Slack's blocks. Pure.

Keys and task names are hostile text. Nothing of them becomes markup, a header line, a mention or a template: control
and formatting characters are shown as escapes, HTML is escaped, Slack gets them where it does not look for markup.
"""

from __future__ import annotations

import html
import textwrap
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refund.store.alerts import PendingAlert

# What Slack takes: https://docs.slack.dev/reference/block-kit/blocks (header 150, section and preformatted 3,000)
SLACK_HEADER_CHARACTERS = 150
SLACK_TEXT_CHARACTERS = 2900
_SUBJECT_CHARACTERS = 140
_KEY_CHARACTERS = 300
_PART_CHARACTERS = 2000
_SHOWN_AS_ESCAPES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})  # direction marks among them
_COLOURS = {"info": "#2b5d8a", "warning": "#8a5a00", "critical": "#a3180e"}  # on white, 5:1 and more


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertMessage:
    """One alert, ready for any channel."""

    severity: str  # info, warning or critical
    subject: str  # one line
    text: str
    html: str
    blocks: list[dict[str, Any]]  # Slack's


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A titled piece of an alert; ``lines`` are shown as they are, one by one."""

    title: str
    prose: str = ""
    lines: tuple[str, ...] = ()


def write_message(alert: PendingAlert) -> AlertMessage:
    """The alert in words."""
    subject = _cut(f"[refund] {alert.severity}: {_headline(alert).partition('. ')[0]}", _SUBJECT_CHARACTERS)
    parts = _parts(alert)
    foot = (
        f"Alert {alert.alert_id}, rule {plain(alert.rule)}, night of {alert.run_date}, run {plain(alert.run_id)}; "
        f"first seen {alert.first_seen_at:%Y-%m-%d %H:%M} UTC, seen {alert.seen_count} time"
        f"{'' if alert.seen_count == 1 else 's'}. Take it, so that nobody is told again: "
        f"refund alerts ack {alert.alert_id}"
    )
    return AlertMessage(
        severity=alert.severity,
        subject=subject,
        text=_as_text(parts, foot),
        html=_as_html(subject, parts, foot, colour=_COLOURS[alert.severity]),
        blocks=_as_blocks(subject, parts, foot),
    )


def plain(text: str) -> str:
    r"""The text in one line; what does not print, or turns the direction of what follows, as ``\x1b``, ``\u202e`` …."""
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in _SHOWN_AS_ESCAPES
        else character
        for character in text
    )


def _headline(alert: PendingAlert) -> str:
    return _told(alert, "seen") or _cut(plain(alert.message), _PART_CHARACTERS)


def _told(alert: PendingAlert, name: str) -> str:
    return _cut(plain(str(alert.details.get(name) or "")), _PART_CHARACTERS)


def _parts(alert: PendingAlert) -> list[_Part]:
    """What was seen, against what, how sure, what to do, examples, SQL; those that there are."""
    examples = tuple(_cut(plain(str(key)), _KEY_CHARACTERS) for key in alert.details.get("examples") or ())
    parts = [
        _Part(title="What was seen", prose=_sentence(_headline(alert))),
        _Part(title="Against what", prose=_sentence(_told(alert, "against"))),
        _Part(title="How sure", prose=_sentence(_told(alert, "certainty"))),
        _Part(title="What to do", prose=_sentence(_told(alert, "action"))),
        _Part(title=(_told(alert, "examples_are") or "examples").capitalize(), lines=examples),
        _Part(title="Examples", prose="" if examples else _sentence(_told(alert, "no_examples"))),
        _Part(title="To see more, in Postgres", lines=tuple(sql for sql in (_told(alert, "sql"),) if sql)),
    ]
    return [part for part in parts if part.prose or part.lines]


def _sentence(text: str) -> str:
    return f"{text}." if text and text[-1] not in ".!?…" else text


def _as_text(parts: list[_Part], foot: str) -> str:
    paragraphs = []
    for part in parts:
        body = textwrap.fill(part.prose, 76, break_long_words=False, break_on_hyphens=False) if part.prose else ""
        paragraphs.append(
            "\n".join([f"{part.title}:", *([body] if body else []), *(f"  {line}" for line in part.lines)])
        )
    paragraphs.append(textwrap.fill(foot, 76, break_long_words=False, break_on_hyphens=False))
    return "\n\n".join(paragraphs) + "\n"


def _as_html(subject: str, parts: list[_Part], foot: str, *, colour: str) -> str:
    pieces = []
    for part in parts:
        pieces.append(f'<h2 style="font-size:14px;margin:16px 0 4px">{html.escape(part.title)}</h2>')
        if part.prose:
            pieces.append(f'<p style="margin:0">{html.escape(part.prose)}</p>')
        if part.lines:
            lines = "\n".join(html.escape(line) for line in part.lines)
            pieces.append(
                f'<pre style="margin:0;padding:8px;background:#f2f2f2;color:#111;white-space:pre-wrap;'
                f'overflow-wrap:anywhere">{lines}</pre>'
            )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(subject)}</title></head>'
        f'<body style="margin:0;background:#fff;color:#111;font:15px/1.5 sans-serif">'
        f'<div style="max-width:640px;margin:0 auto;padding:16px">'
        f'<h1 style="font-size:18px;margin:0;padding:8px 12px;border-left:6px solid {colour};color:{colour}">'
        f"{html.escape(subject)}</h1>\n"
        + "\n".join(pieces)
        + f'\n<p style="margin:16px 0 0;color:#555;font-size:13px">'
        f"{html.escape(foot)}</p></div></body></html>\n"
    )


def _as_blocks(subject: str, parts: list[_Part], foot: str) -> list[dict[str, Any]]:
    """At most 14 blocks (Slack takes 50); all text where Slack looks for no markup, mentions or emoji."""

    def section(text: str) -> dict[str, Any]:
        return {"type": "section", "text": _slack_plain(text, SLACK_TEXT_CHARACTERS)}

    blocks: list[dict[str, Any]] = [{"type": "header", "text": _slack_plain(subject, SLACK_HEADER_CHARACTERS)}]
    for part in parts:
        blocks.append(section(f"{part.title}: {part.prose}" if part.prose else part.title))
        if part.lines:
            text = _cut("\n".join(part.lines), SLACK_TEXT_CHARACTERS)
            preformatted = {"type": "rich_text_preformatted", "elements": [{"type": "text", "text": text}]}
            blocks.append({"type": "rich_text", "elements": [preformatted]})
    blocks.append({"type": "context", "elements": [_slack_plain(foot, SLACK_TEXT_CHARACTERS)]})
    return blocks


def slack_fallback(subject: str) -> str:
    """The line of Slack's notification, the one place that it reads as markup.

    What it wants escaped: https://docs.slack.dev/messaging/formatting-message-text.
    """
    return subject.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _slack_plain(text: str, limit: int) -> dict[str, Any]:
    return {"type": "plain_text", "text": _cut(text, limit), "emoji": False}


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
