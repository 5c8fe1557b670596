"""What Pillow alone would accept, or take minutes over, and we refuse; found by the corpus of hostile files."""

from __future__ import annotations

import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from refund.errors import ReasonCode, RejectedPhotoError
from refund.imaging.decode import decode_rgb
from refund.imaging.structure import decodable, webp_canvas
from refund.records import ImageLimits
from tests.corpus.bases import bases, chunk, riff, riff_chunk

LIMITS = ImageLimits()
PLAIN = "baseline.jpg"


def rejection(body: bytes) -> RejectedPhotoError:
    with pytest.raises(RejectedPhotoError) as caught:
        decode_rgb(body, limits=LIMITS)
    return caught.value


def pixels(body: bytes) -> np.ndarray:
    return decode_rgb(body, limits=LIMITS).pixels


def cut_and_closed(body: bytes, share: float) -> bytes:
    start = body.index(b"\xff\xda") + 14
    cut = body[: start + int((len(body) - start) * share)].rstrip(b"\xff")
    return cut + b"\xff\xd9"


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("source", [PLAIN, "grey.jpg", "cmyk.jpg", "full-colour.jpg", "restarts.jpg"])
def test_a_jpeg_that_is_cut_and_closed_is_truncated_not_half_grey(source, share):
    error = rejection(cut_and_closed(bases()[source], share))
    assert (error.reason, error.width_px, error.height_px) == (ReasonCode.TRUNCATED, 64, 48)
    assert "before the picture is complete" in error.detail


def test_pillow_alone_would_show_the_half_grey_picture():
    """The reason for all this; when it fails, Pillow has begun to tell, and the filler may go."""
    import io

    with Image.open(io.BytesIO(cut_and_closed(bases()[PLAIN], 0.3))) as image:
        image.load()
        assert image.size == (64, 48)


def test_a_progressive_jpeg_of_one_scan_is_truncated():
    body = bases()["progressive.jpg"]
    second = body.index(b"\xff\xc4", body.index(b"\xff\xda"))
    error = rejection(body[:second] + b"\xff\xd9")
    assert error.reason is ReasonCode.TRUNCATED
    assert error.detail.endswith("before the picture is complete (one scan of several)")


@pytest.mark.parametrize("tail", [b"", b"\0" * 100, b"film\xff\xda\xff\xd9film"])
@pytest.mark.parametrize("source", [name for name in bases() if name.endswith("jpg")])
def test_a_whole_jpeg_is_read_as_it_is_whatever_follows(source, tail):
    import io

    body = bases()[source]
    with Image.open(io.BytesIO(body)) as image:
        full = image.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR, reducing_gap=2.0)
    if source == "turned.jpg":
        full = full.transpose(Image.Transpose.ROTATE_270)
    assert np.abs(pixels(body + tail).astype(int) - np.asarray(full)).mean() < (6 if source == "turned.jpg" else 0.01)


def test_too_many_scans_are_refused_before_decoding():
    body = bases()["progressive.jpg"]
    last = body[body.rindex(b"\xff\xda") : -2]
    assert pixels(body[:-2] + last * 50 + b"\xff\xd9").shape == (224, 224, 3)
    error = rejection(body[:-2] + last * 200 + b"\xff\xd9")
    assert error.reason is ReasonCode.CORRUPT
    assert "scans, at most 100 are read" in error.detail


@pytest.mark.parametrize("junk", [b"\xff" * 1_000_001, b"a" * 1_000_001, b"\xff\xfe\0\2" * 10_001])
def test_much_before_the_scan_is_refused_before_decoding(junk):
    body = bases()[PLAIN]
    error = rejection(body[:20] + junk + body[20:])
    assert error.reason is ReasonCode.CORRUPT
    assert "before its picture, at most 10,000 and 1,000,000" in error.detail
    assert rejection(body[:20] + junk).reason is ReasonCode.CORRUPT  # also where the scan never comes


def test_a_little_junk_before_the_scan_is_passed_over():
    body = bases()[PLAIN]
    assert np.array_equal(pixels(body[:20] + b"junk" * 500 + b"\xff" * 500 + body[20:]), pixels(body))


