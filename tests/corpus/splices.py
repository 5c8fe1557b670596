"""Files of two natures: the head of one before the body of another, and polyglots that other programs read too."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Iterator
from functools import cache
from itertools import product

from tests.corpus.bases import bases, chunk, format_of, riff_chunk
from tests.corpus.specimen import ACCEPTED, ANY, BROKEN, FOREIGN, NO_IMAGE, SEED, Specimen

_SOURCES = (
    "baseline.jpg",
    "progressive.jpg",
    "colour.png",
    "palette.png",
    "animated.gif",
    "palette.bmp",
    "lossy.webp",
    "animated.webp",
)
_SCRIPT = b"<script>fetch('http://127.0.0.1/')</script>"
_PDF = b"%PDF-1.7\n1 0 obj<</Type/Catalog/OpenAction 2 0 R>>endobj\n%%EOF\n"


def splices() -> Iterator[Specimen]:
    for first, second in product(_SOURCES, repeat=2):
        head, tail = bases()[first], bases()[second]
        rng = random.Random(f"{SEED} splice {first} {second}")
        for cut in (18, 30, 64, rng.randrange(64, len(head))):
            for start in (0, rng.randrange(20, len(tail))):
                if first != second or start:
                    yield _splice(
                        f"{first}-{cut}-then-{start}-{second}",
                        head[:cut] + tail[start:],
                        ANY - {"empty_file", NO_IMAGE, FOREIGN},
                    )
    yield from _scans()
    yield from _signatures()


def _scans() -> Iterator[Specimen]:
    """The tables of one JPEG before the scan of another."""
    names = [name for name in bases() if format_of(name) == "JPEG"]
    for first, second in product(names, repeat=2):
        if first != second:
            head, scan = bases()[first], bases()[second]
            body = head[: head.index(b"\xff\xda")] + scan[scan.index(b"\xff\xda") :]
            yield _splice(f"tables-of-{first}-scan-of-{second}", body, BROKEN | {ACCEPTED})


def _signatures() -> Iterator[Specimen]:
    """The signature alone of one format before the whole of another."""
    for first, second in product(_SOURCES, repeat=2):
        if format_of(first) != format_of(second):
            for count in (3, 8, 12):
                body = bases()[first][:count] + bases()[second]
                allowed = ANY - {"empty_file"}
                yield _splice(f"{count}-bytes-of-{first}-before-{second}", body, allowed)


def _splice(name: str, body: bytes, allowed: frozenset[str]) -> Specimen:
    return Specimen(family="splice", name=f"splice-{name}", body=body, allowed=allowed)


@cache
def _archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(zipfile.ZipInfo("evil.class"), b"\xca\xfe\xba\xbe" * 8)
    return stream.getvalue()


def polyglots() -> Iterator[Specimen]:
    for source, body in bases().items():
        for name, tail in (
            ("zip", _archive()),
            ("html", _SCRIPT),
            ("pdf", _PDF),
            ("php", b"<?php system($_GET['c']); ?>"),
        ):
            # what comes after the end of a picture is not the picture's
            yield _polyglot(
                f"{source.replace('.', '-')}-and-{name}.{source.rpartition('.')[2]}",
                body + tail,
                {ACCEPTED},
                same_as=body,
            )
        for name, head in (("pdf", _PDF), ("postscript", b"%!PS-Adobe-3.0 EPSF-3.0\n")):
            yield _polyglot(f"{name}-and-{source}", head + body, {FOREIGN})
        for name, head in (
            ("zip", _archive()),
            ("html", b"<!DOCTYPE html>" + _SCRIPT),
            ("elf", b"\x7fELF\2\1\1" + bytes(9)),
        ):
            yield _polyglot(f"{name}-and-{source}", head + body, {NO_IMAGE})
    jpeg, gif, image, webp = (bases()[name] for name in ("baseline.jpg", "still.gif", "colour.png", "turned.webp"))
    for name, payload in (
        ("html", _SCRIPT),
        ("zip", _archive()),
        ("pdf", _PDF),
        ("gif", gif),
        ("shell", b"#!/bin/sh\nid\n" * 40),
    ):
        comment = b"\xff\xfe" + (len(payload) + 2).to_bytes(2, "big") + payload
        yield _polyglot(f"{name}-in-comment.jpg", jpeg[:2] + comment + jpeg[2:], {ACCEPTED}, same_as=jpeg)
        text = chunk(b"tEXt", b"Comment\0" + payload)
        yield _polyglot(f"{name}-in-text.png", image[:33] + text + image[33:], {ACCEPTED}, same_as=image)
        yield _polyglot(
            f"{name}-in-chunk.png", image[:33] + chunk(b"evIl", payload) + image[33:], {ACCEPTED}, same_as=image
        )
        blocks = b"".join(
            bytes([len(part)]) + part for part in (payload[at : at + 255] for at in range(0, len(payload), 255))
        )
        at = gif.index(b"\x2c\0\0\0\0")
        yield _polyglot(
            f"{name}-in-comment.gif", gif[:at] + b"!\xfe" + blocks + b"\0" + gif[at:], {ACCEPTED}, same_as=gif
        )
        size = (len(webp) - 8 + len(riff_chunk(b"XMP ", payload))).to_bytes(4, "little")
        grown = webp[:4] + size + webp[8:] + riff_chunk(b"XMP ", payload)
        yield _polyglot(f"{name}-in-xmp.webp", grown, {ACCEPTED}, same_as=webp)
    # GIF89a=1;… is also JavaScript: the screen's sides spell its first characters
    yield _polyglot("javascript.gif", gif[:6] + b"=1;/*" + gif[11:] + b"*/alert(1)", ANY - {NO_IMAGE, FOREIGN})
    header = bytearray(bases()["colour.bmp"])
    header[6:10] = b"=1;/"  # the reserved fields
    yield _polyglot("javascript.bmp", bytes(header) + b"*/alert(1)", {ACCEPTED}, same_as=bases()["colour.bmp"])


def _polyglot(name: str, body: bytes, allowed: set[str] | frozenset[str], *, same_as: bytes | None = None) -> Specimen:
    return Specimen(family="polyglot", name=f"polyglot-{name}", body=body, allowed=frozenset(allowed), same_as=same_as)
