"""Small pictures for pages, made anew from decoded pixels: nothing of the original file but what is seen."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIDE_PX = 240  # of the longer side
_QUALITY = 72


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumbnail:
    """A small JPEG without metadata."""

    jpeg: bytes
    width_px: int
    height_px: int

    def data_uri(self) -> str:
        """The picture as a ``data:`` URI."""
        return f"data:image/jpeg;base64,{base64.b64encode(self.jpeg).decode('ascii')}"


def make_thumbnail(
    pixels: NDArray[np.uint8], *, width_px: int, height_px: int, side_px: int = SIDE_PX, quality: int = _QUALITY
) -> Thumbnail:
    """Encode ``(H, W, 3) uint8`` RGB pixels at the aspect of ``width_px`` to ``height_px``, the original's sides.

    Decoding squeezes every photo into the same square (`refund.imaging.decode`); this undoes it. The longer side gets
    ``side_px``, never more than the original had.
    """
    from PIL import Image

    scale = min(side_px, max(width_px, height_px)) / max(width_px, height_px)
    size = (max(1, round(width_px * scale)), max(1, round(height_px * scale)))
    buffer = io.BytesIO()
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)
    image.save(buffer, format="JPEG", quality=quality, optimize=True)
    return Thumbnail(jpeg=buffer.getvalue(), width_px=size[0], height_px=size[1])
