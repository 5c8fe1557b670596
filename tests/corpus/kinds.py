"""Rare kinds of the five formats: some are pictures like any other, some nobody reads, some contradict themselves."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.corpus.bases import HEIGHT, WIDTH, bases, bmp, chunk, encoded, png, riff, riff_chunk, rle_bmp, rows_of, scene
from tests.corpus.specimen import ACCEPTED, BROKEN, LARGE, SMALL, Specimen

GOOD = frozenset({ACCEPTED})


def _jpegs() -> Iterator[Specimen]:
    image, plain = scene(), bases()["baseline.jpg"]
    for quality in (1, 30, 75, 100):
        for subsampling in (0, 1, 2):
            for progressive in (False, True):
                options: dict[str, Any] = {"quality": quality, "subsampling": subsampling, "progressive": progressive}
                yield _kind(f"q{quality}-s{subsampling}-p{progressive:d}.jpg", encoded(image, "JPEG", **options), GOOD)
    for mode in ("L", "CMYK"):
        for progressive in (False, True):
            body = encoded(image.convert(mode), "JPEG", progressive=progressive)
            yield _kind(f"{mode.lower()}-p{progressive:d}.jpg", body, GOOD)
    cmyk = bases()["cmyk.jpg"]
    at = cmyk.index(b"Adobe") + 11
    for transform in range(4):  # 2: YCCK
        yield _kind(f"adobe-{transform}.jpg", cmyk[:at] + bytes([transform]) + cmyk[at + 1 :], GOOD | BROKEN)
    frame = plain.index(b"\xff\xc0")
    for marker in (*range(0xC1, 0xD0), 0xF7):  # arithmetic-coded, lossless, differential, hierarchical, JPEG-LS
        if marker not in (0xC4, 0xC8, 0xCC):
            yield _kind(f"sof-{marker:x}.jpg", plain[: frame + 1] + bytes([marker]) + plain[frame + 2 :], GOOD | BROKEN)
    for bits in (0, 1, 2, 7, 9, 12, 16, 255):
        yield _kind(f"{bits}-bits.jpg", plain[: frame + 4] + bytes([bits]) + plain[frame + 5 :], BROKEN)
    for count in (0, 2, 4, 5, 255):
        yield _kind(f"{count}-components.jpg", plain[: frame + 9] + bytes([count]) + plain[frame + 10 :], BROKEN)
    for factors in (0x00, 0x01, 0x10, 0x12, 0x14, 0x33, 0x44, 0x55, 0xFF):
        yield _kind(
            f"sampling-{factors:02x}.jpg", plain[: frame + 11] + bytes([factors]) + plain[frame + 12 :], GOOD | BROKEN
        )
    for marker, name in (
        (b"\xff\xdb", "quantisation"),
        (b"\xff\xc4", "huffman"),
        (b"\xff\xc0", "frame"),
        (b"\xff\xda", "scan"),
    ):
        at = plain.index(marker)
        end = at + 2 + int.from_bytes(plain[at + 2 : at + 4], "big")
        yield _kind(f"without-{name}.jpg", plain[:at] + plain[end:], GOOD | BROKEN)
        yield _kind(f"twice-{name}.jpg", plain[:end] + plain[at:], GOOD | BROKEN)
        yield _kind(f"length-0-{name}.jpg", plain[: at + 2] + b"\0\0" + plain[at + 4 :], GOOD | BROKEN)
        yield _kind(f"length-65535-{name}.jpg", plain[: at + 2] + b"\xff\xff" + plain[at + 4 :], GOOD | BROKEN)
    yield from _closed_early()


def _closed_early() -> Iterator[Specimen]:
    """A cut JPEG with an end put behind the cut: libjpeg fills the rest with grey and says nothing."""
    large = encoded(scene(256, 192), "JPEG", quality=85)
    for source, body in (
        *((name, bases()[name]) for name in ("baseline.jpg", "grey.jpg", "full-colour.jpg")),
        ("large.jpg", large),
    ):
        start = body.index(b"\xff\xda") + 14
        for share in (0.0, 0.1, 0.25, 0.5, 0.75, 0.9):
            cut = start + int((len(body) - start) * share)
            while body[cut - 1] == 0xFF:
                cut += 1
            yield Specimen(
                family="kind", name=f"kind-closed-at-{cut}-{source}", body=body[:cut] + b"\xff\xd9", allowed=BROKEN
            )


def _pngs() -> Iterator[Specimen]:
    pixels = np.asarray(scene())
    grey, indices = pixels[..., 0], (pixels[..., 0] // 64).astype(np.uint8)
    palette = chunk(b"PLTE", bytes(range(12)))
    for depth, colour, rows in (
        *(
            (1, 0, rows_of(np.packbits(grey > 127, axis=1))),
            (8, 0, rows_of(grey)),
            (16, 0, rows_of(grey.astype(">u2") * 257)),
        ),
        *((8, 2, rows_of(pixels)), (16, 2, rows_of(pixels.astype(">u2") * 257))),
        *((8, 4, rows_of(pixels[..., :2])), (16, 4, rows_of(pixels[..., :2].astype(">u2") * 257))),
        *((8, 6, rows_of(np.dstack([pixels, grey]))), (16, 6, rows_of(np.dstack([pixels, grey]).astype(">u2") * 257))),
    ):
        yield _kind(
            f"depth-{depth}-colour-{colour}.png", png(WIDTH, HEIGHT, depth=depth, colour=colour, rows=rows), GOOD
        )
        for count in (0, 1, 2, 5, 6, 7, 300):
            body = png(WIDTH, HEIGHT, depth=depth, colour=colour, rows=rows, before=chunk(b"tRNS", b"\1" * count))
            yield _kind(f"depth-{depth}-colour-{colour}-trns-{count}.png", body, GOOD | BROKEN)
    for count in (0, 1, 3, 4, 5, 255, 256, 257, 5000):
        body = png(WIDTH, HEIGHT, colour=3, rows=rows_of(indices), before=palette + chunk(b"tRNS", b"\x80" * count))
        yield _kind(f"palette-trns-{count}.png", body, GOOD | BROKEN)
    for count in (0, 1, 2, 3, 4, 768, 771, 5000):
        body = png(WIDTH, HEIGHT, colour=3, rows=rows_of(indices), before=chunk(b"PLTE", b"\x40" * count))
        yield _kind(f"palette-of-{count}.png", body, GOOD | BROKEN)
    yield _kind("no-palette.png", png(WIDTH, HEIGHT, colour=3, rows=rows_of(indices)), GOOD | BROKEN)
    for depth, colour in ((0, 2), (3, 0), (4, 2), (16, 3), (32, 0), (8, 1), (8, 5), (8, 7), (8, 255)):
        yield _kind(
            f"depth-{depth}-colour-{colour}-unknown.png",
            png(64, 48, depth=depth, colour=colour, rows=bytes(99)),
            BROKEN,
        )
    for interlace in (2, 255):
        yield _kind(
            f"interlace-{interlace}.png", png(WIDTH, HEIGHT, rows=rows_of(pixels), interlace=interlace), GOOD | BROKEN
        )
    for value in (1, 5, 9, 255):
        yield _kind(f"filter-{value}.png", png(WIDTH, HEIGHT, rows=bytes([value]) + rows_of(pixels)[1:]), GOOD | BROKEN)
    body = bases()["colour.png"]
    at, end = body.index(b"IDAT") - 4, len(body) - 12
    pixels_chunk = body[at:end]
    content = pixels_chunk[8:-4]
    shreds = b"".join(chunk(b"IDAT", content[number : number + 1]) for number in range(len(content)))
    yield _kind("shreds.png", body[:at] + shreds + body[end:], GOOD)
    yield _kind("empty-pieces.png", body[:at] + chunk(b"IDAT", b"") * 3000 + body[at:], GOOD | BROKEN)
    yield _kind("no-pixels.png", body[:at] + body[end:], BROKEN)
    yield _kind("pixels-twice.png", body[:end] + pixels_chunk + body[end:], GOOD | BROKEN)
    yield _kind("two-headers.png", body[:33] + body[8:], GOOD | BROKEN | {LARGE, SMALL})
    yield _kind("end-first.png", body[:33] + body[end:] + body[33:end], BROKEN)
    yield _kind("too-few-rows.png", png(WIDTH, HEIGHT, rows=rows_of(pixels)[:-500]), BROKEN)
    yield _kind("too-many-rows.png", png(WIDTH, HEIGHT, rows=rows_of(pixels) * 3), GOOD | BROKEN)
    yield _kind("bomb-in-pixels.png", png(WIDTH, HEIGHT, rows=bytes(20_000_000)), GOOD | BROKEN)
    yield _kind("unknown-critical.png", body[:33] + chunk(b"EVIL", b"!" * 10) + body[33:], GOOD | BROKEN)


def _bmps() -> Iterator[Specimen]:
    for bits in (8, 4):
        for name, runs, allowed in (
            ("past-the-row", b"\xff\7" * 400 + b"\0\1", BROKEN),
            ("past-the-picture", (b"\x40\7\0\0") * 200 + b"\0\1", BROKEN),
            ("moved-away", b"\0\2\xff\xff" * 50 + b"\x40\7\0\1", BROKEN),
            ("no-end", (b"\x40\7\0\0") * HEIGHT, GOOD | BROKEN),
            ("nothing", b"", BROKEN),
            ("end-at-once", b"\0\1", GOOD | BROKEN),
            ("raw-past-the-end", b"\0\xff" + bytes(20), BROKEN),
            ("half-a-move", b"\0\2\1", BROKEN),
            ("half-a-run", b"\x40", BROKEN),
        ):
            yield _kind(f"runs-{name}-{bits}.bmp", rle_bmp(runs, bits=bits), allowed)
    for bits in (0, 1, 2, 4, 8, 16, 24, 32, 48, 64, 65_535):
        for compression in (0, 1, 2, 3, 4, 5, 6, 11):
            body = bmp(
                WIDTH, HEIGHT, bytes(range(256)) * 60, bits=bits, compression=compression, colours=4 if bits <= 8 else 0
            )
            yield _kind(f"bits-{bits}-compression-{compression}.bmp", body, GOOD | BROKEN)
    old = (
        b"BM"
        + struct.pack("<IHHI", 26 + 192 * 48, 0, 0, 26)
        + struct.pack("<IHHHH", 12, 64, 48, 1, 24)
        + bytes(192 * 48)
    )
    yield _kind("os2.bmp", old, GOOD)


def _webps() -> Iterator[Specimen]:
    lossy, lossless = bases()["lossy.webp"], bases()["lossless.webp"]
    frame, small = riff_chunk(b"VP8 ", lossy[20:]), b"\x3f\0\0\x2f\0\0"
    for flags in (0, 1, 2, 4, 8, 16, 32, 0xFF):
        yield _kind(
            f"flags-{flags}.webp", riff(riff_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + small), frame), GOOD | BROKEN
        )
    for name, chunks in (
        ("no-picture", [riff_chunk(b"VP8X", bytes(4) + small)]),
        ("two-pictures", [frame, frame]),
        ("unknown-first", [riff_chunk(b"EVIL", b"!" * 9), frame]),
        ("alpha-missing", [riff_chunk(b"VP8X", b"\x10\0\0\0" + small), frame]),
        ("alpha-garbage", [riff_chunk(b"VP8X", b"\x10\0\0\0" + small), riff_chunk(b"ALPH", b"\1" * 9), frame]),
        ("lossless-named-lossy", [riff_chunk(b"VP8 ", lossless[20:])]),
        ("lossy-named-lossless", [riff_chunk(b"VP8L", lossy[20:])]),
        ("empty-chunk", [riff_chunk(b"VP8 ", b"")]),
    ):
        yield _kind(f"{name}.webp", riff(*chunks), GOOD | BROKEN)


def kinds() -> Iterator[Specimen]:
    for make in (_jpegs, _pngs, _bmps, _webps):
        yield from make()


def _kind(name: str, body: bytes, allowed: frozenset[str]) -> Specimen:
    return Specimen(family="kind", name=f"kind-{name}", body=body, allowed=allowed)
