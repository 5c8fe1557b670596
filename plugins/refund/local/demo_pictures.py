"""Small pictures of coffee cups for `refund demo`: what the category that grows shows in the report."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from refund.errors import StackError
from refund.local.samples import picture_folder

if TYPE_CHECKING:
    from PIL import Image

_SIDE_PX = 320


def cup_pictures(count: int) -> list[bytes]:
    """``count`` different JPEGs of 20 kB or so, the same at every call; drawn ones where scikit-image is missing."""
    from PIL import Image, ImageOps

    whole = _cup()
    pictures = []
    for number in range(count):
        # a window that wanders over the cup, every second one mirrored
        scale = 0.72 + 0.05 * (number % 4)
        width, height = round(whole.width * scale), round(whole.height * scale)
        left = (whole.width - width) * (number * 5 % 11) // 10
        top = (whole.height - height) * (number * 3 % 7) // 6
        picture = whole.crop((left, top, left + width, top + height))
        picture.thumbnail((_SIDE_PX, _SIDE_PX), resample=Image.Resampling.BICUBIC)
        body = io.BytesIO()
        (ImageOps.mirror(picture) if number % 2 else picture).save(body, "JPEG", quality=82)
        pictures.append(body.getvalue())
    return pictures


def _cup() -> Image.Image:
    from PIL import Image

    try:
        with Image.open(picture_folder() / "coffee.png") as picture:  # CC0, see `refund.local.samples`
            return picture.convert("RGB")
    except (StackError, OSError):
        return _drawn_cup()


def _drawn_cup() -> Image.Image:
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (600, 400), (196, 164, 132))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((90, 250, 510, 380), fill=(236, 236, 232))  # saucer
    draw.ellipse((400, 140, 500, 240), outline=(222, 222, 216), width=22)  # handle
    draw.rounded_rectangle((180, 110, 430, 330), radius=70, fill=(246, 246, 242))
    draw.ellipse((190, 90, 420, 160), fill=(92, 58, 34))  # coffee
    return picture
