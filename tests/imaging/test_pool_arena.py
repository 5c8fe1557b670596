"""The memory that photos lie in: bounded, without a name, large enough for any photo, and gone with the pool."""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest

from refund.errors import DecoderPoolError, ReasonCode
from refund.imaging import pool as pool_module
from refund.imaging import pool_arena
from refund.imaging.pack import create_pixels
from refund.imaging.pool import IN_FLIGHT_BYTES, DecoderPool
from refund.imaging.pool_arena import Arena, FreeRooms, read_only
from refund.records import ImageLimits, PhotoFacts

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
def pool_of(tmp_path):
    def make(count: int, **overrides) -> DecoderPool:
        path = tmp_path / "pixels.npy"
        create_pixels(path, count=count)
        options = {
            "limits": ImageLimits(), "workers": 2, "memory_bytes": 1_500_000_000, "timeout_s": 20.0, **overrides,
        }  # fmt: skip
        return DecoderPool(path, **options)

    return make


def one_verdict_each(facts: list[PhotoFacts], bodies: list[bytes]) -> None:
    assert sorted(fact.slot for fact in facts) == list(range(len(bodies)))
    for fact in facts:
        assert fact.sha256 == hashlib.sha256(bodies[fact.slot]).hexdigest(), f"slot {fact.slot} saw other bytes"


def open_arenas() -> list[str]:
    links = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir() if os.path.lexists(link)]
    maps = Path("/proc/self/maps").read_text().splitlines()
    return [seen for seen in (*links, *maps) if "refund-photos" in seen]


