"""What the decoder pool's processes say to each other: tickets of fixed length one way, JSON the other, never a pickle.

A decoder that a hostile photo has taken over can write what it likes to its pipe. JSON that is checked field by field
can at worst be a wrong fact; a pickle would be code run by the process that holds the credentials.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass, fields
from typing import Any

from refund.errors import ReasonCode
from refund.imaging.sniff import SUPPORTED_FORMATS
from refund.records import ImageLimits, PhotoFacts, Quality, QualityLabel

TICKET = struct.Struct("!QqQQ")  # number, slot, where in the arena the body begins, its bytes
ANSWER_HEADER = struct.Struct("!QI")  # ticket, bytes of the JSON that follows
CONTROL_TICKET = 0  # an answer about the pool itself: {"ready": …}, {"children": …} or {"fatal": …}
MAX_ANSWER_BYTES = 16_384
_MAX_DETAIL_CHARS = 1000
_FACTS = frozenset(field.name for field in fields(PhotoFacts)) - {"slot"}
_MEASURES = ("brightness_ratio", "contrast_ratio", "sharpness", "entropy_bits")
_QUALITY = tuple(field.name for field in fields(Quality))


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConfig:
    """All that the decoding interpreter is told; it travels as JSON on its command line and holds no secret."""

    pixels_path: str
    limits: ImageLimits
    workers: int
    memory_bytes: int
    timeout_s: float
    size: tuple[int, int]
    kernel_counts: str = "/proc/vmstat"  # where the kernel counts what its out-of-memory killer ended

    def to_json(self) -> str:
        """As JSON text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> PoolConfig:
        """From what `to_json` gave."""
        values = json.loads(text)
        return cls(**{**values, "limits": ImageLimits(**values["limits"]), "size": tuple(values["size"])})


def answer_frame(ticket: int, payload: dict[str, Any]) -> bytes:
    """One answer as it goes through a pipe."""
    text = json.dumps(payload).encode()
    return ANSWER_HEADER.pack(ticket, len(text)) + text


def facts_payload(facts: PhotoFacts) -> dict[str, Any]:
    """The facts without the slot, which the receiver knows from the ticket."""
    payload = {name: getattr(facts, name) for name in _FACTS}
    if facts.quality is not None:  # by hand: asdict() copies in depth and takes ten times as long
        payload["quality"] = {name: getattr(facts.quality, name) for name in _QUALITY}
    if facts.detail is not None:
        payload["detail"] = facts.detail[:_MAX_DETAIL_CHARS]
    return payload


def take_tickets(buffer: bytearray) -> list[tuple[int, int, int, int]]:
    """Cut the complete tickets off the front of ``buffer``: number, slot, offset and length of each."""
    whole = len(buffer) - len(buffer) % TICKET.size
    tickets = list(TICKET.iter_unpack(buffer[:whole]))
    del buffer[:whole]
    return tickets


def take_answers(buffer: bytearray) -> list[tuple[int, dict[str, Any]]]:
    """Cut the complete answers off the front of ``buffer``.

    Raises:
        ValueError: what is in the buffer is no answer.
    """
    return [(ticket, payload) for ticket, payload, _ in take_answer_frames(buffer)]


def take_answer_frames(buffer: bytearray) -> list[tuple[int, dict[str, Any], bytes]]:
    """Cut the complete answers off the front of ``buffer``, each also as the bytes that it came in.

    Raises:
        ValueError: what is in the buffer is no answer.
    """
    answers: list[tuple[int, dict[str, Any], bytes]] = []
    start = 0
    while len(buffer) >= start + ANSWER_HEADER.size:
        ticket, length = ANSWER_HEADER.unpack_from(buffer, start)
        if length > MAX_ANSWER_BYTES:
            msg = f"an answer of {length} bytes, expected at most {MAX_ANSWER_BYTES}"
            raise ValueError(msg)
        end = start + ANSWER_HEADER.size + length
        if len(buffer) < end:
            break
        frame = bytes(buffer[start:end])
        payload = json.loads(frame[ANSWER_HEADER.size :].decode())
        if not isinstance(payload, dict):
            msg = f"an answer of type {type(payload).__name__}, expected an object"
            raise ValueError(msg)
        answers.append((ticket, payload, frame))
        start = end
    del buffer[:start]
    return answers


def facts_from_payload(slot: int, payload: dict[str, Any]) -> PhotoFacts:
    """Check an answer field by field and make facts of it.

    Raises:
        ValueError: a field is missing, unknown, of a wrong type or out of range.
    """
    try:
        if payload.keys() - _FACTS:
            msg = f"an answer with the unknown fields {sorted(payload.keys() - _FACTS)}"
            raise ValueError(msg)
        reason, quality = payload["reason"], payload["quality"]
        facts = PhotoFacts(
            slot=slot,
            reason=None if reason is None else ReasonCode(reason),
            detail=payload["detail"],
            image_format=payload["image_format"],
            width_px=payload["width_px"],
            height_px=payload["height_px"],
            sha256=payload["sha256"],
            perceptual_hash=payload["perceptual_hash"],
            quality=None if quality is None else _quality(quality),
            decode_ms=payload["decode_ms"],
        )
    except (KeyError, TypeError, AttributeError) as exc:
        msg = f"an answer with wrong fields: {exc}"
        raise ValueError(msg) from exc
    if (wrong := _wrong_field(facts)) is not None:
        msg = f"an answer whose {wrong} is wrong: {facts!r}"
        raise ValueError(msg)
    return facts


def _quality(values: dict[str, Any]) -> Quality:
    measures = [values[name] for name in _MEASURES]
    for value in measures:
        if not (type(value) is float and 0.0 <= value < 1e9):
            msg = f"an answer with quality measures {measures}"
            raise ValueError(msg)
    brightness, contrast, sharpness, entropy = measures
    return Quality(
        brightness_ratio=brightness,
        contrast_ratio=contrast,
        sharpness=sharpness,
        entropy_bits=entropy,
        labels=tuple([QualityLabel(label) for label in values["labels"]]),
    )


def _wrong_field(facts: PhotoFacts) -> str | None:
    """The first field that is not what it should be; without a list of all: it is asked twice of every photo."""
    detail, hashed, spent_ms = facts.detail, facts.perceptual_hash, facts.decode_ms
    if detail is not None and type(detail) is not str:
        return "detail"
    if facts.image_format is not None and facts.image_format not in SUPPORTED_FORMATS:
        return "image_format"
    if not _is_side(facts.width_px):
        return "width_px"
    if not _is_side(facts.height_px):
        return "height_px"
    if type(facts.sha256) is not str or len(facts.sha256) != 64:
        return "sha256"
    if spent_ms is not None and not (type(spent_ms) is float and 0.0 <= spent_ms < 1e9):
        return "decode_ms"
    if hashed is not None and not (type(hashed) is int and -(2**63) <= hashed < 2**63):
        return "perceptual_hash"
    if facts.reason is None and None in (facts.image_format, facts.width_px, facts.height_px, hashed, facts.quality):
        return "a field of a decoded photo"
    return None


def _is_side(value: object) -> bool:
    return value is None or (type(value) is int and 0 <= value < 2**31)
