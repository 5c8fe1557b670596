"""Files as phones and cameras write them, with thumbnails, second pictures, films and trailers: none is refused."""

from __future__ import annotations

import io
import random
import struct

import numpy as np
import pytest
from PIL import Image, MpoImagePlugin  # noqa: F401  (registers the writer of several pictures in one file)

from refund.errors import ReasonCode, RejectedPhotoError
from refund.imaging.decode import decode_rgb
from refund.imaging.structure import decodable
from refund.records import ImageLimits
from tests.corpus.bases import bases, chunk, encoded, exif, scene

LIMITS = ImageLimits()
SCAN, END = b"\xff\xda", b"\xff\xd9"
THUMBNAIL = encoded(scene(16, 12, seed=3), "JPEG")
# what looks like markers of a JPEG, an end of one last
MARKERS = b"\xff\xd8\xff\xe0\xff\xc2" + SCAN + END + random.Random(1).randbytes(5000) + SCAN + END
FILM = b"\0\0\0\x18ftypmp42\0\0\0\0isommp42" + struct.pack("!I", 8 + len(MARKERS)) + b"mdat" + MARKERS


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack("!H", len(content) + 2) + content


def with_thumbnail(body: bytes) -> bytes:
    """A thumbnail in IFD1 of the EXIF, as every camera writes it."""
    first = struct.pack("<HHHIII", 1, 0x0112, 3, 1, 1, 26)  # orientation 1; IFD1 follows at 26
    second = struct.pack("<HHHIIHHIII", 2, 0x0201, 4, 1, 56, 0x0202, 4, 1, len(THUMBNAIL), 0)
    return body[:2] + segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0" + first + second + THUMBNAIL) + body[2:]


def several(body: bytes, *others: bytes) -> bytes:
    """Several pictures one after the other, told of by an index (MPF), as from a dual camera or with a gain map."""
    stream = io.BytesIO()
    first, *rest = (Image.open(io.BytesIO(each)) for each in (body, *others))
    first.save(stream, "MPO", save_all=True, append_images=rest, quality="keep")
    return stream.getvalue()


def one_colour_a_scan() -> bytes:
    """A baseline JPEG of three scans, one for each colour; Pillow does not write it, so three grey ones are joined."""
    parts = [encoded(part, "JPEG", quality=80) for part in scene().convert("YCbCr").split()]
    frame = parts[0].index(b"\xff\xc0")
    head = bytearray(parts[0][:frame])
    told = parts[0][frame + 4 : frame + 9]  # precision, height, width
    scans = []
    for number, part in enumerate(parts, start=1):
        start = part.index(SCAN)
        scans.append(segment(0xDA, bytes((1, number, 0, 0, 63, 0))) + part[start + 10 : -2])
    tables = parts[0][frame + 2 + struct.unpack_from("!H", parts[0], frame + 2)[0] : parts[0].index(SCAN)]
    components = b"".join(bytes((number, 0x11, 0)) for number in (1, 2, 3))
    return bytes(head) + segment(0xC0, told + b"\3" + components) + tables + b"".join(scans) + END


def cameras() -> dict[str, bytes]:
    plain, progressive = bases()["baseline.jpg"], bases()["progressive.jpg"]
    profile = random.Random(2).randbytes(60_000) + MARKERS
    image = scene()
    return {
        "thumbnail": with_thumbnail(plain),
        "thumbnail and progressive": with_thumbnail(progressive),
        "maker's note": plain[:2] + segment(0xE4, MARKERS) + segment(0xED, b"Photoshop 3.0\0" + THUMBNAIL) + plain[2:],
        "profile in several segments": encoded(image, "JPEG", icc_profile=profile * 2),
        "fill bytes before markers": plain[:2] + b"\xff" * 7 + plain[2:],
        "progressive with restarts": encoded(image, "JPEG", progressive=True, restart_marker_blocks=4),
        "progressive CMYK": encoded(image.convert("CMYK"), "JPEG", progressive=True),
        "one colour a scan": one_colour_a_scan(),
        "two pictures": several(plain, bases()["full-colour.jpg"]),
        "two pictures, progressive first": several(progressive, plain),
        "second picture after zeros": plain + bytes(4000) + THUMBNAIL,
        "motion photo": with_thumbnail(plain) + FILM,
        "motion photo, progressive": with_thumbnail(progressive) + FILM,
        "motion photo with a trailer": with_thumbnail(plain) + FILM + b"SEFH" + bytes(32) + b"SEFT",
        "trailer with a picture": plain + b"\0\0\x31\x0a" + THUMBNAIL + b"SEFH\x65\0\0\0" + bytes(40) + b"SEFT",
    }


