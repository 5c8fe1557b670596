"""``python -m benchmarks parts``: the choices inside our stages, each against what one could do instead."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import isolation
from benchmarks.arena import DAY, PREFIX, Arena, find_photographs, open_arena
from benchmarks.floor import bare_decode, bare_store, full_decode
from benchmarks.measure import Contender, Measurement, interleave, measure
from benchmarks.results import FOLDER, Measured, Pairs
from benchmarks.units import find_units
from refund import keys
from refund.imaging.pack import PIXELS_FILE, create_pixels
from refund.model.load import Model, load_model
from refund.records import PhotoObject

RESULTS_FILE = FOLDER / "parts.json"
_INFERENCE_PHOTOS = 128  # enough for 8 batches of 16
_BATCHES, _THREADS = (1, 4, 8, 16), (1, 2)
_GET, _GET_MANY = "bare GET", "get_many, 16 at once"
_DRAFT, _EVERY_PIXEL = "decode: scaled while decoding", "decode: every pixel, then resize"
PAIRS: Pairs = {
    "get_many / bare GET, core-ms": (_GET_MANY, _GET, "core_ms"),
    "every pixel / scaled while decoding, core-ms": (_EVERY_PIXEL, _DRAFT, "core_ms"),
    "every pixel / scaled while decoding, 12 megapixels, core-ms": (
        f"{_EVERY_PIXEL}{isolation.LARGE}",
        f"{_DRAFT}{isolation.LARGE}",
        "core_ms",
    ),
    "2 threads / 1 thread, batch 8, wall": ("inference: 2 threads, batch 8", "inference: 1 thread, batch 8", "wall_ms"),
    **{
        f"batch {batch} / batch 1, 2 threads, {unit}": (
            f"inference: 2 threads, batch {batch}",
            "inference: 2 threads, batch 1",
            figure,
        )
        for batch in _BATCHES[1:]
        for unit, figure in (("wall", "wall_ms"), ("core-ms", "core_ms"))
    },
}


def run(
    *, photos: int, rounds: int, model: Path | None, progress: Callable[[str], None]
) -> tuple[Measured, dict[str, Any]]:
    """Prepare, measure, clean up; returns the measurements by name and what they are of."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="refund-bench-")))
        photographs, source = find_photographs(scratch / "samples")
        units = find_units(model, scratch / "models", progress=progress)
        arena = stack.enter_context(
            open_arena(photographs=photographs, photos=photos, model_folder=units.served, progress=progress)
        )
        entered = [
            *downloads(arena),
            *decoding(arena),
            *inference(arena, stack),
        ]
        facts = {
            "photos": photos,
            "rounds_run": rounds,
            "photographs": source,
            "model": arena.services.registry.resolve("champion").model,
        }
        return interleave(entered, rounds=rounds, progress=progress), facts


def downloads(arena: Arena) -> list[Contender]:
    """The same photos by obstore alone, one after the other, and by `ObjectStore.get_many`, as validation reads."""
    import obstore

    objects, store = arena.services.objects, bare_store(arena.services.objects.access)
    photos = [
        PhotoObject(
            photo_id=keys.photo_id(bucket=objects.bucket, key=item.key, etag=item.etag),
            photo_date=DAY,
            bucket=objects.bucket,
            key=item.key,
            etag=item.etag,
            size_bytes=item.size_bytes,
            refund_id=None,
            declared_category=None,
        )
        for item in objects.list(keys.date_prefix(PREFIX, DAY))
    ]

    def bare() -> None:
        for key in arena.keys:
            obstore.get(store, key).bytes()

    def ahead() -> None:
        downloaded = objects.get_many(photos, max_bytes=10**9, max_in_flight_bytes=64 * 1024 * 1024, concurrency=16)
        if any(isinstance(body, Exception) for _, body in downloaded):
            msg = "a photo of the benchmark could not be read back"
            raise RuntimeError(msg)

    return [_simple(_GET, len(photos), bare), _simple(_GET_MANY, len(photos), ahead)]


def decoding(arena: Arena) -> list[Contender]:
    """Scaling while decoding against every pixel, small and large; and what a pool of decoders needs to start."""
    settings = arena.services.settings
    large = isolation.large_photos(arena.bodies)
    create_pixels(arena.folder / PIXELS_FILE, count=1)

    def start_and_stop() -> None:
        with isolation.pool_on(arena.folder / PIXELS_FILE, settings.cores, settings):
            pass

    return [
        *(
            _simple(f"{name}{suffix}", len(bodies), _all_of(decode, bodies))
            for name, decode in ((_DRAFT, bare_decode), (_EVERY_PIXEL, full_decode))
            for suffix, bodies in (("", arena.bodies), (isolation.LARGE, large))
        ),
        _simple("decode: starting a pool", 1, start_and_stop),
    ]


def _all_of(decode: Callable[[bytes], object], bodies: Sequence[bytes]) -> Callable[[], object]:
    return lambda: [decode(body) for body in bodies]


def inference(arena: Arena, stack: ExitStack) -> list[Contender]:
    """One and two interpreters, batches of 1 to 16."""
    pixels = np.stack([bare_decode(body) for body in arena.bodies[:_INFERENCE_PHOTOS]])

    def predict(model: Model, batch_size: int) -> Callable[[], object]:
        return lambda: model.predict(pixels, batch_size=batch_size)

    found = []
    for threads in _THREADS:
        model = stack.enter_context(load_model(arena.model_folder, threads=threads))
        for batch_size in _BATCHES:
            name = f"inference: {threads} thread{'s'[: threads > 1]}, batch {batch_size}"
            found.append(_simple(name, len(pixels), predict(model, batch_size)))
    return found


def _simple(name: str, photos: int, work: Callable[[], object]) -> Contender:
    def run_once() -> dict[str, Measurement]:
        return {name: measure(photos, work)}

    return Contender(name=name, run=run_once)
