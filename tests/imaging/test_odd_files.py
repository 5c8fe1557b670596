"""The 29 awkward files beside the checkout, each with the verdict a clerk would call sensible."""

from __future__ import annotations

import pytest

from refund.imaging.examine import examine_photo
from refund.records import ImageLimits

VERDICTS = {
    "badpalettesize.bmp": "corrupt",  # a palette of 305,402,420 colours
    "badrle.bmp": "corrupt",  # runs that leave the picture
    "badwidth.bmp": "too_large",  # -127 pixels, which reads as 4 thousand million
    "broken.png": "corrupt",  # garbage after the signature
    "broken_data_stream.png": "corrupt",
    "broken_exif_dpi.jpg": None,  # EXIF is ignored
    "decompression_bomb.gif": "too_large",
    "decompression_bomb_extents.gif": None,  # the bomb is in the second frame, which is never decoded
    "dispose_op_none.png": None,  # animated
    "exif.avif": "unsupported_format",
    "exif_gps.jpg": "too_small",  # 8 x 8
    "exif_typeerror.jpg": None,
    "hopper.bmp": None,
    "hopper.gif": None,
    "hopper.jpg": None,
    "hopper.png": None,
    "hopper.webp": None,
    "hopper_gray.jpg": None,
    "hopper_orientation_2.jpg": None,
    "hopper_orientation_3.jpg": None,
    "hopper_orientation_6.jpg": None,
    "hopper_orientation_8.jpg": None,
    "junk_jpeg_header.jpg": None,  # junk between segments, the picture is whole
    "mode_16bit.png": None,
    "pil_sample_cmyk.jpg": None,
    "syntax_num_frames_zero.png": "corrupt",  # an animation of no frames and no picture
    "truncated_app14.jpg": None,  # only a colour hint is cut short, the picture is whole
    "truncated_jpeg.jpg": "truncated",
    "zero_width.gif": "corrupt",  # 0 x 32
}


def test_every_file_has_a_verdict(shared):
    assert {path.name for path in (shared / "images" / "odd").iterdir()} == set(VERDICTS)


@pytest.mark.parametrize("name", VERDICTS)
def test_verdict(shared, name):
    facts, pixels = examine_photo(0, (shared / "images" / "odd" / name).read_bytes(), limits=ImageLimits())
    assert facts.reason == VERDICTS[name], facts.detail
    assert (pixels is None) == (facts.detail is not None) == (facts.reason is not None)


def test_the_turned_portraits_are_upright(shared):
    portraits = [
        examine_photo(0, (shared / "images" / "odd" / name).read_bytes(), limits=ImageLimits())[0].perceptual_hash
        for name in ("hopper.jpg", *(f"hopper_orientation_{number}.jpg" for number in (2, 3, 6, 8)))
    ]
    assert max(((portraits[0] ^ other) & (2**64 - 1)).bit_count() for other in portraits) <= 8
