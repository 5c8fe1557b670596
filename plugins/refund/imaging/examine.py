"""Everything the night wants to know of one photo's bytes: pixels, fingerprints and quality, or why it is rejected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from refund.errors import ReasonCode, RejectedPhotoError
from refund.imaging.decode import DEFAULT_SIZE, decode_rgb
from refund.imaging.fingerprint import perceptual_hash, sha256_hex
from refund.imaging.quality import luminance, measure_quality
from refund.records import ImageLimits, PhotoFacts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def examine_photo(
    slot: int, body: bytes, *, limits: ImageLimits, size: tuple[int, int] = DEFAULT_SIZE
) -> tuple[PhotoFacts, NDArray[np.uint8] | None]:
    """Decode and measure one photo in this process; pixels are None where the facts give a reason for rejection.

    For code that trusts its photos, and for the children of `refund.imaging.pool.DecoderPool`.

    Raises:
        MemoryError: the process reached its memory limit.
    """
    try:
        decoded = decode_rgb(body, limits=limits, size=size)
    except RejectedPhotoError as exc:
        return rejected_facts(slot, body, exc), None
    grey = luminance(decoded.pixels)
    facts = PhotoFacts(
        slot=slot,
        image_format=decoded.image_format,
        width_px=decoded.width_px,
        height_px=decoded.height_px,
        sha256=sha256_hex(body),
        perceptual_hash=perceptual_hash(decoded.pixels, grey=grey),
        quality=measure_quality(decoded.pixels, width_px=decoded.width_px, height_px=decoded.height_px, grey=grey),
    )
    return facts, decoded.pixels


def rejected_facts(slot: int, body: bytes, error: RejectedPhotoError) -> PhotoFacts:
    """The facts of a photo that cost itself: the reason, and what was known before it failed."""
    return PhotoFacts(
        slot=slot,
        reason=ReasonCode(error.reason),
        detail=error.detail,
        image_format=error.image_format,
        width_px=error.width_px,
        height_px=error.height_px,
        sha256=sha256_hex(body),
    )