@pytest.mark.parametrize("name", cameras())
def test_a_camera_s_file_is_shown_as_it_is(name: str) -> None:
    body = cameras()[name]
    with Image.open(io.BytesIO(body)) as image:
        image.seek(0)
        expected = image.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR, reducing_gap=2.0)
    assert np.array_equal(decode_rgb(body, limits=LIMITS).pixels, np.asarray(expected))


@pytest.mark.parametrize("name", ["thumbnail", "maker's note", "profile in several segments", "one colour a scan"])
@pytest.mark.parametrize("share", [0.2, 0.6])
def test_and_truncated_where_it_is_cut(name: str, share: float) -> None:
    body = cameras()[name]
    start = body.rindex(SCAN)
    with pytest.raises(RejectedPhotoError) as caught:
        decode_rgb(body[: start + 14 + int((len(body) - start - 14) * share)], limits=LIMITS)
    assert caught.value.reason is ReasonCode.TRUNCATED


# --- PNG: what is left out before decoding changes nothing, what changes the picture stays --------------------------


@pytest.mark.parametrize("source", [name for name in bases() if name.endswith("png")])
def test_text_profiles_and_colour_hints_of_a_png_change_nothing(source: str) -> None:
    body = bases()[source]
    beside = chunk(b"gAMA", struct.pack("!I", 45_455)) + chunk(b"sRGB", b"\0") + chunk(b"tEXt", b"Title\0bag")
    beside += chunk(b"pHYs", struct.pack("!IIB", 2835, 2835, 1))
    found = decode_rgb(body[:33] + beside + body[33:], limits=LIMITS)
    assert np.array_equal(found.pixels, decode_rgb(body, limits=LIMITS).pixels)
    assert decodable(body[:33] + beside + body[33:], "PNG") == decodable(body, "PNG")


def test_transparency_and_orientation_of_a_png_stay() -> None:
    seen_through, hint = bases()["palette.png"], chunk(b"gAMA", struct.pack("!I", 45_455))
    assert b"tRNS" in decodable(seen_through[:33] + hint + seen_through[33:], "PNG")
    body = bases()["colour.png"]
    turned = decode_rgb(body[:33] + hint + chunk(b"eXIf", exif(6)[6:]) + body[33:], limits=LIMITS)
    assert (turned.width_px, turned.height_px) == (48, 64)


# --- what docs/corpus.md says cannot be told ------------------------------------------------------------------------


def test_what_the_page_says_cannot_be_told() -> None:
    plain, image = bases()["baseline.jpg"], bases()["colour.png"]
    start = plain.index(SCAN) + 14
    closed = plain[: start + (len(plain) - start) // 3].rstrip(b"\xff") + END
    with pytest.raises(RejectedPhotoError):
        decode_rgb(closed, limits=LIMITS)
    assert not np.array_equal(decode_rgb(closed + plain, limits=LIMITS).pixels, decode_rgb(plain, limits=LIMITS).pixels)
    told = chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>')
    found = decode_rgb(image[:33] + told + image[33:], limits=LIMITS)
    assert (found.width_px, found.height_px) == (64, 48)