@pytest.mark.parametrize("source", [name for name in bases() if name.endswith("png")])
def test_a_png_whose_pixels_were_changed_is_corrupt(source):
    body = bytearray(bases()[source])
    at = body.index(b"IDAT")
    body[at + 4 + int.from_bytes(body[at - 4 : at], "big") // 2] ^= 1
    error = rejection(bytes(body))
    assert error.reason is ReasonCode.CORRUPT
    said = zlib.crc32(bytes(bases()[source])[at : at + 4 + int.from_bytes(body[at - 4 : at], "big")])
    assert f"the checksum of the pixels at byte {at - 4} is {said:08x}, they have " in error.detail


def test_a_png_of_too_many_chunks_is_refused_before_decoding():
    body = bases()["colour.png"]
    error = rejection(body[:33] + chunk(b"evIl", b"") * 100_001 + body[33:])
    assert error.reason is ReasonCode.CORRUPT
    assert "it has more than 100,000 chunks" in error.detail


def test_the_canvas_of_a_webp_is_checked_before_the_decoder_allots_it(monkeypatch):
    from PIL import WebPImagePlugin

    opened = []
    monkeypatch.setattr(WebPImagePlugin.WebPImageFile, "_open", opened.append)
    canvas = riff_chunk(b"VP8X", b"\2\0\0\0" + b"\x00\x10\0" + b"\x00\x10\0")
    error = rejection(riff(canvas, riff_chunk(b"ANIM", bytes(6))))
    assert (error.reason, error.width_px, error.height_px) == (ReasonCode.TOO_LARGE, 4097, 4097)
    assert not opened
    assert webp_canvas(bases()["lossy.webp"]) is None


@pytest.mark.parametrize(
    "body", [b"\xff\xd8\xff", b"\xff\xd8\xff\xc0", b"\xff\xd8\xff\xda", b"\xff\xd8\xff\xe0\xff\xff"]
)
def test_stumps_of_a_jpeg_are_left_to_the_decoder(body):
    assert decodable(body, "JPEG") == body
    assert rejection(body).reason is ReasonCode.TRUNCATED


def test_a_jpeg_of_several_pictures_is_read_as_a_jpeg_and_no_other_decoder_is_reached():
    """All good kinds, all metadata, foreign formats: the decoders that a clean interpreter made, and what it knows."""
    script = """
import warnings
from PIL import Image
made, original = set(), Image._getdecoder
def spy(mode, name, args, extra=()):
    made.add(name)
    return original(mode, name, args, extra)
from refund.imaging.decode import load_plugins
load_plugins()
known = set(Image.OPEN)
from tests.corpus.bases import bases
from tests.corpus.disguises import disguises
from tests.corpus.metadata import metadata
specimens = [*list(disguises())[::3], *(item for item in metadata() if len(item.body) < 50_000)]
Image._getdecoder = spy
Image._initialized = 2  # what wrote the disguises has loaded every plugin there is: they may be known, not used
from refund.imaging.examine import examine_photo
from refund.records import ImageLimits
for specimen in specimens:
    examine_photo(0, specimen.body, limits=ImageLimits())
print(sorted(known), sorted(made), sep="|")
"""
    found = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    known, made = found.stdout.strip().split("|")
    assert known == "['BMP', 'DIB', 'GIF', 'JPEG', 'PNG', 'WEBP']"  # DIB is the BMP decoder without its file header
    assert made == "['bmp_rle', 'gif', 'jpeg', 'raw', 'zip']"


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_text_and_profiles_of_a_png_are_never_unpacked(monkeypatch, kind):
    from PIL import PngImagePlugin

    unpacked = []
    monkeypatch.setattr(PngImagePlugin, "_safe_zlib_decompress", unpacked.append)
    bomb = zlib.compress(bytes(5_000_000))
    head = {b"zTXt": b"a\0\0", b"iTXt": b"a\0\1\0\0\0", b"iCCP": b"a\0\0"}[kind]
    body = bases()["colour.png"]
    for at in (33, len(body) - 12):
        bombed = body[:at] + chunk(kind, head + bomb) + body[at:]
        assert np.array_equal(pixels(bombed), pixels(body))
        assert rejection(bombed[: at + 2000]).reason is ReasonCode.TRUNCATED
    assert not unpacked


def test_pillow_limits_the_text_that_reaches_it():
    """Should a chunk slip through to Pillow, these are its limits; decoding must never lift them."""
    from PIL import ImageFile, PngImagePlugin

    assert decode_rgb(bases()["palette.png"], limits=LIMITS)
    assert PngImagePlugin.MAX_TEXT_CHUNK <= 2**20
    assert PngImagePlugin.MAX_TEXT_MEMORY <= 2**26
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_a_short_chunk_of_a_whole_file_is_corrupt_not_truncated():
    body = bases()["colour.png"]
    error = rejection(body[:33] + chunk(b"acTL", b"\xff") + body[33:])
    assert (error.reason, "truncated acTL chunk" in error.detail) == (ReasonCode.CORRUPT, True)
