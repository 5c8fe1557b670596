"""The isolated pool: same results as in this process, one fact per photo whatever happens, and nothing left behind."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
import textwrap
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from refund.errors import DecoderPoolError, MemoryShortageError, ReasonCode, StagingMissingError
from refund.imaging.examine import examine_photo
from refund.imaging.pack import create_pixels, open_pixels
from refund.imaging.pool import IN_FLIGHT_PHOTOS_PER_WORKER, DecoderPool
from refund.records import ImageLimits

LIMITS = ImageLimits()
PATIENCE_S = 30.0


@pytest.fixture
def pool_of(tmp_path):
    def make(count: int, **overrides) -> DecoderPool:
        path = tmp_path / "pixels.npy"
        create_pixels(path, count=count)
        options = {"limits": LIMITS, "workers": 2, "memory_bytes": 1_500_000_000, "timeout_s": 20.0, **overrides}
        return DecoderPool(path, **options)

    return make


@pytest.fixture
def photos(scene, encode) -> list[bytes]:
    return [encode(scene(seed=seed), "JPEG") for seed in range(40)]


@pytest.fixture(scope="module")
def slow_photo() -> bytes:
    """A valid picture whose decoding takes seconds: a run-length encoded BMP of one-pixel runs."""
    width, height = 2000, 1500
    runs = (b"\1\7" * width + b"\0\0") * height + b"\0\1"
    palette = bytes(range(256)) * 4
    header = b"BM" + struct.pack("<IHHI", 54 + 1024 + len(runs), 0, 0, 54 + 1024)
    header += struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return header + palette + runs


def wait_until(holds, what: str):
    give_up_at = time.monotonic() + PATIENCE_S
    while not (found := holds()):
        assert time.monotonic() < give_up_at, f"waited in vain until {what}"
        time.sleep(0.01)
    return found


def family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def busy_child(pool: DecoderPool, besides: set[int]) -> int | None:
    """A child that has been working for a while, and is not one of ``besides``."""
    for process in family(pool.pid or 0)[1:]:
        try:
            if process.pid not in besides and process.cpu_times().user > 0.3:
                return process.pid
        except psutil.NoSuchProcess:
            continue
    return None


def test_the_pool_gives_what_this_process_gives(pool_of, photos):
    bodies = [*photos, b"", b"junk", photos[0][:900], b"\x89PNG\r\n\x1a\n" + b"x" * 50]
    with pool_of(len(bodies)) as pool:
        facts = sorted(pool.decode(enumerate(bodies)), key=lambda each: each.slot)
    expected = [examine_photo(slot, body, limits=LIMITS) for slot, body in enumerate(bodies)]
    assert facts == [fact for fact, _ in expected]
    pixels = open_pixels(pool_path(pool))
    for slot, (_, wanted) in enumerate(expected):
        assert np.array_equal(pixels[slot], np.zeros_like(pixels[slot]) if wanted is None else wanted)


def pool_path(pool: DecoderPool) -> Path:
    return Path(pool._config.pixels_path)


def test_slots_need_not_come_in_order(pool_of, photos):
    with pool_of(40) as pool:
        facts = list(pool.decode((slot, photos[slot]) for slot in (7, 3, 39)))
    assert sorted(fact.slot for fact in facts) == [3, 7, 39]


def test_nothing_in_nothing_out_and_twice(pool_of, photos):
    with pool_of(1) as pool:
        assert list(pool.decode([])) == []
        assert [fact.ok for fact in pool.decode([(0, photos[0])])] == [True]
        assert [fact.ok for fact in pool.decode([(0, photos[1])])] == [True]


def test_photos_larger_than_every_pipe_do_not_block_it(pool_of, scene, encode):
    body = encode(scene(1400, 1200), "BMP")
    with pool_of(24, workers=1) as pool:
        assert sum(fact.ok for fact in pool.decode((slot, body) for slot in range(24))) == 24


def test_too_large_a_file_never_reaches_the_pool(pool_of):
    with pool_of(1, limits=ImageLimits(max_bytes=10)) as pool:
        (fact,) = pool.decode([(0, b"x" * 11)])
    assert (fact.reason, fact.detail) == (ReasonCode.FILE_TOO_LARGE, "the file has 11 bytes, expected at most 10")


def test_it_pulls_only_a_window_ahead(pool_of, photos):
    pulled = 0

    def source():
        nonlocal pulled
        for slot in range(400):
            pulled += 1
            yield slot, photos[0]

    with pool_of(400, workers=1) as pool:
        for given, _ in enumerate(pool.decode(source())):
            assert pulled - given <= IN_FLIGHT_PHOTOS_PER_WORKER + 1
    assert (pulled, given) == (400, 399)


def test_a_photo_that_swells_costs_itself_alone(pool_of, photos, encode):
    bomb = encode(Image.new("RGBA", (4000, 4000), (1, 2, 3, 100)), "PNG")
    with pool_of(9, memory_bytes=300_000_000) as pool:
        facts = {fact.slot: fact for fact in pool.decode(enumerate([*photos[:4], bomb, *photos[4:8]]))}
    assert [slot for slot, fact in facts.items() if not fact.ok] == [4]
    assert facts[4].reason is ReasonCode.DECODE_MEMORY
    assert facts[4].detail == "decoding needed more than 300 MB of memory, twice"
    assert len(facts) == 9


def test_a_photo_that_hangs_costs_itself_alone(pool_of, photos, slow_photo):
    with pool_of(9, timeout_s=0.5) as pool:
        facts = {fact.slot: fact for fact in pool.decode(enumerate([*photos[:4], slow_photo, *photos[4:8]]))}
    assert [slot for slot, fact in facts.items() if not fact.ok] == [4]
    assert facts[4].reason is ReasonCode.DECODE_TIMEOUT
    assert facts[4].detail == "decoding took longer than 0.5 seconds, twice"
    assert len(facts[4].sha256) == 64


def test_a_photo_over_which_the_child_dies_twice_costs_itself_alone(pool_of, photos, slow_photo):
    killed: set[int] = set()

    def kill_twice(pool):
        for _ in range(2):
            pid = wait_until(lambda: busy_child(pool, killed), "a child decodes the slow photo")
            killed.add(pid)
            os.kill(pid, signal.SIGSEGV)

    with pool_of(9, workers=1, timeout_s=60.0) as pool:
        killer = threading.Thread(target=kill_twice, args=(pool,))
        killer.start()
        facts = {fact.slot: fact for fact in pool.decode(enumerate([*photos[:4], slow_photo, *photos[4:8]]))}
        killer.join()
    assert [slot for slot, fact in facts.items() if not fact.ok] == [4]
    assert facts[4].reason is ReasonCode.DECODE_CRASHED
    assert facts[4].detail == "the decoder died twice over this photo, the last time by signal SIGSEGV"


def test_a_child_that_is_shot_once_costs_nothing(pool_of, photos):
    with pool_of(40) as pool:

        def source():
            for slot, body in enumerate(photos):
                if slot == 20:
                    os.kill(psutil.Process(pool.pid).children()[0].pid, signal.SIGKILL)
                yield slot, body

        facts = list(pool.decode(source()))
    assert sorted(fact.slot for fact in facts if fact.ok) == list(range(40))


def counting_in(pool: DecoderPool, counts: Path) -> None:
    """Have the pool read this file for what the kernel's out-of-memory killer has ended so far: three."""
    counts.write_text("nr_free_pages 7\noom_kill 3\n")
    pool._config = replace(pool._config, kernel_counts=str(counts))


