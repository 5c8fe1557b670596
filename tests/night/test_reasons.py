"""Every reason code once, given by the real `validate` to a photo that is at fault in just that way."""

from __future__ import annotations

import io
import os
import signal
import struct
import threading
import time
from dataclasses import replace
from typing import Any

import psutil
import pytest
from PIL import Image

from refund.errors import ReasonCode
from refund.night.fetch import fetch_manifest
from refund.store.objects import ObjectStore
from tests.faults.s3_proxy import QUICK, Rule, s3_proxy
from tests.night.conftest import World
from tests.night.factories import jpeg

PHOTO = jpeg(1, width=120, height=90)
LIMITS = {"max_bytes": 100_000, "max_side_px": 400}


def picture(image_format: str, mode: str = "RGB", size: tuple[int, int] = (64, 64)) -> bytes:
    body = io.BytesIO()
    Image.new(mode, size, 7).save(body, image_format)
    return body.getvalue()


def slow_picture() -> bytes:
    """A valid picture whose decoding takes seconds: a run-length encoded BMP of one-pixel runs."""
    width, height = 2000, 1500
    runs = (b"\1\7" * width + b"\0\0") * height + b"\0\1"
    header = b"BM" + struct.pack("<IHHI", 54 + 1024 + len(runs), 0, 0, 54 + 1024)
    header += struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return header + bytes(range(256)) * 4 + runs


OF_THE_FILE = {
    "empty_file": b"",
    "file_too_large": b"x" * (LIMITS["max_bytes"] + 1),
    "not_an_image": b"Customer says it was broken",
    "unsupported_format": picture("TIFF"),
    "corrupt": picture("PNG").replace(b"IHDR", b"IHDX"),
    "truncated": PHOTO[: len(PHOTO) // 2],
    "too_small": jpeg(1, width=20, height=20),
    "too_large": jpeg(1, width=LIMITS["max_side_px"] + 1, height=40),
}
OF_THE_STORE = ("vanished", "changed", "body_mismatch", "unreadable")
OF_THE_DECODER = ("decode_timeout", "decode_memory", "decode_crashed")


def verdicts(world: World) -> dict[str, str]:
    """Reason by the name of the photo."""
    return {
        key.rpartition("/")[2]: reason for key, reason in world.rows("SELECT key, reason FROM reporting.rejections")
    }


def with_settings(world: World, **settings: Any) -> World:
    return replace(world, services=replace(world.services, settings=replace(world.services.settings, **settings)))


def test_no_code_is_left_out() -> None:
    assert {*OF_THE_FILE, *OF_THE_STORE, *OF_THE_DECODER} == set(ReasonCode)


def test_every_code_of_a_file_or_the_store_is_given_to_its_photo(world: World) -> None:
    for name, body in {**OF_THE_FILE, **dict.fromkeys(OF_THE_STORE, PHOTO), "fine": PHOTO}.items():
        world.put(f"R-1/{name}", body)
    rules = (
        Rule(do="status", key="/unreadable", status=403, code="InvalidObjectState"),
        Rule(do="shorter", key="/body_mismatch"),
    )
    with s3_proxy(world.s3, *rules) as proxy:
        world = with_settings(world, **LIMITS)
        store = ObjectStore(proxy.access, patience=QUICK)
        world = replace(world, services=replace(world.services, objects=store))
        run = world.start("r1")
        (shard,) = fetch_manifest(run, world.services)
        world.services.objects.delete("incoming/2026-11-21/R-1/vanished")
        world.put("R-1/changed", PHOTO + b"\0")
        world.shard(shard, run)
        assert world.finish(run)["classified"] == 1
    assert verdicts(world) == {name: name for name in (*OF_THE_FILE, *OF_THE_STORE)}


@pytest.mark.slow
def test_every_code_of_the_decoder_is_given_to_its_photo(world: World) -> None:
    def night(run_id: str, **settings: Any) -> dict[str, int]:
        return with_settings(world, **settings).night(run_id)

    world.put("R-1/fine", PHOTO)
    key = world.put("R-1/decode_memory", picture("PNG", "RGBA", (4000, 4000)))
    assert night("r1", decode_timeout_s=60.0, decode_memory_bytes=300_000_000)["rejected"] == 1
    world.services.objects.delete(key)
    key = world.put("R-1/decode_timeout", slow_picture())
    assert night("r2", decode_timeout_s=1.0)["rejected"] == 1
    world.services.objects.delete(key)
    world.put("R-1/decode_crashed", slow_picture())
    stop = threading.Event()
    killer = threading.Thread(target=_kill_whoever_decodes, args=(stop,))
    killer.start()
    try:
        assert night("r3", decode_timeout_s=60.0)["rejected"] == 1
    finally:
        stop.set()
        killer.join()
    assert verdicts(world) == {name: name for name in OF_THE_DECODER}


def _kill_whoever_decodes(stop: threading.Event) -> None:
    """A decoder that dies over a photo: every child of the interpreter that has worked on one for a while."""
    while not stop.is_set():
        for interpreter in psutil.Process().children():
            try:
                if "refund.imaging.pool" in " ".join(interpreter.cmdline()):
                    for child in interpreter.children():
                        if child.cpu_times().user > 0.3:
                            os.kill(child.pid, signal.SIGSEGV)
            except (psutil.NoSuchProcess, ProcessLookupError):
                continue
        time.sleep(0.02)
