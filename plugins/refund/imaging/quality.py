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
    counts = _histogram(grey)
    shares = counts[counts > 0] / grey.size
    mean = grey.mean(keepdims=True)
    brightness = min(max(float(mean[0, 0] / 255.0), 0.0), 1.0)
    contrast = float(min(grey.std(mean=mean) / 255.0, 0.5))
    sharpness = float(_laplacian(grey).var())
    entropy = max(0.0, float(-(shares * np.log2(shares)).sum()))
    return Quality(
        brightness_ratio=brightness,
        contrast_ratio=contrast,
        sharpness=sharpness,
        entropy_bits=entropy,
        labels=_labels(brightness, sharpness, entropy, max(width_px, height_px) / min(width_px, height_px)),
    )


def _laplacian(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """The 4-neighbour Laplacian of the pixels that have four neighbours, ``(H - 2, W - 2)``.

    Over the picture as one long row, so that every sum runs over memory without a gap, in the order in which the sum of
    five windows would have it; what it makes of the seams between rows is left out at the end.
    """
    import numpy as np

    height, width = grey.shape
    line = np.ascontiguousarray(grey).reshape(-1)
    inner = max(0, (height - 2) * width - 2)  # from the first pixel with four neighbours to the last
    total = np.empty((max(0, height - 2), width), dtype=np.float32)
    sums = total.reshape(-1)[:inner]
    np.add(line[1 : 1 + inner], line[2 * width + 1 : 2 * width + 1 + inner], out=sums)
    sums += line[width : width + inner]
    sums += line[width + 2 : width + 2 + inner]
    sums -= line[width + 1 : width + 1 + inner] * np.float32(4.0)
    return np.ascontiguousarray(total[:, : max(0, width - 2)])


def _histogram(grey: NDArray[np.float32]) -> NDArray[np.int64]:
    """How many pixels have each of the 256 shades; Pillow counts bytes in half the time that ``bincount`` takes."""
    import numpy as np
    from PIL import Image

    return np.array(Image.fromarray((grey + 0.5).astype(np.uint8)).histogram())


def _labels(brightness: float, sharpness: float, entropy: float, aspect: float) -> tuple[QualityLabel, ...]:
    found = {
        QualityLabel.DARK: brightness < DARK_BELOW_BRIGHTNESS_RATIO,
        QualityLabel.BRIGHT: brightness > BRIGHT_ABOVE_BRIGHTNESS_RATIO,
        QualityLabel.BLURRY: sharpness < BLURRY_BELOW_SHARPNESS,
        QualityLabel.LOW_INFORMATION: entropy < LOW_INFORMATION_BELOW_ENTROPY_BITS,
        QualityLabel.ODD_ASPECT: aspect > ODD_ASPECT_ABOVE_RATIO,
    }
    return tuple(label for label, applies in found.items() if applies)