def as_the_kernel_does(pool: DecoderPool, counts: Path, times: int) -> threading.Thread:
    """Kill busy children and count it where the pool looks, as the kernel's out-of-memory killer would."""
    counting_in(pool, counts)
    killed: set[int] = set()

    def kill():
        for number in range(times):
            pid = wait_until(lambda: busy_child(pool, killed), "a child decodes the slow photo")
            killed.add(pid)
            counts.write_text(f"nr_free_pages 7\noom_kill {4 + number}\n")
            os.kill(pid, signal.SIGKILL)

    return threading.Thread(target=kill)


def test_where_memory_runs_out_no_photo_is_blamed_and_fewer_children_go_on(
    pool_of, photos, slow_photo, tmp_path, caplog
):
    pool = pool_of(9, workers=3, timeout_s=60.0)
    killer = as_the_kernel_does(pool, tmp_path / "vmstat", 2)
    with pool:
        killer.start()
        facts = sorted(pool.decode(enumerate([*photos[:4], slow_photo, *photos[4:8]])), key=lambda fact: fact.slot)
        killer.join()
        assert len(family(pool.pid)[1:]) == 1
    assert [(fact.slot, fact.reason) for fact in facts] == [(slot, None) for slot in range(9)]
    assert [record.getMessage() for record in caplog.records] == [
        "The kernel's out-of-memory killer ended a decoding child. Its photos are decoded again, children left: "
        f"{left}. Give the worker more memory or fewer tasks at once"
        for left in (2, 1)
    ]


