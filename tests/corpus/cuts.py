"""Files that end too early: at every boundary of their format, one byte before it and one after."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tests.corpus.bases import bases, format_of
from tests.corpus.specimen import ACCEPTED, BROKEN, EMPTY, NO_IMAGE, SEED, Specimen

_SIGNATURE_BYTES = {"JPEG": 3, "PNG": 8, "GIF": 6, "BMP": 18, "WEBP": 12}
_BMP_FIELDS = (2, 6, 8, 10, 14, 18, 22, 26, 28, 30, 34, 38, 42, 46, 50, 54)


def boundaries(body: bytes, image_format: str) -> list[int]:
    """Offsets where something of the format begins or ends."""
    found = {
        "JPEG": _jpeg_boundaries,
        "PNG": _png_boundaries,
        "GIF": _gif_boundaries,
        "BMP": lambda body: [*_BMP_FIELDS, int.from_bytes(body[10:14], "little")],
        "WEBP": _riff_boundaries,
    }[image_format](body)
    return sorted({at for at in found if 0 <= at <= len(body)})


def _jpeg_boundaries(body: bytes) -> Iterator[int]:
    at = 0
    while (at := body.find(b"\xff", at)) >= 0 and at + 1 < len(body):
        if body[at + 1] not in (0x00, 0xFF):
            yield from (at, at + 2)
            if body[at + 1] not in (0x01, *range(0xD0, 0xDA)) and at + 4 <= len(body):  # it has a length
                yield at + 4
                at += int.from_bytes(body[at + 2 : at + 4], "big")
                yield at + 2
        at += 2


def _png_boundaries(body: bytes) -> Iterator[int]:
    at = 8
    while at + 8 <= len(body):
        end = at + 8 + int.from_bytes(body[at : at + 4], "big")
        yield from (at, at + 4, at + 8, (at + 8 + end) // 2, end, end + 4)
        at = end + 4


def _gif_boundaries(body: bytes) -> Iterator[int]:
    yield from (6, 10, 13)
    at = 13 + (3 << (body[10] & 7) + 1 if body[10] & 0x80 else 0)
    while at < len(body) and body[at] != 0x3B:
        yield at
        if body[at] == 0x2C:
            flags = body[at + 9] if at + 9 < len(body) else 0
            at += 10 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
            yield from (at, at + 1)
            at += 1
        else:
            at += 2
        while at < len(body) and body[at]:
            yield from (at, at + 1)
            at += body[at] + 1
        at += 1
    yield at


def _riff_boundaries(body: bytes) -> Iterator[int]:
    yield from (4, 8)
    at = 12
    while at + 8 <= len(body):
        end = at + 8 + int.from_bytes(body[at + 4 : at + 8], "little")
        yield from (at, at + 4, at + 8, (at + 8 + end) // 2, end)
        if body[at : at + 4] == b"ANMF":
            yield from (at + 24, at + 28, at + 32)
        at = end + end % 2


def cuts(pictures: dict[str, bytes]) -> Iterator[Specimen]:
    """Every picture, cut."""
    for source, body in pictures.items():
        image_format = format_of(source)
        rng = random.Random(f"{SEED} cuts {source}")
        offsets = {at + by for at in boundaries(body, image_format) for by in (-1, 0, 1)}
        if len(offsets) > 70:
            offsets = set(rng.sample(sorted(offsets), 70))
        offsets |= {rng.randrange(len(body)) for _ in range(12)} | {len(body) - 1}
        for at in sorted(at for at in offsets if 0 <= at < len(body)):
            if at == 0:
                allowed = frozenset({EMPTY})
            elif at < _SIGNATURE_BYTES[image_format]:
                allowed = frozenset({NO_IMAGE})
            else:
                allowed = BROKEN | {ACCEPTED}
            yield Specimen(
                family="cut" if source in bases() else "photograph, cut",
                name=f"cut-{at}-{source}",
                body=body[:at],
                allowed=allowed,
                same_as=body,
            )
