"""Measures how good a photo is, so that poor ones can be counted, explained and photographed again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from refund.records import Quality, QualityLabel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Property, score, threshold, label: CleanVision's way. Its scores see the full-size picture, ours the network's input,
# so the values are our own: set so that few ordinary photographs get a label (tests/imaging/test_quality.py counts).
DARK_BELOW_BRIGHTNESS_RATIO = 0.12
BRIGHT_ABOVE_BRIGHTNESS_RATIO = 0.92
BLURRY_BELOW_SHARPNESS = 60.0
LOW_INFORMATION_BELOW_ENTROPY_BITS = 4.0
ODD_ASPECT_ABOVE_RATIO = 3.0  # longer side over shorter; the plain resize distorts such a picture beyond recognition


def luminance(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Luma of ``(H, W, 3) uint8`` RGB as ``(H, W) float32`` in 0..255, with the weights of ITU-R BT.601."""
    import numpy as np

    return pixels.astype(np.float32) @ np.array((0.299, 0.587, 0.114), dtype=np.float32)


def measure_quality(
    pixels: NDArray[np.uint8], *, width_px: int, height_px: int, grey: NDArray[np.float32] | None = None
) -> Quality:
    """Measure ``(H, W, 3) uint8`` pixels of a photo that was ``width_px`` x ``height_px``; label what is poor.

    Sharpness is the variance of the 4-neighbour Laplacian (Pech-Pacheco et al., 2000); entropy is Shannon's, of the
    256-bin histogram. ``grey`` saves computing `luminance` again.
    """
    import numpy as np

    grey = luminance(pixels) if grey is None else grey
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4.0 * grey[1:-1, 1:-1]
    counts = np.bincount((grey + 0.5).astype(np.uint8).ravel(), minlength=256)
    shares = counts[counts > 0] / grey.size
    brightness = float(np.clip(grey.mean() / 255.0, 0.0, 1.0))
    contrast = float(min(grey.std() / 255.0, 0.5))
    sharpness = float(laplacian.var())
    entropy = max(0.0, float(-(shares * np.log2(shares)).sum()))
    return Quality(
        brightness_ratio=brightness,
        contrast_ratio=contrast,
        sharpness=sharpness,
        entropy_bits=entropy,
        labels=_labels(brightness, sharpness, entropy, max(width_px, height_px) / min(width_px, height_px)),
    )


def _labels(brightness: float, sharpness: float, entropy: float, aspect: float) -> tuple[QualityLabel, ...]:
    found = {
        QualityLabel.DARK: brightness < DARK_BELOW_BRIGHTNESS_RATIO,
        QualityLabel.BRIGHT: brightness > BRIGHT_ABOVE_BRIGHTNESS_RATIO,
        QualityLabel.BLURRY: sharpness < BLURRY_BELOW_SHARPNESS,
        QualityLabel.LOW_INFORMATION: entropy < LOW_INFORMATION_BELOW_ENTROPY_BITS,
        QualityLabel.ODD_ASPECT: aspect > ODD_ASPECT_ABOVE_RATIO,
    }
    return tuple(label for label, applies in found.items() if applies)