def unread_bytes(pool: DecoderPool) -> int:
    """How much of the interpreter's answers lies in the pipe."""
    assert pool._interpreter is not None
    count = fcntl.ioctl(pool._interpreter._stdout.fileno(), termios.FIONREAD, bytes(4))
    return int.from_bytes(count, sys.byteorder)


def test_a_child_lost_before_anybody_read_that_the_pool_is_ready_costs_nothing(pool_of, photos, tmp_path, caplog):
    """`validate` begins the pool, then waits for its first photo: both messages are then read together."""
    pool = pool_of(40)
    counting_in(pool, tmp_path / "vmstat")
    with closing(pool):
        pool.begin()
        ready = wait_until(lambda: unread_bytes(pool), "the interpreter says that it is ready")
        (tmp_path / "vmstat").write_text("oom_kill 4\n")
        family(pool._interpreter._process.pid)[1].kill()
        wait_until(lambda: unread_bytes(pool) > ready, "it says that a child is gone")
        facts = list(pool.decode(enumerate(photos)))
    assert sorted(fact.slot for fact in facts if fact.ok) == list(range(40))
    assert [record.getMessage().partition(". Its")[0] for record in caplog.records] == [
        "The kernel's out-of-memory killer ended a decoding child"
    ]


def test_children_that_starve_without_a_photo_end_the_pool_only_when_none_stays_alive(pool_of, tmp_path):
    counts = tmp_path / "vmstat"
    pool = pool_of(1, workers=3)
    counting_in(pool, counts)
    killed: set[int] = set()
    text = "5 decoding children died without a photo, the last ended by the kernel's out-of-memory killer; give the"
    with pool:
        for number in range(2 + 5):
            child = wait_until(lambda: [c for c in family(pool.pid)[1:] if c.pid not in killed], "a child is there")[0]
            killed.add(child.pid)
            counts.write_text(f"oom_kill {4 + number}\n")
            child.kill()
            wait_until(lambda child=child: is_gone(child) and not psutil.pid_exists(child.pid), "it was buried")
        with pytest.raises(MemoryShortageError, match=text):
            list(pool.decode([(0, b"no photo")]))


def test_where_memory_runs_out_for_the_last_child_that_is_said_and_no_photo_rejected(pool_of, slow_photo, tmp_path):
    pool = pool_of(1, workers=1, timeout_s=60.0)
    killer = as_the_kernel_does(pool, tmp_path / "vmstat", 2)
    text = r"the kernel's out-of-memory killer ended the last decoding child over a single photo; give the worker more"
    with pool:
        killer.start()
        with pytest.raises(MemoryShortageError, match=text):
            list(pool.decode([(0, slow_photo)]))
        killer.join()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_where_memory_runs_out_the_kernel_takes_a_child_before_the_task(pool_of, photos):
    own = Path("/proc/self/oom_score_adj").read_text()
    with pool_of(1, workers=1) as pool:
        list(pool.decode([(0, photos[0])]))
        scores = [Path(f"/proc/{process.pid}/oom_score_adj").read_text() for process in family(pool.pid)]
    assert scores == [own, "1000\n"]


def test_an_interpreter_that_is_shot_once_costs_nothing(pool_of, photos):
    with pool_of(40) as pool:

        def source():
            for slot, body in enumerate(photos):
                if slot == 20:
                    os.kill(pool.pid, signal.SIGKILL)
                yield slot, body

        facts = list(pool.decode(source()))
    assert sorted(fact.slot for fact in facts if fact.ok) == list(range(40))


