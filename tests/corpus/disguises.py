"""Files whose names lie, and formats that Pillow reads and a night must not, under names of photographs."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tests.corpus.bases import bases, encoded, format_of, scene
from tests.corpus.specimen import ACCEPTED, FOREIGN, NO_IMAGE, Specimen

_WRITTEN = ("TIFF", "ICO", "JPEG2000", "AVIF", "PDF", "PPM", "DDS", "EPS", "ICNS")  # by Pillow itself
_NO_SIGNATURE = ("TGA", "PCX", "SGI", "MSP", "XBM", "SPIDER")  # Pillow writes them; they are no photo's format
_GHOSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n(%pipe%touch /tmp/owned) (r) file pop\nshowpage\n"
_FITS = b"".join(
    card.ljust(80)
    for card in (
        b"SIMPLE  =                    T",
        b"BITPIX  =                    8",
        b"NAXIS   =                    2",
        b"NAXIS1  =                   64",
        b"NAXIS2  =                   48",
        b"END",
    )
).ljust(2880) + bytes(5760)
_XPM = b'/* XPM */\nstatic char *x[] = {\n"2 2 2 1",\n"a c #000000",\n"b c #ffffff",\n"ab",\n"ba"\n};\n'
_ENTITIES = b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a SYSTEM "file:///etc/passwd">]><svg xmlns="http://www.w3.org/2000/svg"><text>&a;</text></svg>'
_HAND_MADE = {
    "ghostscript": (_GHOSTSCRIPT, FOREIGN),
    "dos-eps": (
        struct.pack("<IIIIIIIH", 0xC6D3D0C5, 32, len(_GHOSTSCRIPT), 0, 0, 0, 0, 0xFFFF) + _GHOSTSCRIPT,
        NO_IMAGE,
    ),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>', FOREIGN),
    "svg-entities": (_ENTITIES, FOREIGN),
    "html": (b"<!DOCTYPE html><html><script>alert(1)</script></html>", NO_IMAGE),
    "fits": (_FITS, NO_IMAGE),
    "xpm": (_XPM, NO_IMAGE),
    "psd": (b"8BPS\0\1" + bytes(6) + struct.pack("!HIIHH", 3, 48, 64, 8, 3) + bytes(20), FOREIGN),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64), FOREIGN),
    "big-tiff": (b"II+\0\x08\0\0\0\x10" + bytes(64), FOREIGN),
    "camera-raw": (b"II*\0\x10\0\0\0CR\2\0" + bytes(64), FOREIGN),
    "jxl": (b"\xff\x0a" + bytes(64), FOREIGN),
    "mng": (b"\x8aMNG\r\n\x1a\n" + bytes(64), FOREIGN),
    "wmf": (b"\xd7\xcd\xc6\x9a" + bytes(64), NO_IMAGE),
    "flic": (struct.pack("<IHHHH", 200, 0xAF12, 1, 64, 48) + bytes(180), NO_IMAGE),
    "mpeg": (b"\0\0\1\xb3\x04\0\x30" + bytes(64), NO_IMAGE),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(64), NO_IMAGE),
    "grib": (b"GRIB" + bytes(64), NO_IMAGE),
    "zip": (b"PK\3\4" + bytes(64), NO_IMAGE),
    "text": (b"BMW sells cars; this is text.\n" * 9, NO_IMAGE),
    "zeros": (bytes(4096), NO_IMAGE),
    "ones": (b"\xff" * 4096, NO_IMAGE),
    "exe": (b"MZ\x90\0" + bytes(512), NO_IMAGE),
    "pickle": (b"\x80\4\x95\x1a\0\0\0\0\0\0\0\x8c\5posix\x94\x8c\6system\x94\x93\x94.", NO_IMAGE),
}
_SUFFIXES = ("jpg", "png", "gif", "bmp", "webp")


def disguises() -> Iterator[Specimen]:
    for source, body in bases().items():
        for suffix in (*_SUFFIXES, "JPG", "tiff", "exe", "jpg.php"):
            if suffix not in source:
                yield _disguise(f"{source.replace('.', '-')}.{suffix}", body, {ACCEPTED}, same_as=body)
    for image_format in _WRITTEN:
        body = encoded(scene(), image_format)
        for suffix in _SUFFIXES:
            yield _disguise(f"{image_format.lower()}.{suffix}", body, {FOREIGN})
    for image_format in _NO_SIGNATURE:
        image = scene().convert({"MSP": "1", "XBM": "1", "SPIDER": "F"}.get(image_format, "RGB"))
        body = encoded(image, image_format)
        for suffix in _SUFFIXES:
            yield _disguise(f"{image_format.lower()}.{suffix}", body, {NO_IMAGE, FOREIGN})
    for name, (body, verdict) in _HAND_MADE.items():
        for suffix in _SUFFIXES:
            yield _disguise(f"{name}.{suffix}", body, {verdict})
    yield _disguise("nothing.jpg", b"", {"empty_file"})
    assert {format_of(f"a.{suffix}") for suffix in _SUFFIXES} == {"JPEG", "PNG", "GIF", "BMP", "WEBP"}


def _disguise(name: str, body: bytes, allowed: set[str], *, same_as: bytes | None = None) -> Specimen:
    return Specimen(family="disguise", name=f"disguise-{name}", body=body, allowed=frozenset(allowed), same_as=same_as)
