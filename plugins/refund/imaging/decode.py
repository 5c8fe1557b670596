"""Turns the bytes of one photo into checked ``uint8`` RGB pixels of the network's size: the one preprocessing."""

from __future__ import annotations

import io
import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from refund.errors import ReasonCode, RejectedPhotoError
from refund.imaging.sniff import SUPPORTED_FORMATS, bmp_runs_fit, ends_early, sniff_format
from refund.imaging.structure import decodable, webp_canvas
from refund.records import ImageLimits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

DEFAULT_SIZE = (224, 224)  # width, height of the network's input
_ORIENTATION_TAG = 0x0112
_SIDEWAYS = frozenset({5, 6, 7, 8})  # orientations that swap width and height
# A JPEG is scaled down while decoding, by 2, 4 or 8, to at least this many times the wanted size (decision 23).
DRAFT_FACTOR = 1.5
_REDUCING_GAP = 2.0
_RAN_OUT = ("truncated", "not enough image data", "premature end", "unexpected end")  # as Pillow puts it


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decoded:
    """One decoded photo. Nothing of its metadata is kept: EXIF can hold where a customer lives."""

    pixels: NDArray[np.uint8]  # (H, W, 3), RGB, resized to the wanted size
    image_format: str
    width_px: int  # as stored, after EXIF orientation
    height_px: int


def load_plugins() -> None:
    """Import Pillow's decoders for the supported formats and no other, so that no other can be reached."""
    from PIL import (  # noqa: F401  (each registers itself)
        BmpImagePlugin,
        GifImagePlugin,
        Image,
        JpegImagePlugin,
        PngImagePlugin,
        WebPImagePlugin,
    )

    # Pillow would hand a JPEG with an index of several pictures on to its decoder of MPO files.
    Image.OPEN["JPEG"] = (JpegImagePlugin.JpegImageFile, Image.OPEN["JPEG"][1])


def check_bytes(body: bytes, limits: ImageLimits) -> None:
    """Refuse a file above the limit before anything reads it.

    Raises:
        RejectedPhotoError: ``file_too_large``.
    """
    if len(body) > limits.max_bytes:
        detail = f"the file has {len(body):,} bytes, expected at most {limits.max_bytes:,}"
        raise RejectedPhotoError(ReasonCode.FILE_TOO_LARGE, detail)


def decode_rgb(body: bytes, *, limits: ImageLimits, size: tuple[int, int] = DEFAULT_SIZE) -> Decoded:
    """Decode a JPEG, PNG, GIF, BMP or WEBP to ``(H, W, 3) uint8`` RGB of exactly ``size`` (width, height).

    The format is told from the content. Width and height are checked before pixels are decoded. EXIF orientation is
    applied and then forgotten; transparency is laid on white; of an animation the first frame counts; 16 bits are
    scaled to 8. The picture is resized with a bilinear filter and does not keep its aspect, as in the measured accuracy
    of the models. Not for several threads at once: warning filters are set meanwhile.

    Raises:
        RejectedPhotoError: with a reason code, what was seen and what was expected; format and sides where known.
        MemoryError: the process reached its memory limit.
    """
    from PIL import Image

    check_bytes(body, limits)
    image_format = sniff_format(body)
    load_plugins()
    seen: dict[str, int] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata, which is ignored here anyway
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return _decode(body, image_format, limits, size, seen)
        except (RejectedPhotoError, MemoryError):
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
            detail = f"{image_format} that would unpack to far too many pixels ({exc}), expected {_expected(limits)}"
            raise RejectedPhotoError(ReasonCode.TOO_LARGE, detail, image_format=image_format, **seen) from exc
        except Exception as exc:  # whatever a decoder raises, it costs this photo alone
            raise _broken(body, image_format, exc, seen) from exc


