"""Decoders that a photo has taken over: whatever they do, it costs that photo alone, and no other photo's bytes change.

Processes, pipes, limits and memory are the real ones; only `examine_photo`, where a decoder's bug would strike, is
replaced in the decoding interpreter by one that does as the photo says.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import replace

import pytest

from refund.errors import ReasonCode
from refund.imaging import pool as pool_module
from refund.imaging.pack import create_pixels
from refund.imaging.pool import DecoderPool
from refund.records import ImageLimits, PhotoFacts

MARK = b"obey: "
TAKEN_OVER = '''
import contextlib, ctypes, fcntl, json, mmap, os, re, signal, socket, stat, struct, time
from pathlib import Path
from refund.imaging import examine

examine_really = examine.examine_photo


def examine_photo(slot, body, **options):
    if not body.startswith(b"obey: "):
        return examine_really(slot, body, **options)
    deed = body.decode().removeprefix("obey: ").split()[0]
    told = DEEDS[deed]()
    facts, _ = examine_really(slot, body, **options)
    object.__setattr__(facts, "detail", told)
    return facts, None


def to_server():
    for name in os.listdir("/proc/self/fd"):
        try:
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                return socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue


def say(frames):
    to_server().sendall(frames)
    time.sleep(3600)


def answer(ticket, payload):
    text = json.dumps(payload).encode()
    return struct.pack("!QI", ticket, len(text)) + text


def spin():
    while True:
        pass


def arena():
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "refund-photos" in line:
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            return start, end - start, line.split()[1]


def seem_starved():
    """Have it look as if the kernel's out-of-memory killer had been at work meanwhile."""
    Path(__file__).with_name("vmstat").write_text(f"oom_kill {time.monotonic_ns()}")


def hang_up():
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                os.close(int(name))
    time.sleep(3600)


def outcome(attempt):
    try:
        attempt()
    except OSError as exc:
        return exc.strerror
    return "DONE"


def protect(start, length):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.PROT_READ | mmap.PROT_WRITE):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def scribble():
    """Try all ways to change what others decode; tell what came of each."""
    start, length, rights = arena()
    mine = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if int(name) > 2 and
            os.path.lexists(f"/proc/self/fd/{name}")]
    said = {"rights": rights, "inherited": sum("refund-photos" in name for name in mine)}
    said["mprotect"] = outcome(lambda: protect(start, length))
    for owner in (os.getppid(), int(Path(f"/proc/{os.getppid()}/stat").read_text().rsplit(")", 1)[1].split()[1])):
        for link in Path(f"/proc/{owner}/fd").iterdir():
            if "refund-photos" in os.readlink(link):
                fd = os.open(link, os.O_RDWR)  # of the same user, so it opens
                said["write"] = outcome(lambda: os.pwrite(fd, b"x" * 64, 0))
                said["map"] = outcome(lambda: mmap.mmap(fd, length))
                said["shrink"] = outcome(lambda: os.ftruncate(fd, 0))
                said["grow"] = outcome(lambda: os.ftruncate(fd, 2 * length))
                said["seal"] = outcome(lambda: fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE))
                said["punch"] = outcome(lambda: punch(fd, length))
    return json.dumps(said)


