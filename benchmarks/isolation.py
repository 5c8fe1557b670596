"""The contenders about isolation: the same photos decoded by the pool and by processes that nothing protects."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.measure import Contender, Measurement, interleave, measure
from benchmarks.photographs import enlarged, find_photographs, repeated
from benchmarks.results import FOLDER, Measured, Pairs
from refund.imaging.examine import examine_photo
from refund.imaging.pack import PIXELS_FILE, create_pixels, open_pixels
from refund.imaging.pool import IN_FLIGHT_PHOTOS_PER_WORKER, DecoderPool
from refund.records import ImageLimits
from refund.settings import Settings

RESULTS_FILE = FOLDER / "isolation.json"
LARGE = ", 12 megapixels"
_COMPARED = {
    "pool of 1 / in process": ("decode: pool, 1 worker", "decode: in process"),
    "pool of 2 / two processes, unprotected": ("decode: pool, 2 workers", "decode: two processes, unprotected"),
}
PAIRS: Pairs = {
    f"{title}{suffix}, {unit}": (f"{above}{suffix}", f"{below}{suffix}", figure)
    for suffix in ("", LARGE)
    for title, (above, below) in _COMPARED.items()
    for unit, figure in (("core-ms", "core_ms"), ("wall", "wall_ms"))
}


def run(*, photos: int, rounds: int, progress: Callable[[str], None]) -> tuple[Measured, dict[str, Any]]:
    """Measure; needs no server and no model. Returns the measurements by name and what they are of."""
    with tempfile.TemporaryDirectory(prefix="refund-bench-") as name:
        folder = Path(name)
        photographs, source = find_photographs(folder / "samples")
        bodies = repeated(photographs, photos=photos)
        entered = [
            *decoding(bodies, folder=folder / "small", settings=Settings()),
            *decoding(large_photos(bodies), folder=folder / "large", settings=Settings(), suffix=LARGE),
        ]
        facts = {"photos": photos, "rounds_run": rounds, "photographs": source, "model": "no model"}
        return interleave(entered, rounds=rounds, progress=progress), facts


def large_photos(bodies: Sequence[bytes]) -> tuple[bytes, ...]:
    """A fifth as many, of 12 megapixels: they take five times as long."""
    return enlarged(bodies, photos=max(2, len(bodies) // 5))


def decoding(bodies: Sequence[bytes], *, folder: Path, settings: Settings, suffix: str = "") -> list[Contender]:
    """Decoding, hashing and measuring into a pack: unprotected with one process and with two, and through the pool.

    What each needs to start is not measured: the pool runs, its children have decoded, its arena was filled once, as
    it is after the first hundred photos of a shard; the two processes wait with their photos in memory.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PIXELS_FILE
    create_pixels(path, count=len(bodies))
    limits = settings.limits

    def alone() -> Mapping[str, Measurement]:
        return {
            f"decode: in process{suffix}": measure(
                len(bodies), lambda: _decode(path, bodies, range(len(bodies)), limits)
            )
        }

    def two_processes() -> Mapping[str, Measurement]:
        name = f"decode: two processes, unprotected{suffix}"
        with _unprotected(path, bodies, limits=limits, processes=2) as connections:
            start = time.perf_counter()
            for connection in connections:
                connection.send("go")
            spent_s = [connection.recv() for connection in connections]
            wall_s = time.perf_counter() - start
        return {name: Measurement(photos=len(bodies), wall_s=wall_s, cpu_s=sum(spent_s))}

    def pooled(workers: int) -> Contender:
        name = f"decode: pool, {workers} worker{'s'[: workers > 1]}{suffix}"

        def run() -> Mapping[str, Measurement]:
            with pool_on(path, workers, settings) as pool:
                _exhaust(pool, bodies[: IN_FLIGHT_PHOTOS_PER_WORKER * workers])  # decoders imported, arena touched
                return {name: measure(len(bodies), lambda: _exhaust(pool, bodies), living_pid=pool.pid)}

        return Contender(name=name, run=run)

    return [
        Contender(name=f"decode: in process{suffix}", run=alone),
        pooled(1),
        Contender(name=f"decode: two processes, unprotected{suffix}", run=two_processes),
        pooled(2),
    ]


def pool_on(path: Path, workers: int, settings: Settings) -> DecoderPool:
    """A pool as the night makes it, not started yet."""
    return DecoderPool(
        path,
        limits=settings.limits,
        workers=workers,
        memory_bytes=settings.decode_memory_bytes,
        timeout_s=settings.decode_timeout_s,
    )


def _exhaust(pool: DecoderPool, bodies: Sequence[bytes]) -> None:
    if not all(facts.ok for facts in pool.decode(enumerate(bodies))):
        msg = "the pool rejected a photo of the benchmark"
        raise RuntimeError(msg)


def _decode(path: Path, bodies: Sequence[bytes], slots: Sequence[int], limits: ImageLimits) -> None:
    pack = open_pixels(path, mode="r+")
    for slot, body in zip(slots, bodies, strict=True):
        facts, photo = examine_photo(slot, body, limits=limits)
        if photo is None:
            msg = f"a photo of the benchmark is rejected: {facts.detail}"
            raise RuntimeError(msg)
        pack[slot] = photo


@contextmanager
def _unprotected(
    path: Path, bodies: Sequence[bytes], *, limits: ImageLimits, processes: int
) -> Iterator[list[Connection]]:
    """Processes that hold every n-th photo and wait for a word; each then decodes its own and tells its CPU seconds."""
    context = multiprocessing.get_context("spawn")  # TensorFlow may run in this process, after which forks hang
    connections, running = [], []
    try:
        for number in range(processes):
            ours, theirs = context.Pipe()
            slots = range(number, len(bodies), processes)
            arguments = (theirs, path, [bodies[slot] for slot in slots], slots, limits)
            process = context.Process(target=_work, args=arguments)
            process.start()
            theirs.close()
            running.append(process)
            connections.append(ours)
        for connection in connections:
            connection.recv()  # it has imported everything and decoded a few
        yield connections
    finally:
        for connection in connections:
            connection.close()
        for process in running:
            process.join()


def _work(connection: Connection, path: Path, bodies: list[bytes], slots: range, limits: ImageLimits) -> None:
    _decode(path, bodies[:4], slots[:4], limits)
    connection.send("ready")
    try:
        connection.recv()
    except EOFError:
        return
    spent_s = time.process_time()
    _decode(path, bodies, slots, limits)
    connection.send(time.process_time() - spent_s)