def _decode(
    body: bytes, image_format: str, limits: ImageLimits, size: tuple[int, int], seen: dict[str, int]
) -> Decoded:
    from PIL import Image

    if image_format == "WEBP" and (canvas := webp_canvas(body)) is not None:
        _check_sides(*canvas, image_format, limits)
    with Image.open(io.BytesIO(decodable(body, image_format)), formats=SUPPORTED_FORMATS) as image:
        orientation = 1 if image_format == "PNG" and "exif" not in image.info else _orientation(image)
        width, height = _upright(image.size, orientation)
        seen.update(width_px=width, height_px=height)
        _check_sides(width, height, image_format, limits)
        if image_format == "JPEG":
            image.draft(None, (math.ceil(size[0] * DRAFT_FACTOR), math.ceil(size[1] * DRAFT_FACTOR)))
        elif image_format == "BMP" and not bmp_runs_fit(body):
            msg = "runs of pixels leave the picture"
            raise ValueError(msg)
        image.load()
        if image_format == "PNG":  # its EXIF may come after the pixels
            orientation = _orientation(image)
            width, height = _upright((image.width, image.height), orientation)
        rgb = _to_rgb(image)
    # Resizing first turns 50,000 pixels instead of millions.
    small = rgb.resize(_upright(size, orientation), Image.Resampling.BILINEAR, reducing_gap=_REDUCING_GAP)
    return Decoded(
        pixels=_as_array(_transposed(small, orientation)), image_format=image_format, width_px=width, height_px=height
    )


def _check_sides(width: int, height: int, image_format: str, limits: ImageLimits) -> None:
    from PIL import Image

    reason = None
    if min(width, height) < limits.min_side_px:
        reason = ReasonCode.TOO_SMALL
    elif max(width, height) > limits.max_side_px or width * height > (Image.MAX_IMAGE_PIXELS or width * height):
        reason = ReasonCode.TOO_LARGE
    if reason is not None:
        raise RejectedPhotoError(
            reason,
            f"the picture is {width} x {height} pixels, expected {_expected(limits)}",
            image_format=image_format,
            width_px=width,
            height_px=height,
        )


def _expected(limits: ImageLimits) -> str:
    return f"sides of {limits.min_side_px} to {limits.max_side_px} pixels"


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  (EXIF that cannot be parsed is ignored, the picture may be fine)
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    return (size[1], size[0]) if orientation in _SIDEWAYS else size


def _transposed(image: Image.Image, orientation: int) -> Image.Image:
    from PIL.Image import Transpose

    steps = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image if orientation == 1 else image.transpose(steps[orientation])


def _to_rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        return _sixteen_bit_grey_to_rgb(image)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        paper = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(paper, layer).convert("RGB")
    return image.convert("RGB")


def _sixteen_bit_grey_to_rgb(image: Image.Image) -> Image.Image:
    """Keep the upper 8 bits, as Pillow does for 16-bit colour; its own conversion of grey clips at 255."""
    import numpy as np
    from PIL import Image

    values = np.asarray(image)
    grey = (values >> 8).clip(0, 255).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def _as_array(image: Image.Image) -> NDArray[np.uint8]:
    import numpy as np

    return np.array(image, dtype=np.uint8)


def _broken(body: bytes, image_format: str, error: Exception, seen: dict[str, int]) -> RejectedPhotoError:
    text = str(error).lower()
    ran_out = any(words in text for words in _RAN_OUT) and " chunk" not in text  # a short chunk cuts no picture short
    short = isinstance(error, EOFError) or ran_out or ends_early(body, image_format)
    said = f"{type(error).__name__}: {str(error)[:200]}" if "BytesIO" not in str(error) else "unreadable header"
    if short:
        detail = f"{image_format} that ends after {len(body):,} bytes, before the picture is complete ({said})"
        return RejectedPhotoError(ReasonCode.TRUNCATED, detail, image_format=image_format, **seen)
    detail = f"{image_format} by its first bytes, but it cannot be decoded ({said}); expected a readable picture"
    return RejectedPhotoError(ReasonCode.CORRUPT, detail, image_format=image_format, **seen)
