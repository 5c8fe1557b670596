"""Decoding: every mode that a photo can come in, every way it can be broken, and the pinned preprocessing."""

from __future__ import annotations

import contextlib
import hashlib
import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from refund.errors import ReasonCode, RejectedPhotoError
from refund.imaging import decode
from refund.imaging.decode import decode_rgb
from refund.imaging.sniff import sniff_format
from refund.records import ImageLimits

LIMITS = ImageLimits()
FORMATS = ["JPEG", "PNG", "GIF", "BMP", "WEBP"]


def rejection(body: bytes, limits: ImageLimits = LIMITS) -> RejectedPhotoError:
    with pytest.raises(RejectedPhotoError) as caught:
        decode_rgb(body, limits=limits)
    return caught.value


def mean_rgb(body: bytes) -> list[int]:
    return [round(float(value)) for value in decode_rgb(body, limits=LIMITS).pixels.mean(axis=(0, 1))]


def png(width: int, height: int, *, depth: int, colour: int, rows: bytes, chunks: bytes = b"") -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack("!I", len(content)) + kind + content + struct.pack("!I", zlib.crc32(kind + content))

    header = struct.pack("!IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunks
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("image_format", FORMATS)
def test_every_supported_format_is_told_from_its_content(scene, encode, image_format):
    decoded = decode_rgb(encode(scene(), image_format), limits=LIMITS)
    assert (decoded.image_format, decoded.width_px, decoded.height_px) == (image_format, 320, 240)
    assert decoded.pixels.shape == (224, 224, 3)
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels[20:90, 20:90].mean(axis=(0, 1)) == pytest.approx([230, 20, 20], abs=12)


def test_size_is_width_by_height(scene, encode):
    assert decode_rgb(encode(scene(), "PNG"), limits=LIMITS, size=(96, 64)).pixels.shape == (64, 96, 3)


def test_preprocessing_is_pinned_exactly_for_png(scene, encode):
    pixels = decode_rgb(encode(scene(500, 375), "PNG"), limits=LIMITS).pixels
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == (
        "e41680927372ab49c9e5bbb3975674d88f4ce7b46272df724dd3b05fcd10b949"
    )


def test_preprocessing_is_pinned_within_a_tolerance_for_jpeg(scene, encode):
    body = encode(scene(1600, 1200), "JPEG", quality=90)  # large enough for the draft to step in
    pixels = decode_rgb(body, limits=LIMITS).pixels.astype(int)
    full = Image.open(io.BytesIO(body)).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)
    assert np.abs(pixels - np.asarray(full, dtype=int)).mean() < 2.0
    blocks = pixels.reshape(4, 56, 4, 56, 3).mean(axis=(1, 3)).round().astype(int)
    assert np.abs(blocks[:, :, 1] - np.array(GOLDEN_JPEG)).max() <= 2


@pytest.mark.parametrize(("side_px", "scaled_px"), [(2688, 336), (2680, 670), (1344, 336), (1343, 672), (671, 671)])
def test_a_jpeg_is_scaled_while_decoding_to_no_less_than_one_and_a_half_times_the_input(
    side_px: int, scaled_px: int, encode, monkeypatch
):
    seen: list[tuple[int, int]] = []
    to_rgb = decode._to_rgb
    monkeypatch.setattr(decode, "_to_rgb", lambda image: seen.append(image.size) or to_rgb(image))
    assert decode_rgb(encode(Image.new("RGB", (side_px, side_px)), "JPEG"), limits=LIMITS).width_px == side_px
    assert seen == [(scaled_px, scaled_px)]


GOLDEN_JPEG = [
    [20, 20, 126, 127],
    [20, 20, 134, 134],
    [127, 127, 127, 127],
    [126, 126, 126, 126],
]  # green, means of 4 x 4 blocks


def test_progressive_jpeg(scene, encode):
    assert decode_rgb(encode(scene(), "JPEG", progressive=True), limits=LIMITS).image_format == "JPEG"


def test_cmyk_jpeg_has_its_colours_the_right_way_round(encode):
    body = encode(Image.new("CMYK", (64, 64), (0, 255, 255, 0)), "JPEG", quality=95)
    assert mean_rgb(body) == pytest.approx([255, 0, 0], abs=6)


def test_grey_becomes_three_equal_channels(encode):
    assert mean_rgb(encode(Image.new("L", (64, 64), 90), "PNG")) == [90, 90, 90]


def test_one_bit_is_black_and_white(encode):
    assert mean_rgb(encode(Image.new("1", (64, 64), 1), "PNG")) == [255, 255, 255]


