"""Sample photos for a first night: public-domain pictures that scikit-image carries, and some that must be rejected."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refund.errors import StackError

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One photo made from a picture of scikit-image."""

    path: str  # <refund id>/<name>
    source: str  # file in scikit-image's data folder
    crop: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)  # left, top, right, bottom as shares of the side
    long_side_px: int = 1600
    quality: int = 88
    mirrored: bool = False
    turned: bool = False  # stored lying, with the EXIF orientation that sets it upright, as phones do


# All of these are CC0 or public domain according to the docstrings of skimage.data; pictures without such a statement
# (page, moon, color, the stereo motorcycle) are left out, and so are faces.
SAMPLES = (
    Sample(path="R-1001/front.jpg", source="coffee.png", long_side_px=2400),
    Sample(path="R-1001/cup.jpg", source="coffee.png", crop=(0.2, 0.0, 0.85, 0.95)),
    Sample(path="R-1001/turned.jpg", source="coffee.png", turned=True),
    Sample(path="R-1002/dial.png", source="clock_motion.png", long_side_px=800),
    Sample(path="R-1002/mirrored.webp", source="clock_motion.png", mirrored=True, long_side_px=1200),
    Sample(path="R-1003/tripod.jpg", source="camera.png", quality=92),
    Sample(path="R-1003/lens.jpg", source="camera.png", crop=(0.3, 0.1, 0.85, 0.65), long_side_px=1000),
    Sample(path="R-1004/launch.jpg", source="rocket.jpg"),
    Sample(path="R-1004/pad.bmp", source="rocket.jpg", long_side_px=640),
    Sample(path="R-1005/cat.jpg", source="chelsea.png", long_side_px=2000),
    Sample(path="R-1005/cat.webp", source="chelsea.png", crop=(0.15, 0.0, 0.8, 0.95)),
    Sample(path="R-1006/coins.png", source="coins.png", long_side_px=768),
    Sample(path="R-1006/coins.gif", source="coins.png", crop=(0.0, 0.5, 0.6, 1.0), long_side_px=500),
    Sample(path="R-1007/wall.jpg", source="brick.png", long_side_px=1024),
    Sample(path="R-1007/gravel.jpg", source="gravel.png", long_side_px=1024),
    Sample(path="R-1008/handwriting.jpg", source="text.png", long_side_px=900),
    Sample(path="R-1009/sky.jpg", source="hubble_deep_field.jpg", long_side_px=1500),
)

REJECTED_SAMPLES = {  # path: reason code that the night must give
    "R-1010/truncated.jpg": "truncated",
    "R-1010/thumbnail.png": "too_small",
    "R-1011/notes.jpg": "not_an_image",
    "R-1011/empty.jpg": "empty_file",
}


def write_samples(folder: Path) -> list[Path]:
    """Write all sample photos below ``folder`` as ``<refund id>/<name>`` and return their paths.

    The bytes are the same at every call on one machine, so a second upload finds nothing new.

    Raises:
        StackError: scikit-image is not installed, or the folder cannot be written to.
    """
    source_folder = picture_folder()
    contents: dict[str, Callable[[], bytes]] = {
        sample.path: partial(_encode, sample, source_folder) for sample in SAMPLES
    } | {
        "R-1010/truncated.jpg": lambda: _truncated(source_folder),
        "R-1010/thumbnail.png": lambda: _thumbnail(source_folder),
        "R-1011/notes.jpg": lambda: b"Customer says the heel came off after two days. Photo to follow.\n",
        "R-1011/empty.jpg": lambda: b"",
    }
    written = []
    try:
        for name, make in contents.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.tmp")
            temporary.write_bytes(make())
            temporary.replace(path)
            written.append(path)
    except OSError as exc:
        msg = f"sample photos cannot be written to {folder}: {exc}; choose a folder that you may write to"
        raise StackError(msg) from exc
    return written


def picture_folder() -> Path:
    """Scikit-image's data folder, found without importing the package (0.3 s and SciPy)."""
    import importlib.util

    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        msg = "scikit-image, whose pictures the sample photos are made from, is not installed; run: make run"
        raise StackError(msg)
    return Path(found.origin).parent / "data"


def _open(source: Path) -> Image.Image:
    from PIL import Image

    with Image.open(source) as picture:
        return picture.convert("RGB")


def _encode(sample: Sample, source_folder: Path) -> bytes:
    from PIL import Image

    picture = _open(source_folder / sample.source)
    width, height = picture.size
    left, top, right, bottom = sample.crop
    picture = picture.crop((int(left * width), int(top * height), int(right * width), int(bottom * height)))
    scale = sample.long_side_px / max(picture.size)
    picture = picture.resize(
        (round(picture.width * scale), round(picture.height * scale)), resample=Image.Resampling.BICUBIC
    )
    if sample.mirrored:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    options: dict[str, Any] = {}
    if sample.turned:
        picture = picture.transpose(Image.Transpose.ROTATE_90)
        exif = Image.Exif()
        exif[0x0112] = 6  # orientation: turn clockwise by 90 degrees to view
        options["exif"] = exif.tobytes()
    image_format = {"jpg": "JPEG"}.get(sample.path.rsplit(".", 1)[1], sample.path.rsplit(".", 1)[1].upper())
    if image_format in ("JPEG", "WEBP"):
        options["quality"] = sample.quality
    if image_format == "GIF":
        picture = picture.quantize(colors=128)
    body = io.BytesIO()
    picture.save(body, image_format, **options)
    return body.getvalue()


def _truncated(source_folder: Path) -> bytes:
    body = _encode(Sample(path="R-1010/whole.jpg", source="coffee.png"), source_folder)
    return body[: len(body) * 2 // 5]


def _thumbnail(source_folder: Path) -> bytes:
    return _encode(Sample(path="R-1010/thumbnail.png", source="coffee.png", long_side_px=16), source_folder)