def test_an_interpreter_that_dies_again_and_again_is_an_error(pool_of, slow_photo):
    with pool_of(1, timeout_s=60.0) as pool:
        shot: set[int] = set()

        def shoot():
            for _ in range(3):
                pid = wait_until(lambda: pool.pid if pool.pid not in {None, *shot} else None, "it starts again")
                shot.add(pid)
                os.kill(pid, signal.SIGKILL)

        killer = threading.Thread(target=shoot)
        killer.start()
        with pytest.raises(
            DecoderPoolError, match=r"died 3 times in a row \(exit status -9\); .* REFUND_DECODE_WORKERS"
        ):
            list(pool.decode([(0, slow_photo)]))
        killer.join()


def test_a_pack_that_is_not_there_or_of_another_size_is_told_at_the_start(pool_of, tmp_path):
    with pytest.raises(DecoderPoolError, match=r"holds 224 x 224 pixels, the pool was made for \(96, 96\)"):
        pool_of(1, size=(96, 96)).__enter__()
    (tmp_path / "pixels.npy").write_bytes(b"no pack")
    with pytest.raises(DecoderPoolError, match=r"found no \.npy header"):
        DecoderPool(tmp_path / "pixels.npy", limits=LIMITS, workers=1, memory_bytes=10**9, timeout_s=1).__enter__()
    (tmp_path / "pixels.npy").unlink()
    with pytest.raises(StagingMissingError, match=r"pixels\.npy is not there"):
        DecoderPool(tmp_path / "pixels.npy", limits=LIMITS, workers=1, memory_bytes=10**9, timeout_s=1).__enter__()


def test_an_interpreter_that_cannot_start_says_why(pool_of, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(DecoderPoolError, match=r"/nonexistent/python could not be started .* No such file"):
        pool_of(1).__enter__()


def test_a_slot_that_the_pack_lacks_is_refused(pool_of, photos):
    with pool_of(2) as pool, pytest.raises(ValueError, match="slot 2 does not exist, the pack has 2"):
        list(pool.decode([(2, photos[0])]))


def test_a_call_given_up_halfway_does_not_answer_the_next(pool_of, photos):
    with pool_of(40) as pool:
        answers = pool.decode(enumerate(photos))
        next(answers)
        answers.close()
        assert [fact.slot for fact in pool.decode([(5, photos[5])])] == [5]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_decoding_processes_know_no_secret(pool_of, photos, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("AIRFLOW_CONN_REFUND_DB", "postgres://hunter2")
    with pool_of(2) as pool:
        list(pool.decode([(0, photos[0])]))
        processes = family(pool.pid)
        assert len(processes) == 3
        for process in processes:
            environ = Path(f"/proc/{process.pid}/environ").read_bytes()
            assert b"hunter2" not in environ
            names = {entry.split(b"=")[0].decode() for entry in environ.split(b"\0") if entry}
            assert names <= {
                "PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS",
            }  # fmt: skip
            assert b"hunter2" not in Path(f"/proc/{process.pid}/cmdline").read_bytes()


def test_leaving_ends_every_process(pool_of, photos):
    with pool_of(2) as pool:
        list(pool.decode([(0, photos[0])]))
        processes = family(pool.pid)
    assert len(processes) == 3
    assert all(is_gone(process) for process in processes)
    assert pool.pid is None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_parent_that_is_killed_leaves_no_process_and_no_file(tmp_path, slow_photo, number):
    create_pixels(tmp_path / "pixels.npy", count=1)
    (tmp_path / "slow.bmp").write_bytes(slow_photo)
    (tmp_path / "tmp").mkdir()
    named_memory = set(Path("/dev/shm").glob("refund*"))
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from refund.imaging.pool import DecoderPool
        from refund.records import ImageLimits

        folder = Path(sys.argv[1])
        with DecoderPool(
            folder / "pixels.npy", limits=ImageLimits(), workers=2, memory_bytes=10**9, timeout_s=60
        ) as pool:
            assert "numpy" not in sys.modules and "PIL" not in sys.modules
            print(pool.pid, flush=True)
            list(pool.decode([(0, (folder / "slow.bmp").read_bytes())]))
    """)
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path / "tmp")},
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        processes = family(pid)
        wait_until(lambda: any(child.cpu_times().user > 0.3 for child in processes[1:]), "a child is busy")
        parent.send_signal(number)
    assert len(processes) == 3
    wait_until(lambda: all(is_gone(process) for process in processes), "they are gone")
    # The arena has no name: with the last of these processes the kernel freed it.
    assert list((tmp_path / "tmp").iterdir()) == []
    assert set(Path("/dev/shm").glob("refund*")) <= named_memory