@pytest.mark.parametrize("seed", range(5))
def test_rooms_never_overlap_and_all_come_back(seed):
    draw = random.Random(seed)
    rooms, taken = FreeRooms(64 * 100), {}
    for _ in range(2000):
        if taken and draw.random() < 0.5:
            start = draw.choice(sorted(taken))
            rooms.give_back(start, taken.pop(start))
        else:
            length = draw.randint(1, 64 * 30)
            start = rooms.take(length)
            if start is None:
                assert all(free < length for _, free in rooms.parts)
            else:
                taken[start] = length
        parts = sorted([*((start, -(-length // 64) * 64) for start, length in taken.items()), *rooms.parts])
        assert [start for start, _ in parts] == [sum(length for _, length in parts[:n]) for n in range(len(parts))]
        assert sum(length for _, length in parts) == 64 * 100
        free = rooms.parts
        assert all(a + b < c for (a, b), (c, _) in pairwise(free)), "free neighbours are one part"
    for start, length in taken.items():
        rooms.give_back(start, length)
    assert rooms.parts == [(0, 64 * 100)]


def test_the_lowest_room_is_used_again():
    arena = Arena(10**6)
    try:
        assert [arena.put(b"x" * 1000), arena.put(b"y" * 1000), arena.put(b"")] == [0, 1024, 0]
        arena.free(0, 1000)
        arena.free(0, 0)
        assert [arena.put(b"z" * 900), arena.put(b"w" * 1_002_000)] == [0, None]
        mapped = read_only(arena.fd)
        assert (mapped[:900], mapped[1024:2024], len(mapped)) == (b"z" * 900, b"y" * 1000, arena.size_bytes)
        with pytest.raises(TypeError, match=r"read-?only"):
            mapped[0] = 1
        mapped.close()
    finally:
        arena.close()


@pytest.mark.parametrize("missing", ["memory files", "seals against later writers"])
def test_a_system_without_sealed_memory_uses_a_file_that_has_no_name(
    pool_of, scene, encode, tmp_path, monkeypatch, missing
):
    if missing == "memory files":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    else:
        monkeypatch.setattr(pool_arena, "_F_SEAL_FUTURE_WRITE", 0x8000)  # which no kernel knows
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    bodies = [encode(scene(64, 48, seed=seed), "JPEG") for seed in range(6)]
    with pool_of(6) as pool:
        arena = pool._shared()
        assert list((tmp_path / "tmp").iterdir()) == []
        assert fcntl.fcntl(arena.fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.pwrite(arena.fd, b"x", 0)
        facts = list(pool.decode(enumerate(bodies)))
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, arena._writable_fd)
        os.close(full)
        with pytest.raises(
            DecoderPoolError, match=r"temporary file \(No space left on device\); free the disk that TM"
        ):
            list(pool.decode([(0, bodies[0])]))
    one_verdict_each(facts, bodies)
    assert all(fact.ok for fact in facts)


def test_memory_that_the_system_does_not_give_is_told(pool_of):
    with pytest.raises(DecoderPoolError, match=r"no memory of [\d,]+ bytes could be shared .* lower REFUND_MAX_BYTES"):
        pool_of(1, limits=ImageLimits(max_bytes=2**62)).__enter__()


@linux
def test_leaving_a_pool_frees_its_memory_which_never_had_a_name(pool_of):
    before = open_arenas()
    with pool_of(1) as pool:
        assert [fact.reason for fact in pool.decode([(0, b"junk")])] == [ReasonCode.NOT_AN_IMAGE]
        here = set(open_arenas()) - set(before)
        assert here
        assert all("/memfd:refund-photos" in seen and "(deleted)" in seen for seen in here)
        answers = pool.decode([(0, b"junk"), (0, b"junk")])
        next(answers)
        answers.close()  # given up halfway
        assert open_arenas() == before
        list(pool.decode([(0, b"junk")]))
    assert open_arenas() == before


def test_one_byte_and_exactly_as_many_as_a_photo_may_have(pool_of, scene, encode):
    limits = ImageLimits(max_bytes=IN_FLIGHT_BYTES + 12_345)
    good = encode(scene(64, 48), "JPEG")
    bodies = [good, b"\xff", b"", good.ljust(limits.max_bytes, b"\0"), b"x" * limits.max_bytes, b"x", good]
    with pool_of(len(bodies), limits=limits, memory_bytes=600_000_000) as pool:
        facts = list(pool.decode(enumerate(bodies)))
        too_long = list(pool.decode([(0, b"x" * (limits.max_bytes + 1)), (1, good)]))
    one_verdict_each(facts, bodies)
    assert {fact.slot for fact in facts if fact.ok} >= {0, 6}
    assert {(fact.slot, fact.reason) for fact in too_long} == {(0, ReasonCode.FILE_TOO_LARGE), (1, None)}


def test_the_arena_is_not_counted_against_what_a_photo_may_need(pool_of, scene, encode):
    with pool_of(1, limits=ImageLimits(max_bytes=2_000_000_000), memory_bytes=400_000_000) as pool:
        assert [fact.ok for fact in pool.decode([(0, encode(scene(64, 48), "JPEG"))])] == [True]


def test_bodies_wait_where_the_arena_has_no_room_left(pool_of, monkeypatch):
    monkeypatch.setattr(pool_module, "IN_FLIGHT_BYTES", 4096)
    draw = random.Random(1)
    limits = ImageLimits(max_bytes=60_000)
    lengths = [draw.choice((1, 100, 5000, 20_000, 40_000, 60_000, 60_001)) for _ in range(300)]
    bodies = [draw.randbytes(length) for length in lengths]
    with pool_of(300, limits=limits) as pool:
        facts = list(pool.decode(enumerate(bodies)))
        assert pool._shared()._rooms.parts == [(0, pool._shared().size_bytes)]  # nothing was lost on the way
    one_verdict_each(facts, bodies)
    assert sum(fact.reason is ReasonCode.FILE_TOO_LARGE for fact in facts) == lengths.count(60_001)


def test_thousands_of_tiny_bodies(pool_of):
    bodies = [b"%d" % number for number in range(3000)]
    with pool_of(len(bodies)) as pool:
        facts = list(pool.decode(enumerate(bodies)))
    one_verdict_each(facts, bodies)
    assert {fact.reason for fact in facts} == {ReasonCode.NOT_AN_IMAGE}


def test_a_new_interpreter_finds_in_the_arena_what_was_in_flight(pool_of, scene, encode):
    photos = [encode(scene(320, 240, seed=seed), "JPEG") for seed in range(20)]
    bodies = [photos[number % 20] + b"%d" % number for number in range(200)]
    with pool_of(200) as pool:

        def source():
            for slot, body in enumerate(bodies):
                if slot in {90, 150}:
                    os.kill(pool.pid, signal.SIGKILL)
                yield slot, body

        facts = list(pool.decode(source()))
    one_verdict_each(facts, bodies)
    assert all(fact.ok for fact in facts)


@linux
def test_a_process_without_standard_streams_decodes_too(tmp_path):
    create_pixels(tmp_path / "pixels.npy", count=1)
    script = """if True:
        import sys
        from pathlib import Path
        from refund.imaging.pool import DecoderPool
        from refund.records import ImageLimits

        folder = Path(sys.argv[1])
        options = {"limits": ImageLimits(), "workers": 1, "memory_bytes": 10**9, "timeout_s": 60}
        with DecoderPool(folder / "pixels.npy", **options) as pool:
            (fact,) = pool.decode([(0, b"junk")])
        (folder / "answer").write_text(str(fact.reason))
    """
    subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", script, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        timeout=60,
    )
    assert (tmp_path / "answer").read_text() == "not_an_image"