def test_sixteen_bit_grey_is_scaled_not_clipped():
    rows = (b"\0" + struct.pack("!64H", *[0x8000] * 64)) * 64
    assert mean_rgb(png(64, 64, depth=16, colour=0, rows=rows)) == [128, 128, 128]


def test_sixteen_bit_grey_keeps_its_transparent_value_white():
    transparent = struct.pack("!I", 2) + b"tRNS" + b"\x80\0" + struct.pack("!I", zlib.crc32(b"tRNS\x80\0"))
    rows = (b"\0" + struct.pack("!64H", *[0x8000] * 64)) * 64
    assert mean_rgb(png(64, 64, depth=16, colour=0, rows=rows, chunks=transparent)) == [255, 255, 255]


def test_sixteen_bit_colour_is_scaled():
    rows = (b"\0" + struct.pack("!192H", *[0xFFFF, 0x8000, 0x0100] * 64)) * 64
    assert mean_rgb(png(64, 64, depth=16, colour=2, rows=rows)) == [255, 128, 1]


@pytest.mark.parametrize(("mode", "colour"), [("RGBA", (0, 0, 200, 0)), ("LA", (10, 0))])
def test_what_is_transparent_becomes_white(encode, mode, colour):
    assert mean_rgb(encode(Image.new(mode, (64, 64), colour), "PNG")) == [255, 255, 255]


def test_half_transparent_is_mixed_with_white(encode):
    assert mean_rgb(encode(Image.new("RGBA", (64, 64), (0, 0, 0, 128)), "PNG")) == [127, 127, 127]


@pytest.mark.parametrize("image_format", ["PNG", "GIF"])
def test_transparent_palette_colour_becomes_white(encode, image_format):
    image = Image.new("P", (64, 64), 1)
    image.putpalette([0, 0, 0, 200, 0, 0])
    assert mean_rgb(encode(image, image_format)) == [200, 0, 0]
    assert mean_rgb(encode(image, image_format, transparency=1)) == [255, 255, 255]


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation_counts(encode, image_format):
    first, second = Image.new("RGB", (64, 64), (200, 0, 0)), Image.new("RGB", (64, 64), (0, 0, 200))
    body = encode(first, image_format, save_all=True, append_images=[second])
    assert mean_rgb(body) == pytest.approx([200, 0, 0], abs=4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied(scene, encode, orientation, image_format):
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = scene(320, 240)
    stored = upright if orientation == 1 else upright.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode_rgb(encode(stored, image_format, exif=exif, quality=95), limits=LIMITS)
    expected = decode_rgb(encode(upright, "PNG"), limits=LIMITS).pixels
    assert (decoded.width_px, decoded.height_px) == (320, 240)
    assert np.abs(decoded.pixels.astype(int) - expected).mean() < 12
    assert decoded.pixels[20:90, 20:90, 0].mean() > 200


def test_orientation_in_a_png_after_its_pixels_is_applied(scene, encode):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = exif.tobytes().removeprefix(b"Exif\0\0")
    late = struct.pack("!I", len(content)) + b"eXIf" + content + struct.pack("!I", zlib.crc32(b"eXIf" + content))
    body = encode(scene(320, 240), "PNG")
    decoded = decode_rgb(body[:-12] + late + body[-12:], limits=LIMITS)
    assert (decoded.width_px, decoded.height_px) == (240, 320)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0II*\0\xff\xff\xff\xff"]
)
def test_broken_exif_is_ignored(scene, encode, exif):
    assert decode_rgb(encode(scene(), "JPEG", exif=exif), limits=LIMITS).width_px == 320


def test_sides_are_reported_after_orientation_even_when_rejected(scene, encode):
    exif = Image.Exif()
    exif[0x0112] = 6
    error = rejection(encode(scene(100, 20), "JPEG", exif=exif))
    assert (error.reason, error.width_px, error.height_px) == (ReasonCode.TOO_SMALL, 20, 100)
    assert error.detail == "the picture is 20 x 100 pixels, expected sides of 32 to 4096 pixels"


def test_too_large_is_told_from_the_header(encode):
    error = rejection(encode(Image.new("1", (4097, 40)), "PNG"))
    assert (error.reason, error.image_format, error.width_px) == (ReasonCode.TOO_LARGE, "PNG", 4097)
    assert error.detail == "the picture is 4097 x 40 pixels, expected sides of 32 to 4096 pixels"


