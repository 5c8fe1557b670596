"""What a file's own structure says before a decoder sees it: whether it is whole, and whether it wastes our time.

Found by the corpus of hostile files (docs/corpus.md): Pillow shows each of these as a good picture, or takes longer
over it than a photo may take.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

from refund.errors import ReasonCode, RejectedPhotoError

_MOST_SCANS = 100  # of a progressive JPEG; encoders make about ten, each costs a pass over the whole picture
_MOST_JUNK_BYTES = 1_000_000  # before a JPEG's scan; read one by one
_MOST_SEGMENTS = 10_000  # of a JPEG, before its scan
_MOST_CHUNKS = 100_000  # of a PNG
# Text, profiles and colour hints of a PNG: nothing of it is used, and Pillow would unpack or refuse it.
_BESIDE_THE_PICTURE = frozenset({b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"gAMA", b"cHRM", b"sRGB", b"pHYs"})
_MARKER = re.compile(rb"\xff[\x01-\xfe]")
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xDA)})
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_SCAN = 0xDA
_END = b"\xff\xd9"
# Put where a JPEG ends: libjpeg reads 8 bytes ahead of what it needs, and these begin no marker.
_FILLER = b"\xfe" * 16


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scan:
    start: int  # offset of the first scan's marker
    in_parts: bool  # progressive, or not of all colours: more scans must follow


def decodable(body: bytes, image_format: str) -> bytes:
    """The bytes to give to the decoder: ``body``, but a JPEG of one scan without its end marker.

    libjpeg fills what is missing of a picture with grey and says nothing where an end marker follows; without the
    marker it says that it ran out of bytes. Checksums of a PNG's pixels, which Pillow reads past, are compared, and its
    text and profiles left out.

    Raises:
        RejectedPhotoError: ``corrupt`` or ``truncated``.
    """
    if image_format == "PNG":
        return _checked_png(body)
    if image_format == "JPEG" and (scan := _first_scan(body)) is not None:
        return _whole_scan(body, scan)
    return body


def webp_canvas(body: bytes) -> tuple[int, int] | None:
    """Width and height that an extended WEBP announces, None where it is not of that kind; the decoder allots them."""
    if body[12:16] != b"VP8X" or len(body) < 30:
        return None
    return int.from_bytes(body[24:27], "little") + 1, int.from_bytes(body[27:30], "little") + 1


def _whole_scan(body: bytes, scan: _Scan) -> bytes:
    if scan.in_parts:
        _check_scans(body, scan)
        return body
    # A search through megabytes costs as much as a tenth of decoding them; nearly every file ends with the marker. Else
    # it is the first one: what comes after it (a film, a second picture) may hold any bytes.
    end = len(body) - 2 if body.endswith(_END) else body.find(_END, scan.start)
    return body if end < 0 else b"".join((memoryview(body)[:end], _FILLER))  # one copy, where + makes two


def _check_scans(body: bytes, scan: _Scan) -> None:
    end = body.find(_END, scan.start)
    scans = body.count(b"\xff\xda", scan.start, len(body) if end < 0 else end)
    if scans > _MOST_SCANS:
        raise _corrupt(image_format="JPEG", said=f"it has {scans:,} scans, at most {_MOST_SCANS} are read")
    if scans == 1 and end >= 0:  # the rest of the picture is in those that are missing
        detail = (
            f"JPEG that ends at byte {end:,} of {len(body):,}, before the picture is complete (one scan of several)"
        )
        raise RejectedPhotoError(ReasonCode.TRUNCATED, detail, image_format="JPEG")


def _first_scan(body: bytes) -> _Scan | None:
    """Walk the segments before the first scan, over junk as Pillow does; None where there is no scan."""
    at, junk, segments, components, progressive = 2, 0, 0, 0, False
    while marker := _MARKER.search(body, at):
        junk += marker.start() - at
        segments += 1
        if junk > _MOST_JUNK_BYTES or segments > _MOST_SEGMENTS:
            break
        kind, at = body[marker.end() - 1], marker.end()
        if kind == _SCAN:
            in_parts = progressive or (at + 2 < len(body) and body[at + 2] < components)
            return _Scan(start=marker.start(), in_parts=in_parts)
        if kind in _FRAMES and at + 7 < len(body):
            progressive, components = kind in _PROGRESSIVE, body[at + 7]
        if kind not in _WITHOUT_LENGTH:
            at += int.from_bytes(body[at : at + 2], "big")
    if marker is None:
        junk += len(body) - at  # all of it is before a scan that never comes
    if junk > _MOST_JUNK_BYTES or segments > _MOST_SEGMENTS:
        seen = f"{segments:,} segments and {junk:,} bytes between them"
        raise _corrupt(
            image_format="JPEG",
            said=f"it has {seen} before its picture, at most {_MOST_SEGMENTS:,} and {_MOST_JUNK_BYTES:,}",
        )
    return None


def _checked_png(body: bytes) -> bytes:
    """Without the chunks of `_BESIDE_THE_PICTURE`, whatever is in them: a bomb or a fault there costs no photo."""
    at, count, taken = 8, 0, 0
    view = memoryview(body)
    kept = []
    while at + 12 <= len(body):
        end = at + 8 + int.from_bytes(body[at : at + 4], "big")
        kind = body[at + 4 : at + 8]
        whole = end + 4 <= len(body)
        if whole and kind == b"IDAT":
            said, found = int.from_bytes(body[end : end + 4], "big"), zlib.crc32(view[at + 4 : end])
            if said != found:
                seen = f"the checksum of the pixels at byte {at:,} is {said:08x}, they have {found:08x}"
                raise _corrupt(image_format="PNG", said=seen)
        elif whole and kind in _BESIDE_THE_PICTURE:
            kept.append(view[taken:at])
            taken = end + 4
        count += 1
        if count > _MOST_CHUNKS:
            raise _corrupt(image_format="PNG", said=f"it has more than {_MOST_CHUNKS:,} chunks")
        if kind == b"IEND":
            break
        at = end + 4
    return b"".join([*kept, view[taken:]]) if kept else body


def _corrupt(*, image_format: str, said: str) -> RejectedPhotoError:
    detail = f"{image_format} by its first bytes, but it cannot be decoded ({said}); expected a readable picture"
    return RejectedPhotoError(ReasonCode.CORRUPT, detail, image_format=image_format)
