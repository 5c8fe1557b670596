"""Photographs made on the spot, so that tests of imaging need no files."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def scene() -> Callable[..., Image.Image]:
    """A picture with colour, edges and texture, other for every seed; its upper left quarter is red."""

    def make(width: int = 320, height: int = 240, *, seed: int = 0) -> Image.Image:
        rows, columns = np.mgrid[0:height, 0:width].astype(np.float64)
        noise = np.random.default_rng(seed).integers(0, 40, (height, width, 3))
        waves = np.stack([np.sin(columns / 9), np.cos(rows / 13), np.sin((rows + columns) / 17)], axis=-1)
        pixels = np.clip(110 + 70 * waves + noise, 0, 255).astype(np.uint8)
        pixels[: height // 2, : width // 2] = (230, 20, 20)
        return Image.fromarray(pixels)

    return make


@pytest.fixture
def encode() -> Callable[..., bytes]:
    """The bytes of a picture in a format."""

    def make(image: Image.Image, image_format: str, **options: Any) -> bytes:
        stream = io.BytesIO()
        image.save(stream, image_format, **options)
        return stream.getvalue()

    return make
