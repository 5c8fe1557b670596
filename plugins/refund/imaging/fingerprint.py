"""Fingerprints of a photo: one of its bytes, one of what it shows."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

from refund.imaging.quality import luminance

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_GRID = 32  # the picture is averaged to 32 x 32 before the transform
_KEPT = 8  # its 8 x 8 lowest frequencies make 64 bits


def sha256_hex(body: bytes) -> str:
    """SHA-256 of the bytes, 64 hexadecimal digits."""
    return hashlib.sha256(body).hexdigest()


def perceptual_hash(pixels: NDArray[np.uint8], *, grey: NDArray[np.float32] | None = None) -> int:
    """Hash what ``(H, W, 3) uint8`` pixels show to 64 bits, as a signed integer: similar pictures differ in few bits.

    pHash (Zauner, 2010): a bit says whether one of the 8 x 8 lowest coefficients of the discrete cosine transform is
    above their median. ``grey`` saves computing `luminance` again.
    """
    import numpy as np

    plane = (luminance(pixels) if grey is None else grey).astype(np.float64)
    height, width = plane.shape
    # Rounded, so that a flat picture's coefficients are 0 on every machine and not noise of the last bit.
    coefficients = np.round(_transform(height) @ plane @ _transform(width).T, 3)
    ordered = np.sort(coefficients, axis=None)
    middle = ordered.size // 2  # by hand: np.median takes ten times as long, and imports all of numpy.ma at first use
    bits = (coefficients > (ordered[middle - 1] + ordered[middle]) / 2).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big", signed=True)


@lru_cache(maxsize=8)
def _transform(length: int) -> NDArray[np.float64]:
    """Area averaging to 32 samples and a DCT-II of these, of which 8 rows are kept, as one ``(8, length)`` matrix."""
    import numpy as np

    edges = np.linspace(0.0, length, _GRID + 1)
    starts = np.arange(length)
    overlap = np.minimum(edges[1:, None], starts + 1.0) - np.maximum(edges[:-1, None], starts)
    averaging = overlap.clip(0.0) * (_GRID / length)
    angles = np.pi * np.outer(np.arange(_KEPT), np.arange(_GRID) + 0.5) / _GRID
    cosine = np.cos(angles) * np.sqrt(2.0 / _GRID)
    cosine[0] /= np.sqrt(2.0)
    transform: NDArray[np.float64] = cosine @ averaging
    transform.setflags(write=False)  # shared through the cache
    return transform
