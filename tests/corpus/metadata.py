"""Pictures that are good and whose metadata are not: bombs, loops, and turns that do not exist."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from functools import cache

from tests.corpus.bases import bases, chunk, exif, riff_chunk
from tests.corpus.specimen import ACCEPTED, BROKEN, CORRUPT, Specimen

GOOD = frozenset({ACCEPTED})


@cache
def _bomb(size_bytes: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1_000_000)) for _ in range(size_bytes // 1_000_000)) + packer.flush()


def _png_bombs() -> Iterator[Specimen]:
    body = bases()["colour.png"]
    for size in (1_000_000, 2_000_000, 100_000_000):
        bomb = _bomb(size)
        for kind, content in (
            (b"zTXt", b"Comment\0\0" + bomb),
            (b"iTXt", b"Comment\0\1\0\0\0" + bomb),
            (b"iCCP", b"profile\0\0" + bomb),
        ):
            for at, place in ((33, "before"), (len(body) - 12, "after")):
                grown = body[:at] + chunk(kind, content) + body[at:]
                yield _metadata(f"{kind.decode()}-{size}-{place}.png", grown, GOOD, same_as=body)
    many = chunk(b"zTXt", b"Comment\0\0" + _bomb(1_000_000)) * 100
    yield _metadata("100-texts.png", body[:33] + many + body[33:], GOOD, same_as=body)
    yield _metadata(
        "long-text.png", body[:33] + chunk(b"tEXt", b"a\0" + bytes(3_000_000)) + body[33:], GOOD, same_as=body
    )
    yield _metadata("20000-texts.png", body[:33] + chunk(b"tEXt", b"a\0b") * 20_000 + body[33:], GOOD, same_as=body)
    for name, content in (
        ("empty", b""),
        ("no-end", b"Comment"),
        ("method", b"Comment\0\7x"),
        ("garbage", b"Comment\0\0!!"),
    ):
        for kind in (b"tEXt", b"zTXt", b"iTXt", b"iCCP"):
            grown = body[:33] + chunk(kind, content) + body[33:]
            yield _metadata(f"{kind.decode()}-{name}.png", grown, GOOD, same_as=body)
    for kind in (b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"tIME", b"eXIf", b"acTL", b"fcTL"):
        for content in (b"", b"\xff", b"\xff" * 26, bytes(40)):
            grown = body[:33] + chunk(kind, content) + body[33:]
            allowed = GOOD | {CORRUPT} if kind[1:] == b"cTL" else GOOD  # an animation's own chunks
            yield _metadata(f"{kind.decode()}-{len(content)}-{content[:1].hex()}.png", grown, allowed, same_as=body)


def _entry(tag: int, kind: int, count: int, value: int) -> bytes:
    return struct.pack("!HHII", tag, kind, count, value)


def _ifd(*entries: bytes, following: int = 0) -> bytes:
    return b"MM\0*\0\0\0\x08" + struct.pack("!H", len(entries)) + b"".join(entries) + struct.pack("!I", following)


_UPRIGHT = _entry(0x0112, 3, 1, 1 << 16)


def _strange_exif() -> Iterator[tuple[str, bytes]]:
    yield "loops", _ifd(_UPRIGHT, following=8)
    yield "points-at-itself", _ifd(_UPRIGHT, _entry(0x8769, 4, 1, 8), _entry(0x8825, 4, 1, 8), _entry(0xA005, 4, 1, 8))
    yield "counts-everything", _ifd(_entry(0x010F, 2, 2**32 - 1, 8), _entry(0x0110, 12, 2**32 - 1, 8), _UPRIGHT)
    yield "far-away", b"MM\0*\xff\xff\xff\xff"
    yield "negative", b"II*\0\xff\xff\xff\x7f"
    yield "short", b"MM\0*\0\0\0\x08\xff\xff"
    yield "no-order", b"XX\0*\0\0\0\x08\0\0"
    yield "only-a-name", b""
    yield "no-resolution", _ifd(_entry(0x011A, 5, 1, 26), _entry(0x0128, 3, 1, 2 << 16)) + struct.pack("!II", 1, 0)
    # each entry takes the whole block again: read in full, 65 kB become hundreds of megabytes
    size = 60_000
    yield "swells", _ifd(*[_entry(0x9000 + number, 7, size, 8) for number in range(4_900)]).ljust(size + 8, b"\0")


def _exifs() -> Iterator[Specimen]:
    for source in ("baseline.jpg", "colour.png", "lossy.webp"):
        body = bases()[source]
        for name, block in _strange_exif():
            yield _metadata(f"exif-{name}-{source}", with_exif(source, block), GOOD, same_as=body)
        for value in (0, 9, 255, 65_535):
            yield _metadata(f"orientation-{value}-{source}", with_exif(source, exif(value)[6:]), GOOD, same_as=body)
        for value in range(1, 9):
            same = body if value == 1 else None
            yield _metadata(f"orientation-{value}-{source}", with_exif(source, exif(value)[6:]), GOOD, same_as=same)
        for kind in (0, 1, 2, 4, 5, 7, 9, 12, 99, 65_535):
            block = _ifd(_entry(0x0112, kind, 1, 6))
            yield _metadata(f"orientation-of-type-{kind}-{source}", with_exif(source, block), GOOD)
    for source in ("colour.png", "lossy.webp"):  # no 64 kB limit here: 4 GB, if every entry is read
        size = 1_000_000
        block = _ifd(*[_entry(number, 7, size, 8) for number in range(4_000)]).ljust(size + 8, b"\0")
        yield _metadata(f"exif-swells-to-gigabytes-{source}", with_exif(source, block), GOOD, same_as=bases()[source])
    block = b"Exif\0\0" + _ifd(*[_entry(0x9000 + n, 7, 900_000, 8) for n in range(4_000)]).ljust(65_000, b"\0")
    jpeg = bases()["baseline.jpg"]
    start = 4 + int.from_bytes(jpeg[4:6], "big")  # without JFIF, so that the resolution is looked for in EXIF
    pieces = _segment(0xE1, block) + _segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 14
    yield _metadata("exif-in-pieces-swells-to-gigabytes.jpg", jpeg[:2] + pieces + jpeg[start:], GOOD, same_as=jpeg)


def with_exif(source: str, block: bytes) -> bytes:
    """The picture with a TIFF block as its EXIF."""
    body = bases()[source]
    if source.endswith("jpg"):
        return body[:2] + _segment(0xE1, b"Exif\0\0" + block) + body[2:]
    if source.endswith("png"):
        return body[:33] + chunk(b"eXIf", block) + body[33:]
    head = riff_chunk(b"VP8X", b"\x08\0\0\0" + (63).to_bytes(3, "little") + (47).to_bytes(3, "little"))
    content = b"WEBP" + head + riff_chunk(b"VP8 ", body[20:]) + riff_chunk(b"EXIF", block)
    return b"RIFF" + struct.pack("<I", len(content)) + content


def _segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack("!H", len(content) + 2) + content


def _jpeg_segments() -> Iterator[Specimen]:
    body = bases()["baseline.jpg"]
    for marker in (*range(0xE0, 0xF0), 0xFE):
        for name, content in (("empty", b""), ("zeros", bytes(60_000)), ("ones", b"\xff" * 60_000)):
            strange = body[:2] + _segment(marker, content) + body[2:]
            yield _metadata(f"segment-{marker:x}-{name}.jpg", strange, GOOD, same_as=body if marker != 0xEE else None)
    icc = b"".join(_segment(0xE2, b"ICC_PROFILE\0" + bytes((number, 255)) + bytes(9_000)) for number in range(1, 256))
    yield _metadata("profile-in-255-pieces.jpg", body[:2] + icc + body[2:], GOOD, same_as=body)
    photoshop = b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\xff\xff\xff\xff" * 2000
    yield _metadata("photoshop.jpg", body[:2] + _segment(0xED, photoshop) + body[2:], GOOD, same_as=body)
    for count in (0, 1, 2, 3, 65_535, 2**31):
        index = _ifd(_entry(0xB000, 7, 4, 0x30313030), _entry(0xB001, 4, 1, count), _entry(0xB002, 7, 16 * 3, 50))
        yield _metadata(
            f"{count}-pictures.jpg",
            body[:2] + _segment(0xE2, b"MPF\0" + index + bytes(64)) + body[2:] + body,
            GOOD,
            same_as=body,
        )
    xmp = b"http://ns.adobe.com/xap/1.0/\0" + b"<x>" * 20_000
    yield _metadata("nested-xmp.jpg", body[:2] + _segment(0xE1, xmp) + body[2:], GOOD, same_as=body)
    junk = b"junk" * 50_000
    yield _metadata("junk-between.jpg", body[:20] + junk + body[20:], GOOD, same_as=body)
    progressive = bases()["progressive.jpg"]
    at = progressive.index(b"\xff\xda")
    end = progressive.index(b"\xff", at + 14)
    for count in (400, 20_000):  # each scan costs a pass over the whole picture
        many = progressive[:at] + progressive[at:end] * count + b"\xff\xd9"
        yield _metadata(f"{count}-scans.jpg", many, frozenset({CORRUPT}) if count > 1000 else GOOD | BROKEN)


def _gif_blocks() -> Iterator[Specimen]:
    body = bases()["still.gif"]
    at = body.index(b"\x2c\0\0\0\0")
    for name, block in (
        ("long-comment", b"!\xfe" + (b"\xff" + b"c" * 255) * 8_000 + b"\0"),
        ("50000-comments", b"!\xfe\1c\0" * 50_000),
        ("100000-controls", b"!\xf9\4\0\0\0\0\0" * 50_000),
        ("application", b"!\xff\x0bNETSCAPE2.0\3\1\xff\xff\0" * 5_000),
        ("unknown-extensions", b"!\1\1x\0" * 20_000),
        ("junk", b"\1" * 100_000),
    ):
        yield _metadata(f"{name}.gif", body[:at] + block + body[at:], GOOD | BROKEN, same_as=body)


def metadata() -> Iterator[Specimen]:
    for make in (_png_bombs, _exifs, _jpeg_segments, _gif_blocks):
        yield from make()


def _metadata(name: str, body: bytes, allowed: frozenset[str], *, same_as: bytes | None = None) -> Specimen:
    return Specimen(family="metadata", name=f"metadata-{name}", body=body, allowed=allowed, same_as=same_as)
