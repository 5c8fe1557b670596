"""Files whose headers lie about their sides: nothing, negative, and up to 2^32 pixels."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from PIL import Image

from tests.corpus.bases import bases, bmp, encoded, png, riff, riff_chunk, scene
from tests.corpus.specimen import ACCEPTED, ANY, BROKEN, CORRUPT, LARGE, SMALL, Specimen

_32_BIT = (0, 1, 31, 4097, 20_000, 65_535, 2**31 - 1, 2**31, 2**32 - 127, 2**32 - 1)
_16_BIT = (0, 1, 31, 4097, 20_000, 32_767, 32_768, 65_535)
_14_BIT = (1, 31, 4097, 16_383)
_24_BIT = (1, 31, 4097, 16_384, 65_536, 2**24)


def _allowed(width: int, height: int, *, most: int) -> frozenset[str]:
    """What a reader that looks at the header alone says; at no side above ``most`` is anything but that right."""
    if min(width, height) == 0:
        return BROKEN | {SMALL}
    if min(width, height) < 32:
        return frozenset({SMALL, LARGE, CORRUPT})
    return frozenset({LARGE}) if max(width, height) > most else BROKEN | {ACCEPTED}


def _pairs(values: tuple[int, ...]) -> list[tuple[int, int]]:
    """Each value beside a good one, either way round, and beside itself."""
    found = []
    for value in values:
        found += [(value, 48), (64, value), (value, value)]
    return found


def _png_sizes() -> Iterator[Specimen]:
    for source in ("colour.png", "interlaced.png", "grey16.png"):
        body = bases()[source]
        for width, height in _pairs(_32_BIT):
            header = struct.pack("!II", width, height) + body[24:29]
            # PNG allows 2^31 - 1 and no more; what is above is broken, or too large
            allowed = _allowed(width, height, most=4096) | ({CORRUPT} if max(width, height) >= 2**31 else set())
            right = body[:16] + header + struct.pack("!I", zlib.crc32(b"IHDR" + header)) + body[33:]
            yield _specimen(f"{width}x{height}-{source}", right, allowed)
            if source == "colour.png":
                wrong = body[:16] + header + body[29:]
                yield _specimen(f"{width}x{height}-wrong-crc-{source}", wrong, frozenset({CORRUPT}))


def _jpeg_sizes() -> Iterator[Specimen]:
    for source, marker in (("baseline.jpg", b"\xff\xc0"), ("progressive.jpg", b"\xff\xc2")):
        body = bases()[source]
        at = body.index(marker)
        for width, height in _pairs(_16_BIT):
            changed = body[: at + 5] + struct.pack("!HH", height, width) + body[at + 9 :]
            yield _specimen(f"{width}x{height}-{source}", changed, _allowed(width, height, most=4096))


def _gif_sizes() -> Iterator[Specimen]:
    for source in ("still.gif", "animated.gif"):
        body = bases()[source]
        frame = body.index(b"\x2c\0\0\0\0")
        for width, height in _pairs(_16_BIT):
            sides = struct.pack("<HH", width, height)
            # the first frame may reach beyond the screen, which then grows: a small screen is no fault
            screen = _allowed(max(width, 64), max(height, 48), most=4096) | (
                {SMALL} if min(width, height) < 32 else set()
            )
            yield _specimen(f"screen-{width}x{height}-{source}", body[:6] + sides + body[10:], screen | {CORRUPT})
            allowed = _allowed(max(width, 64), max(height, 48), most=4096) | BROKEN | {ACCEPTED}
            if max(width, height) > 4096:
                allowed = frozenset({LARGE})
            yield _specimen(f"frame-{width}x{height}-{source}", body[: frame + 5] + sides + body[frame + 9 :], allowed)


def _bmp_sizes() -> Iterator[Specimen]:
    for source in ("colour.bmp", "palette.bmp", "runs.bmp"):
        body = bases()[source]
        for width, height in _pairs(_32_BIT):
            changed = body[:18] + struct.pack("<II", width, height) + body[26:]
            allowed = _allowed(width, height, most=4096)
            if height >= 2**31:  # negative: upside down, of the absolute height
                allowed |= _allowed(width, 2**32 - height, most=4096)
            yield _specimen(f"{width}x{height}-{source}", changed, allowed)
    for at, name in ((2, "file"), (10, "start"), (14, "header"), (34, "pixels"), (46, "colours"), (50, "important")):
        for value in _32_BIT:
            changed = bytearray(bases()["palette.bmp"])
            changed[at : at + 4] = struct.pack("<I", value)
            yield _specimen(f"{name}-{value}-palette.bmp", bytes(changed), ANY)


def _webp_sizes() -> Iterator[Specimen]:
    lossy, lossless = bases()["lossy.webp"], bases()["lossless.webp"]
    for width, height in _pairs(_14_BIT):
        changed = lossy[:26] + struct.pack("<HH", width, height) + lossy[30:]
        allowed = _allowed(width, height, most=4096)
        yield _specimen(f"{width}x{height}-lossy.webp", changed, allowed)
        bits = (width - 1) | (height - 1) << 14
        yield _specimen(
            f"{width}x{height}-lossless.webp", lossless[:21] + struct.pack("<I", bits) + lossless[25:], allowed
        )
    frame = riff_chunk(b"VP8 ", lossy[20:])
    for width, height in _pairs(_24_BIT):
        canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        allowed = _allowed(width, height, most=4096)
        still = riff(riff_chunk(b"VP8X", b"\0\0\0\0" + canvas), frame)
        yield _specimen(f"canvas-{width}x{height}-still.webp", still, allowed)
        one = b"\0\0\0\0\0\0" + (63).to_bytes(3, "little") + (47).to_bytes(3, "little") + b"\x64\0\0\0" + frame
        moving = riff(
            riff_chunk(b"VP8X", b"\2\0\0\0" + canvas), riff_chunk(b"ANIM", bytes(6)), riff_chunk(b"ANMF", one)
        )
        yield _specimen(f"canvas-{width}x{height}-animated.webp", moving, allowed)
    for value in _32_BIT:
        for at, name in ((4, "riff"), (16, "chunk")):
            changed = lossy[:at] + struct.pack("<I", value) + lossy[at + 4 :]
            yield _specimen(f"{name}-{value}-lossy.webp", changed, BROKEN | {ACCEPTED})


def _png_lengths() -> Iterator[Specimen]:
    for source in ("colour.png", "animated.png"):
        body = bases()[source]
        for kind in (b"IHDR", b"IDAT", b"IEND"):
            at = body.index(kind) - 4
            for value in _32_BIT:
                changed = body[:at] + struct.pack("!I", value) + body[at + 4 :]
                yield _specimen(f"{kind.decode()}-of-{value}-{source}", changed, BROKEN | {ACCEPTED, LARGE, SMALL})


def _real_sides() -> Iterator[Specimen]:
    """Pictures that are as large as they say, or would be if they went on."""
    for width, height in (
        *((1, 1), (1, 20_000), (20_000, 1), (31, 32), (32, 31), (31, 31), (32, 32), (32, 33), (33, 32), (2, 4096)),
        *((4096, 32), (32, 4096), (4096, 4096), (4097, 32), (32, 4097), (4097, 4097), (4096, 4097), (8192, 8192)),
        *((10_000, 10_000), (20_000, 20_000), (20_000, 32)),
    ):
        if min(width, height) < 32:
            allowed = frozenset({SMALL})
        else:
            allowed = frozenset({LARGE if max(width, height) > 4096 else ACCEPTED})
        rows = (b"\0" + bytes(-(-width // 8))) * height if allowed == {ACCEPTED} else b""
        yield _specimen(f"real-{width}x{height}.png", png(width, height, depth=1, colour=0, rows=rows), allowed)
        if max(width, height) <= 4097:
            image = scene(64, 64).resize((width, height), 0).convert("L")
            yield _specimen(f"real-{width}x{height}.jpg", encoded(image, "JPEG", quality=30), allowed)
        if width * height <= 140_000:
            image = scene(64, 64).resize((width, height), 0)
            yield _specimen(f"real-{width}x{height}.gif", encoded(image.quantize(8), "GIF"), allowed)
            yield _specimen(f"real-{width}x{height}.bmp", encoded(image, "BMP"), allowed)
            if max(width, height) <= 16_383:
                yield _specimen(f"real-{width}x{height}.webp", encoded(image, "WEBP", quality=10, method=0), allowed)
        else:
            without_rows = frozenset({LARGE}) if max(width, height) > 4096 else BROKEN
            yield _specimen(f"empty-{width}x{height}.bmp", bmp(width, height, b"\0" * 64), without_rows)
            runs = bmp(width, height, b"\0\1", bits=8, compression=1, colours=256)
            yield _specimen(
                f"empty-{width}x{height}-runs.bmp",
                runs,
                without_rows | ({ACCEPTED} if max(width, height) <= 4096 else set()),
            )


def _largest() -> Iterator[Specimen]:
    """What needs the most memory of all that is allowed."""
    side, good = 4096, frozenset({ACCEPTED})
    rows = (b"\0" + bytes(4 * side)) * side
    yield _specimen("largest-see-through.png", png(side, side, colour=6, rows=rows), good)
    flat = Image.new("RGB", (side, side), (90, 120, 150))
    yield _specimen("largest-progressive.jpg", encoded(flat, "JPEG", quality=50, progressive=True), good)
    yield _specimen("largest.gif", encoded(Image.new("P", (side, side), 1), "GIF"), good)


def sizes() -> Iterator[Specimen]:
    for make in (_png_sizes, _jpeg_sizes, _gif_sizes, _bmp_sizes, _webp_sizes, _png_lengths, _real_sides, _largest):
        yield from make()


def _specimen(name: str, body: bytes, allowed: frozenset[str]) -> Specimen:
    return Specimen(family="size", name=f"size-{name}", body=body, allowed=allowed)
