"""Animations of which the first picture counts, whatever the others are."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tests.corpus.bases import bases, chunk, riff_chunk
from tests.corpus.specimen import ACCEPTED, BROKEN, LARGE, Specimen

GOOD = frozenset({ACCEPTED})


def frames() -> Iterator[Specimen]:
    yield from _pngs()
    yield from _gifs()
    yield from _webps()


def _pngs() -> Iterator[Specimen]:
    body = bases()["colour.png"]
    end = len(body) - 12
    for count in (0, 1, 2, 1000, 2**31 - 1, 2**32 - 1):
        grown = body[:33] + chunk(b"acTL", struct.pack("!II", count, 0)) + body[33:]
        yield _frame(f"{count}-announced.png", grown, GOOD | BROKEN, same_as=body)
    control = struct.pack("!IIIIIHHBB", 0, 64, 48, 0, 0, 1, 20, 0, 0)
    head = chunk(b"acTL", struct.pack("!II", 2, 0)) + chunk(b"fcTL", control)
    for width, height, x, y in (
        (0, 0, 0, 0),
        (64, 0, 0, 0),
        (2**31 - 1, 1, 0, 0),
        (64, 48, 1, 0),
        (1, 1, 2**31, 2**31),
    ):
        later = chunk(b"fcTL", struct.pack("!IIIIIHHBB", 1, width, height, x, y, 1, 20, 0, 0))
        for name, content in (("empty", b""), ("garbage", b"\xff" * 200)):
            data = chunk(b"fdAT", struct.pack("!I", 2) + content)
            yield _frame(
                f"{width}x{height}-at-{x}-{y}-{name}.png",
                body[:33] + head + body[33:end] + later + data + body[end:],
                GOOD,
                same_as=body,
            )
    for sides in ((0, 0), (65, 48), (2**31 - 1, 2**31 - 1)):
        first = chunk(b"acTL", struct.pack("!II", 1, 0)) + chunk(
            b"fcTL", struct.pack("!IIIIIHHBB", 0, *sides, 0, 0, 1, 20, 0, 0)
        )
        yield _frame(f"first-{sides[0]}x{sides[1]}.png", body[:33] + first + body[33:], GOOD | BROKEN)
    many = b"".join(chunk(b"fcTL", struct.pack("!IIIIIHHBB", n, 64, 48, 0, 0, 1, 20, 0, 0)) for n in range(1, 5_000))
    yield _frame("5000-controls.png", body[:33] + head + body[33:end] + many + body[end:], GOOD, same_as=body)


def _gifs() -> Iterator[Specimen]:
    body = bases()["still.gif"]
    end = len(body) - 1
    at = body.index(b"\x2c\0\0\0\0")
    frame = body[at:end]
    for count in (2, 100, 3_000):
        tiny = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\2\2D\1\0"
        yield _frame(f"{count}-frames.gif", body[:end] + tiny * count + b";", GOOD, same_as=body)
    for sides in ((0, 0), (64, 0), (65_535, 65_535), (1, 65_535)):
        later = b"\x2c" + struct.pack("<HHHHB", 0, 0, *sides, 0) + frame[10:]
        yield _frame(f"later-{sides[0]}x{sides[1]}.gif", body[:end] + later + b";", GOOD, same_as=body)
        first = b"\x2c" + struct.pack("<HHHHB", 0, 0, *sides, 0) + frame[10:]
        yield _frame(
            f"first-{sides[0]}x{sides[1]}.gif", body[:at] + first + b";", {LARGE} if max(sides) > 64 else GOOD | BROKEN
        )
        moved = b"\x2c" + struct.pack("<HH", *sides) + frame[5:]
        yield _frame(
            f"first-at-{sides[0]}-{sides[1]}.gif",
            body[:at] + moved + b";",
            {LARGE} if max(sides) > 64 else GOOD | BROKEN,
        )
    for bits in range(13):
        yield _frame(f"code-size-{bits}.gif", body[: at + 10] + bytes([bits]) + body[at + 11 :], GOOD | BROKEN)
    yield _frame("garbage-later.gif", body[:end] + frame[:11] + b"\xff" * 500 + b"\0;", GOOD, same_as=body)
    yield _frame("no-frame.gif", body[:at] + b";", BROKEN)
    yield _frame("no-trailer.gif", body[:end], GOOD, same_as=body)
    short = body[at:end][: len(frame) // 2]
    yield _frame("closed-early.gif", body[: at + 11] + b"\x20" + frame[12:44] + b"\0;", BROKEN)
    yield _frame("half-then-end.gif", body[:at] + short + b"\0;", BROKEN)


def _webps() -> Iterator[Specimen]:
    body = bases()["animated.webp"]
    at = body.index(b"ANMF")
    size = int.from_bytes(body[at + 4 : at + 8], "little")
    first = body[at : at + 8 + size + size % 2]
    for count in (2, 100, 1_000):
        tiny = riff_chunk(
            b"ANMF",
            bytes(6)
            + b"\0\0\0\0\0\0"
            + b"\x64\0\0\0"
            + riff_chunk(b"VP8L", b"\x2f\0\0\0\x10\x07\x10\x11\x11\x88\x88\xfe\7\0"),
        )
        yield _frame(f"{count}-frames.webp", _again(body[12:at] + first + tiny * count), GOOD | BROKEN)
    for name, later in (
        ("garbage", riff_chunk(b"ANMF", b"\xff" * 100)),
        ("empty", riff_chunk(b"ANMF", b"")),
        ("outside", first[:8] + b"\xff\xff\0" + first[11:]),
        ("zero-size", first[:14] + bytes(6) + first[20:]),
        ("huge", first[:14] + b"\xff" * 6 + first[20:]),
    ):
        yield _frame(f"later-{name}.webp", _again(body[12:at] + first + later), GOOD | BROKEN)
        yield _frame(f"first-{name}.webp", _again(body[12:at] + later + first), GOOD | BROKEN)


def _again(content: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", len(content) + 4) + b"WEBP" + content


def _frame(name: str, body: bytes, allowed: frozenset[str] | set[str], *, same_as: bytes | None = None) -> Specimen:
    return Specimen(family="frame", name=f"frame-{name}", body=body, allowed=frozenset(allowed), same_as=same_as)