def punch(fd, length):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate(fd, 3, ctypes.c_long(0), ctypes.c_long(length)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


DEEDS = {
    "segfault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "exit_well": lambda: os._exit(0),
    "swell": lambda: bytearray(10**11),
    "spin": spin,
    "sleep": lambda: time.sleep(3600),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "garbage": lambda: say(b"\\xff" * 500),
    "no_json": lambda: say(struct.pack("!QI", 1, 3) + b"\\xff{]"),
    "no_facts": lambda: say(answer(1, {"reason": None})),
    "for_another": lambda: say(answer(10**9, {"reason": "corrupt"})),
    "half_an_answer": lambda: (to_server().sendall(struct.pack("!QI", 1, 99)), os._exit(0)),
    "garbage_meanwhile": lambda: (seem_starved(), say(b"\\xff" * 500)),
    "hang_up_meanwhile": lambda: (seem_starved(), hang_up()),
    "store": lambda: ctypes.memset(arena()[0], 0, 64),
    "scribble": scribble,
}
examine.examine_photo = examine_photo
'''

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
def taken_over(tmp_path, monkeypatch):
    """Make of `DecoderPool` one whose decoders obey; gives a function that decodes bodies and returns facts by slot."""
    folder = tmp_path / "taken-over"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(TAKEN_OVER)
    scrubbed = pool_module._scrubbed

    def with_folder(environ: os._Environ[str]) -> dict[str, str]:
        kept = scrubbed(environ)
        return {**kept, "PYTHONPATH": os.pathsep.join([str(folder), kept["PYTHONPATH"]])}

    monkeypatch.setattr(pool_module, "_scrubbed", with_folder)

    def decode(bodies: list[bytes], *, workers: int = 2, timeout_s: float = 20.0) -> dict[int, PhotoFacts]:
        path = tmp_path / "pixels.npy"
        create_pixels(path, count=len(bodies))
        pool = DecoderPool(path, limits=ImageLimits(), workers=workers, memory_bytes=1_500_000_000, timeout_s=timeout_s)
        pool._config = replace(pool._config, kernel_counts=str(folder / "vmstat"))
        with pool:
            facts = list(pool.decode(enumerate(bodies)))
        assert sorted(fact.slot for fact in facts) == list(range(len(bodies))), "not one verdict for each photo"
        for fact in facts:
            assert fact.sha256 == hashlib.sha256(bodies[fact.slot]).hexdigest()
        return {fact.slot: fact for fact in facts}

    return decode


@pytest.fixture
def photos(scene, encode) -> list[bytes]:
    return [encode(scene(64, 48, seed=seed), "JPEG") for seed in range(30)]


def bad(facts: dict[int, PhotoFacts]) -> dict[int, PhotoFacts]:
    return {slot: fact for slot, fact in facts.items() if not fact.ok}


DIED = "the decoder died twice over this photo, the last time "
BABBLED = "the decoder answered with something else than facts about this photo, twice"


DEATHS = {
    "segfault": (ReasonCode.DECODE_CRASHED, DIED + "by signal SIGSEGV"),
    "abort": (ReasonCode.DECODE_CRASHED, DIED + "by signal SIGABRT"),
    "exit_well": (ReasonCode.DECODE_CRASHED, DIED + "with exit status 0"),
    "half_an_answer": (ReasonCode.DECODE_CRASHED, DIED + "with exit status 0"),
    "store": (ReasonCode.DECODE_CRASHED, DIED + "by signal SIGSEGV"),
    "swell": (ReasonCode.DECODE_MEMORY, "decoding needed more than 1,500 MB of memory, twice"),
    "garbage": (ReasonCode.DECODE_CRASHED, BABBLED),
    "no_json": (ReasonCode.DECODE_CRASHED, BABBLED),
    "no_facts": (ReasonCode.DECODE_CRASHED, BABBLED),
    "for_another": (ReasonCode.DECODE_CRASHED, BABBLED),
}


def test_decoders_that_are_taken_over_cost_one_photo_each_and_the_pool_heals(taken_over, photos):
    deeds = {2 * number + 5: deed for number, deed in enumerate(DEATHS)}
    bodies = list(photos)
    for slot, deed in deeds.items():
        bodies.insert(slot, MARK + deed.encode())
    facts = bad(taken_over(bodies))
    assert {slot: (fact.reason, fact.detail) for slot, fact in facts.items()} == {
        slot: DEATHS[deed] for slot, deed in deeds.items()
    }


def test_what_the_pool_ends_itself_did_not_starve_whatever_the_kernel_does_meanwhile(taken_over, photos):
    bodies = [*photos[:3], MARK + b"garbage_meanwhile", MARK + b"hang_up_meanwhile", *photos[3:6]]
    facts = bad(taken_over(bodies))
    assert {slot: (fact.reason, fact.detail) for slot, fact in facts.items()} == {
        3: (ReasonCode.DECODE_CRASHED, BABBLED),
        4: (ReasonCode.DECODE_CRASHED, DIED + "by signal SIGKILL"),
    }


def test_decoders_that_hang_in_any_way_cost_their_photos(taken_over, photos):
    deeds = {5: "spin", 6: "sleep", 25: "stop"}
    bodies = [MARK + deeds[slot].encode() if slot in deeds else body for slot, body in enumerate(photos)]
    facts = bad(taken_over(bodies, timeout_s=1.0))
    expected = (ReasonCode.DECODE_TIMEOUT, "decoding took longer than 1 seconds, twice")
    assert {slot: (fact.reason, fact.detail) for slot, fact in facts.items()} == dict.fromkeys(deeds, expected)


def test_photos_behind_one_that_hangs_do_not_wait_for_its_second_try(taken_over, photos):
    facts = taken_over([MARK + b"spin", *photos[:6]], workers=1, timeout_s=1.0)
    assert list(facts)[-1] == 0  # in the order that they got ready
    assert set(bad(facts)) == {0}


def test_no_decoder_can_change_the_bytes_of_photos_in_flight(taken_over, photos):
    (slot, fact), *others = bad(taken_over([*photos[:10], MARK + b"scribble", *photos[10:]])).items()
    assert (slot, others) == (10, [])
    assert fact.detail is not None
    said = json.loads(fact.detail)
    assert said.pop("grow") in {"Operation not permitted", "File too large"}  # a limit of the child may come first
    assert said == {
        "rights": "r--s",
        "inherited": 0,
        "mprotect": "Permission denied",
        **dict.fromkeys(("write", "map", "shrink", "seal", "punch"), "Operation not permitted"),
    }
