"""The photographs that contenders meet on: those at hand, some enlarged to 12 megapixels, and a mix with rejects."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

SHARED = Path(__file__).resolve().parents[2] / "shared"
PHOTOGRAPHS = SHARED / "images" / "imagenet"  # <wnid>_<label>.JPEG
LARGE_SIZE, LARGE_QUALITY = (4000, 3000), 85
REJECTED_EVERY = 20  # 5 % of the mix
_DIFFERENT_LARGE = 48
_TINY_SIDE_PX = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoSet:
    """Photographs under keys of their own in the bucket of the benchmark."""

    name: str
    prefix: str  # what `NightParams.prefix` takes
    keys: tuple[str, ...]
    bodies: tuple[bytes, ...]  # by position
    good: tuple[bool, ...]  # by position: False where the night must reject it

    @property
    def good_count(self) -> int:
        """Photos that must be classified."""
        return sum(self.good)

    def first(self, count: int) -> PhotoSet:
        """The first photos of the set, or all of them where it has no more."""
        return replace(self, keys=self.keys[:count], bodies=self.bodies[:count], good=self.good[:count])

    @property
    def mean_bytes(self) -> int:
        """Bytes of a photo on average."""
        return sum(map(len, self.bodies)) // len(self.bodies)


def find_photographs(scratch: Path) -> tuple[list[bytes], str]:
    """Photographs to measure with, and where they are from: those beside the checkout, else our samples."""
    beside = sorted(PHOTOGRAPHS.glob("*.JPEG"))
    if beside:
        return [path.read_bytes() for path in beside], f"{len(beside)} photographs of ../shared/images/imagenet"
    from refund.local.samples import SAMPLES, write_samples

    write_samples(scratch)
    bodies = [(scratch / sample.path).read_bytes() for sample in SAMPLES]
    return bodies, f"{len(bodies)} sample photos of refund.local.samples"


def labelled_photographs() -> list[tuple[str, bytes]]:
    """The photographs beside the checkout with their WordNet ids; empty where there are none."""
    return [(path.name.partition("_")[0], path.read_bytes()) for path in sorted(PHOTOGRAPHS.glob("*.JPEG"))]


def repeated(photographs: Sequence[bytes], *, photos: int) -> tuple[bytes, ...]:
    """As many photos as ``photos``, over and over."""
    return tuple(photographs[number % len(photographs)] for number in range(photos))


def enlarged(photographs: Sequence[bytes], *, photos: int, different: int = _DIFFERENT_LARGE) -> tuple[bytes, ...]:
    """As many photos as ``photos`` at 4000 x 3000 pixels, made of the first few, at most ``different`` of them."""
    with ThreadPoolExecutor(2) as threads:  # Pillow gives up the GIL while it works
        made = list(threads.map(_enlarge, photographs[: min(different, photos)]))
    return repeated(made, photos=photos)


def _enlarge(body: bytes) -> bytes:
    with Image.open(io.BytesIO(body)) as image:
        return _as_jpeg(image.convert("RGB").resize(LARGE_SIZE, Image.Resampling.BICUBIC), quality=LARGE_QUALITY)


def with_rejects(photographs: Sequence[bytes], *, photos: int) -> tuple[tuple[bytes, ...], tuple[bool, ...]]:
    """As many photos as ``photos``, of which every twentieth must be rejected; and which are good.

    By turns: a JPEG with a spoilt table, one that ends in the middle, no picture at all, one of 16 x 12 pixels.
    """
    bodies, good = list(repeated(photographs, photos=photos)), [True] * photos
    ways = (_broken, _truncated, _no_image, _tiny)
    for turn, position in enumerate(range(REJECTED_EVERY // 2, photos, REJECTED_EVERY)):
        bodies[position], good[position] = ways[turn % len(ways)](bodies[position]), False
    return tuple(bodies), tuple(good)


def _broken(body: bytes) -> bytes:
    return body[:2] + b"\xff\xdb\x00\x04\xff\xff" + body[8 : len(body) // 2] + b"\xff\xd9"


def _truncated(body: bytes) -> bytes:
    return body[: len(body) // 2]


def _no_image(body: bytes) -> bytes:
    return b"<html><body>502 Bad Gateway</body></html>\n" * (1 + len(body) // 2000)


def _tiny(body: bytes) -> bytes:
    with Image.open(io.BytesIO(body)) as image:
        return _as_jpeg(image.convert("RGB").resize((_TINY_SIDE_PX, _TINY_SIDE_PX * 3 // 4)), quality=90)


def _as_jpeg(image: Image.Image, *, quality: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()
