"""The pictures that the corpus is made from, drawn and written here, so that it exists without any file beside it."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from tests.corpus.specimen import SEED

WIDTH, HEIGHT = 64, 48
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def scene(width: int = WIDTH, height: int = HEIGHT, *, seed: int = 0) -> Image.Image:
    """A picture with colour, edges and texture down to its last row."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float64)
    noise = np.random.default_rng(SEED + seed).integers(0, 40, (height, width, 3))
    waves = np.stack([np.sin(columns / 9), np.cos(rows / 13), np.sin((rows + columns) / 17)], axis=-1)
    return Image.fromarray(np.clip(110 + 70 * waves + noise, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


def exif(orientation: int = 1) -> bytes:
    """An EXIF block of one entry, big-endian, as in a JPEG's APP1."""
    return b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1" + struct.pack("!HH", orientation, 0) + b"\0\0\0\0"


# --- PNG ------------------------------------------------------------------------------------------------------------


def chunk(kind: bytes, content: bytes, *, crc: int | None = None) -> bytes:
    crc = zlib.crc32(kind + content) if crc is None else crc
    return struct.pack("!I", len(content)) + kind + content + struct.pack("!I", crc)


def png(
    width: int, height: int, *, depth: int = 8, colour: int = 2, rows: bytes, before: bytes = b"", interlace: int = 0
) -> bytes:
    """A PNG of filtered ``rows`` as they are; ``before`` are chunks between header and pixels."""
    header = struct.pack("!IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + before
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def rows_of(pixels: np.ndarray) -> bytes:
    """PNG rows without a filter, of ``(H, W, C)`` or ``(H, W)`` in the byte order of the array."""
    flat = np.ascontiguousarray(pixels).reshape(len(pixels), -1).view(np.uint8)
    return np.hstack([np.zeros((len(flat), 1), np.uint8), flat]).tobytes()


def interlaced_png(pixels: np.ndarray) -> bytes:
    """Adam7 of ``(H, W, 3) uint8``; Pillow does not write it."""
    passes = [pixels[y::down, x::across] for x, y, across, down in ADAM7]
    rows = b"".join(rows_of(part) for part in passes if part.size)
    return png(pixels.shape[1], pixels.shape[0], rows=rows, interlace=1)


# --- BMP ------------------------------------------------------------------------------------------------------------


def bmp(width: int, height: int, body: bytes, *, bits: int = 24, compression: int = 0, colours: int = 0) -> bytes:
    palette = bytes(value for grey in range(colours) for value in (grey, grey, grey, 0))
    start = 54 + len(palette)
    return (
        b"BM"
        + struct.pack("<IHHI", start + len(body), 0, 0, start)
        + struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(body), 0, 0, colours, 0)
        + palette
        + body
    )


def rle_bmp(runs: bytes, *, width: int = WIDTH, height: int = HEIGHT, bits: int = 8) -> bytes:
    return bmp(width, height, runs, bits=bits, compression={8: 1, 4: 2}[bits], colours=1 << bits)


# --- RIFF -----------------------------------------------------------------------------------------------------------


def riff_chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def riff(*chunks: bytes) -> bytes:
    content = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(content)) + content


@cache
def bases() -> dict[str, bytes]:
    """Good pictures of every kind that is accepted, by name."""
    image, other = scene(), scene(seed=1)
    pixels = np.asarray(image)
    grey16 = pixels[..., 0].astype(">u2") * 257
    palette = image.quantize(32)
    frames = {"save_all": True, "append_images": [other, scene(seed=2)], "duration": 50}
    greys = pixels[..., 0]
    runs = b"".join(b"".join(bytes((1, int(value))) for value in row) + b"\0\0" for row in greys) + b"\0\1"
    return {
        "baseline.jpg": encoded(image, "JPEG", quality=80),
        "progressive.jpg": encoded(image, "JPEG", quality=80, progressive=True),
        "grey.jpg": encoded(image.convert("L"), "JPEG"),
        "cmyk.jpg": encoded(image.convert("CMYK"), "JPEG"),
        "full-colour.jpg": encoded(image, "JPEG", subsampling=0, optimize=True),
        "restarts.jpg": encoded(image, "JPEG", restart_marker_blocks=4),
        "turned.jpg": encoded(image, "JPEG", exif=exif(6), comment=b"turned"),
        "colour.png": encoded(image, "PNG"),
        "palette.png": encoded(palette, "PNG", transparency=3),
        "grey16.png": png(WIDTH, HEIGHT, depth=16, colour=0, rows=rows_of(grey16)),
        "colour16.png": png(WIDTH, HEIGHT, depth=16, colour=2, rows=rows_of(pixels.astype(">u2") * 257)),
        "one-bit.png": encoded(image.convert("1"), "PNG"),
        "see-through.png": encoded(image.convert("RGBA"), "PNG"),
        "interlaced.png": interlaced_png(pixels),
        "animated.png": encoded(image, "PNG", **frames),
        "still.gif": encoded(palette, "GIF"),
        "animated.gif": encoded(palette, "GIF", **frames),
        "see-through.gif": encoded(palette, "GIF", transparency=3, comment=b"see-through"),
        "colour.bmp": encoded(image, "BMP"),
        "palette.bmp": encoded(palette, "BMP"),
        "one-bit.bmp": encoded(image.convert("1"), "BMP"),
        "runs.bmp": rle_bmp(runs),
        "lossy.webp": encoded(image, "WEBP"),
        "lossless.webp": encoded(image, "WEBP", lossless=True),
        "see-through.webp": encoded(image.convert("RGBA"), "WEBP"),
        "animated.webp": encoded(image, "WEBP", **frames),
        "turned.webp": encoded(image, "WEBP", exif=exif(6)),
    }


def format_of(name: str) -> str:
    return {"jpg": "JPEG", "png": "PNG", "gif": "GIF", "bmp": "BMP", "webp": "WEBP"}[name.rpartition(".")[2].lower()]
