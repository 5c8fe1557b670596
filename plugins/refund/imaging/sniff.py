"""Tells an image's format from its first bytes, never from its name, without calling any decoder."""

from __future__ import annotations

from refund.errors import ReasonCode, RejectedPhotoError

SUPPORTED_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
)
_BMP_HEADER_BYTES = frozenset({12, 16, 40, 52, 56, 64, 108, 124})  # "BM" alone also begins ordinary text

_FOREIGN_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"%PDF-", "PDF"),
    (b"%!PS", "PostScript"),
    (b"8BPS", "Photoshop"),
    (b"\0\0\1\0", "ICO"),
    (b"\0\0\2\0", "CUR"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"gimp xcf", "GIMP"),
    (b"DDS ", "DDS"),
    (b"qoif", "QOI"),
    (b"icns", "ICNS"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"\x8aMNG\r\n\x1a\n", "MNG"),
    (b"FUJIFILMCCD-RAW", "camera raw"),
    *((b"P%d%c" % (kind, space), "PNM") for kind in range(1, 8) for space in b" \n\r\t"),
)
_ISO_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"), "HEIC"),
    b"crx ": "camera raw",
}
_SVG_SEARCH_BYTES = 1024  # an XML declaration, a doctype and comments may come before <svg


def sniff_format(body: bytes) -> str:
    """Name the format of an image that this package decodes: one of `SUPPORTED_FORMATS`.

    Raises:
        RejectedPhotoError: the file is empty, an image or document of another format, or not an image at all.
    """
    if not body:
        detail = "the file has 0 bytes, expected an image"
        raise RejectedPhotoError(ReasonCode.EMPTY_FILE, detail)
    for signature, name in _SIGNATURES:
        if body.startswith(signature):
            return name
    if body[:4] == b"RIFF" and body[8:12] == b"WEBP":
        return "WEBP"
    if body[:2] == b"BM" and len(body) >= 18 and int.from_bytes(body[14:18], "little") in _BMP_HEADER_BYTES:
        return "BMP"
    if foreign := _foreign_format(body):
        detail = f"the file is {foreign}, expected one of {', '.join(SUPPORTED_FORMATS)}"
        raise RejectedPhotoError(ReasonCode.UNSUPPORTED_FORMAT, detail)
    detail = f"the file begins with {body[:8]!r}, which no image does; expected one of {', '.join(SUPPORTED_FORMATS)}"
    raise RejectedPhotoError(ReasonCode.NOT_AN_IMAGE, detail)


def _foreign_format(body: bytes) -> str | None:
    for signature, name in _FOREIGN_SIGNATURES:
        if body.startswith(signature):
            return name
    if body[4:8] == b"ftyp":
        return _ISO_BRANDS.get(body[8:12])
    head = body[:_SVG_SEARCH_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip()
    return "SVG" if head.startswith(b"<") and b"<svg" in head else None


def ends_early(body: bytes, image_format: str) -> bool:
    """Whether the container says that it is longer than ``body``; asked only of photos that failed to decode."""
    if image_format == "WEBP":
        return int.from_bytes(body[4:8], "little") + 8 > len(body)
    if image_format == "PNG":
        return _png_ends_early(body)
    if image_format == "BMP":
        return int.from_bytes(body[2:6], "little") > len(body)
    if image_format == "JPEG":
        return b"\xff\xd9" not in body[2:]
    return len(body) < 13  # GIF: header and screen descriptor; a cut later on is told by the decoder


def _png_ends_early(body: bytes) -> bool:
    if len(body) >= 16 and body[8:16] != b"\0\0\0\x0dIHDR":
        return False  # garbage after the signature
    offset = 8
    while offset + 8 <= len(body):
        if body[offset + 4 : offset + 8] == b"IEND":
            return False
        if not body[offset + 4 : offset + 8].isalpha():
            return False  # no chunk: the file is broken, not short
        offset += 12 + int.from_bytes(body[offset : offset + 4], "big")
    return True


def bmp_runs_fit(body: bytes) -> bool:
    """Whether the runs of a run-length encoded BMP stay inside the picture; Pillow draws noise if they do not."""
    if len(body) < 54 or body[14] < 40 or body[30:34] not in (b"\1\0\0\0", b"\2\0\0\0"):
        return True  # not run-length encoded
    per_byte = body[30]  # pixels in a byte: 1 in RLE8, 2 in RLE4
    width = int.from_bytes(body[18:22], "little")
    height = abs(int.from_bytes(body[22:26], "little", signed=True))
    at, x, y = int.from_bytes(body[10:14], "little"), 0, 0
    while at + 1 < len(body):
        count, value = body[at], body[at + 1]
        at += 2
        if count == 0 and value == 0:  # end of line
            x, y = 0, y + 1
        elif count == 0 and value == 1:  # end of picture
            return True
        elif count == 0 and value == 2:  # move
            x, y = x + body[at] if at < len(body) else x, y + body[at + 1] if at + 1 < len(body) else y
            at += 2
        else:
            x += count or value
            if count == 0:  # pixels as they are, padded to two bytes
                at += (-(-value // per_byte) + 1) // 2 * 2
            if y >= height:
                return False
        if x > width:
            return False
    return True
