"""What a taken-over child could write is refused, field by field."""

from __future__ import annotations

import pytest

from refund.errors import ReasonCode
from refund.imaging.pool_wire import ANSWER_HEADER, answer_frame, facts_from_payload, facts_payload, take_answers
from refund.records import PhotoFacts, Quality, QualityLabel

GOOD = PhotoFacts(
    slot=3,
    image_format="PNG",
    width_px=40,
    height_px=50,
    sha256="a" * 64,
    perceptual_hash=-(2**63),
    quality=Quality(
        brightness_ratio=0.5, contrast_ratio=0.25, sharpness=9.5, entropy_bits=7.5, labels=(QualityLabel.DARK,)
    ),
)
BAD = PhotoFacts(slot=0, reason=ReasonCode.CORRUPT, detail="broken", sha256="b" * 64)


@pytest.mark.parametrize("facts", [GOOD, BAD])
def test_facts_survive_the_pipe(facts):
    buffer = bytearray(answer_frame(9, facts_payload(facts)) * 2 + b"\0")
    answers = take_answers(buffer)
    assert [(ticket, facts_from_payload(facts.slot, payload)) for ticket, payload in answers] == [(9, facts)] * 2
    assert buffer == b"\0"


@pytest.mark.parametrize(
    "change",
    [
        {"reason": "no such reason"},
        {"width_px": "40"},
        {"width_px": True},
        {"height_px": -1},
        {"sha256": None},
        {"perceptual_hash": 2**63},
        {"image_format": "TIFF"},
        {"quality": None},
        {"quality": {"labels": []}},
        {"quality": [1]},
        {"slot": 1},
        {"unknown": 1},
        {"detail": 5},
        {"decode_ms": -1.0},
        {"decode_ms": float("nan")},
        {"decode_ms": float("inf")},
        {"decode_ms": "1"},
    ],
)
def test_a_wrong_field_is_refused(change):
    with pytest.raises(ValueError, match=r"answer|reason|slot"):
        facts_from_payload(3, {**facts_payload(GOOD), **change})


@pytest.mark.parametrize(
    "frame", [ANSWER_HEADER.pack(1, 2**31), ANSWER_HEADER.pack(1, 2) + b"[]", ANSWER_HEADER.pack(1, 2) + b"\xff{"]
)
def test_what_is_no_answer_is_refused(frame):
    with pytest.raises(ValueError, match=r"answer|utf-8|Expecting"):
        take_answers(bytearray(frame))
