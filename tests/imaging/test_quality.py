"""Quality measures against values that can be worked out, and labels that mean what they say."""

from __future__ import annotations

import numpy as np
import pytest

from refund.imaging.decode import decode_rgb
from refund.imaging.fingerprint import perceptual_hash, sha256_hex
from refund.imaging.quality import measure_quality
from refund.records import ImageLimits, QualityLabel


def flat(value: int) -> np.ndarray:
    return np.full((224, 224, 3), value, dtype=np.uint8)


def noise(low: int, high: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, (224, 224, 3), dtype=np.uint8)


def distance(first: int, second: int) -> int:
    return ((first ^ second) & (2**64 - 1)).bit_count()


def test_measures_of_stripes_are_exact():
    pixels = flat(0)
    pixels[:, ::2] = 255  # columns black and white in turn: the Laplacian is +-510
    quality = measure_quality(pixels, width_px=224, height_px=224)
    assert quality.brightness_ratio == pytest.approx(0.5, abs=1e-4)
    assert quality.contrast_ratio == pytest.approx(0.5, abs=1e-4)
    assert quality.entropy_bits == pytest.approx(1.0, abs=1e-6)
    assert quality.sharpness == pytest.approx(510**2, rel=1e-4)


@pytest.mark.parametrize("value", [0, 255])
def test_flat_pictures_stay_within_the_ranges(value):
    quality = measure_quality(flat(value), width_px=10, height_px=10)
    assert 0.0 <= quality.brightness_ratio <= 1.0
    assert (quality.contrast_ratio, quality.sharpness, quality.entropy_bits) == pytest.approx((0.0, 0.0, 0.0), abs=1e-4)


@pytest.mark.parametrize(
    ("pixels", "sides", "expected"),
    [
        (noise(0, 256), (300, 200), set()),
        (noise(0, 40), (300, 200), {QualityLabel.DARK}),
        (noise(225, 256), (300, 200), {QualityLabel.BRIGHT}),
        (flat(128), (300, 200), {QualityLabel.BLURRY, QualityLabel.LOW_INFORMATION}),
        (noise(0, 256), (301, 100), {QualityLabel.ODD_ASPECT}),
        (noise(0, 256), (100, 301), {QualityLabel.ODD_ASPECT}),
        (noise(0, 256), (300, 100), set()),
    ],
)
def test_labels(pixels, sides, expected):
    quality = measure_quality(pixels, width_px=sides[0], height_px=sides[1])
    assert set(quality.labels) == expected


def test_few_ordinary_photographs_get_a_label(shared):
    labelled = 0
    photographs = sorted((shared / "images" / "imagenet").iterdir())[::3]
    for path in photographs:
        decoded = decode_rgb(path.read_bytes(), limits=ImageLimits())
        quality = measure_quality(decoded.pixels, width_px=decoded.width_px, height_px=decoded.height_px)
        labelled += bool(quality.labels)
    assert labelled / len(photographs) <= 0.05


def test_sha256_is_that_of_the_standard():
    assert sha256_hex(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_perceptual_hash_survives_compression_and_scaling_but_not_another_picture(scene, encode):
    def hashed(image, image_format="PNG", **options):
        return perceptual_hash(decode_rgb(encode(image, image_format, **options), limits=ImageLimits()).pixels)

    original = hashed(scene(640, 480))
    assert distance(original, hashed(scene(640, 480), "JPEG", quality=40)) <= 4
    assert distance(original, hashed(scene(640, 480).resize((320, 240)))) <= 4
    assert distance(original, hashed(scene(640, 480).rotate(180))) >= 16


def test_perceptual_hash_of_a_flat_picture_is_not_noise():
    assert perceptual_hash(flat(128)) == perceptual_hash(flat(40)) == -(2**63)  # the mean alone is above the median
    assert perceptual_hash(noise(0, 256)) in range(-(2**63), 2**63)


def test_perceptual_hash_takes_any_size():
    ramp = np.repeat(np.linspace(0, 255, 299)[None, :, None], 160, axis=0).repeat(3, axis=2).astype(np.uint8)
    assert distance(perceptual_hash(ramp), perceptual_hash(ramp[::2, ::2])) <= 6