@pytest.mark.parametrize("side", [10_000, 60_000])  # Pillow warns of the one and refuses the other
def test_decompression_bomb_is_too_large_whatever_the_limits(side):
    error = rejection(png(side, side, depth=1, colour=0, rows=b""), ImageLimits(max_side_px=100_000))
    assert error.reason is ReasonCode.TOO_LARGE
    assert "far too many pixels" in error.detail


@pytest.mark.parametrize("side", [32, 4096])
def test_the_limits_themselves_are_allowed(encode, side):
    assert decode_rgb(encode(Image.new("1", (side, 32)), "PNG"), limits=LIMITS).width_px == side


def test_empty_file():
    error = rejection(b"")
    assert (error.reason, error.detail) == (ReasonCode.EMPTY_FILE, "the file has 0 bytes, expected an image")


def test_too_many_bytes_are_refused_unseen():
    error = rejection(b"x" * 1001, ImageLimits(max_bytes=1000))
    assert (error.reason, error.detail) == (
        ReasonCode.FILE_TOO_LARGE,
        "the file has 1,001 bytes, expected at most 1,000",
    )


@pytest.mark.parametrize(
    "body", [b"not an image at all", b"BMW sells cars; this is text", b"\0" * 100, b"\xff\xd8", b"<html></html>", b"R"]
)
def test_what_is_no_image(body):
    error = rejection(body)
    assert error.reason is ReasonCode.NOT_AN_IMAGE
    assert "which no image does; expected one of JPEG, PNG, GIF, BMP, WEBP" in error.detail


@pytest.mark.parametrize("image_format", ["TIFF", "AVIF", "ICO", "JPEG2000", "PDF", "PPM", "DDS"])
def test_formats_that_pillow_knows_but_we_do_not_decode(scene, encode, image_format):
    error = rejection(encode(scene(64, 64), image_format))
    assert error.reason is ReasonCode.UNSUPPORTED_FORMAT
    assert error.detail.startswith("the file is ")
    assert error.detail.endswith(", expected one of JPEG, PNG, GIF, BMP, WEBP")


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"8BPS\0\1", "Photoshop"),
        (b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="x"/>', "SVG"),
        (b"\xef\xbb\xbf <svg/>", "SVG"),
    ],
)
def test_foreign_signatures_are_named(body, name):
    assert f"the file is {name}, expected" in rejection(body).detail


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("image_format", FORMATS)
def test_a_cut_file_is_truncated(scene, encode, image_format, share):
    body = encode(scene(), image_format)
    error = rejection(body[: int(len(body) * share)])
    assert error.reason is ReasonCode.TRUNCATED
    assert "before the picture is complete" in error.detail


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_signature_followed_by_garbage_is_broken(encode, scene, image_format):
    noise = np.random.default_rng(7).integers(0, 256, 5000, dtype=np.uint8).tobytes()
    error = rejection(encode(scene(), image_format)[:20] + noise)
    assert error.reason in {ReasonCode.CORRUPT, ReasonCode.TRUNCATED, ReasonCode.TOO_LARGE}
    assert image_format in error.detail


def test_corrupt_text_says_what_was_seen():
    error = rejection(b"\x89PNG\r\n\x1a\n" + b"\xaa" * 100)
    assert error.reason is ReasonCode.CORRUPT
    assert error.detail == (
        "PNG by its first bytes, but it cannot be decoded (unreadable header); expected a readable picture"
    )


def test_flipped_bytes_cost_at_most_the_photo(scene, encode):
    rng = np.random.default_rng(3)
    for image_format in FORMATS:
        body = encode(scene(64, 48), image_format)
        for _ in range(60):
            flipped = np.frombuffer(body, dtype=np.uint8).copy()
            flipped[rng.integers(0, len(body), 8)] = rng.integers(0, 256, 8)
            with contextlib.suppress(RejectedPhotoError):  # any other exception fails the test
                assert decode_rgb(flipped.tobytes(), limits=LIMITS).pixels.shape == (224, 224, 3)


def test_only_the_decoders_of_the_supported_formats_are_imported():
    script = (
        "import sys; from refund.imaging.decode import decode_rgb, load_plugins; load_plugins();"
        "print(sorted(name for name in sys.modules if name.endswith('ImagePlugin')))"
    )
    found = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    modules = set(eval(found.stdout))  # noqa: S307  (our own output)
    assert modules == {f"PIL.{name}ImagePlugin" for name in ("Bmp", "Gif", "Jpeg", "Png", "WebP")}


def test_sniffing_does_not_look_at_names():
    assert sniff_format(b"GIF89a" + bytes(20)) == "GIF"
