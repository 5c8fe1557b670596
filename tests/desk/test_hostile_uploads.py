"""Uploads that mean harm or merely are odd: each gets one clear answer, and the desk goes on."""

from __future__ import annotations

import io
import json
import socket
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image

from refund.desk.throttle import MOST_OF_ONE_PERSON
from tests.desk.conftest import DeskWorld, desk_in
from tests.desk.serving import serve
from tests.desk.test_classify import post, post_batch
from tests.desk.test_engine import decoders_that_obey  # noqa: F401  (a fixture)
from tests.imaging.test_pool_hostile import MARK
from tests.night.conftest import World
from tests.night.factories import jpeg

MAX_BYTES = 16 * 1024 * 1024
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def shared_desk(shared_world: World) -> Iterator[DeskWorld]:
    with desk_in(shared_world, desk_requests_per_minute=10_000, desk_upload_timeout_s=4.0) as made:
        yield made


@pytest.fixture(scope="module")
def client(shared_desk: DeskWorld) -> Any:
    return shared_desk.sign_in("ana")


def picture(image_format: str, **options: Any) -> bytes:
    """The left half red, the right half green."""
    pixels = np.zeros((60, 80, 3), dtype=np.uint8)
    pixels[:, :40, 0] = pixels[:, 40:, 1] = 200
    body = io.BytesIO()
    Image.fromarray(pixels).save(body, image_format, **options)
    return body.getvalue()


def bomb(side: int) -> bytes:
    """A PNG of ``side`` x ``side`` pixels in a few kilobytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack("!I", len(body)) + kind + body + struct.pack("!I", zlib.crc32(kind + body))

    header = struct.pack("!IIBBBBB", side, side, 1, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    rows = bytes(100 * (1 + -(-side // 8)))
    body = b"".join(packer.compress(rows) for _ in range(side // 100)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def archive() -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as packed:
        packed.writestr("cup.jpg", jpeg(1))
    return body.getvalue()


def error(answer: Any) -> tuple[int, str]:
    told = answer.json()
    assert told["status"] == "error"
    assert told["message"]
    assert told["what_to_do"]
    assert told["request_id"] == answer.headers["x-request-id"]
    return answer.status_code, told["error"]


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_every_format_is_taken_whatever_the_name_says(client: Any, image_format: str) -> None:
    told = post(client, ("photo.tiff", picture(image_format))).json()
    assert (told["status"], told["image"]["format"]) == ("success", image_format)


def test_a_photo_turned_by_exif_is_turned_before_it_is_classified(client: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = post(client, ("turned.png", picture("PNG", exif=exif.tobytes()))).json()
    assert (turned["image"]["width_px"], turned["image"]["height_px"]) == (60, 80)
    assert "gps" not in json.dumps(turned).lower()


def test_a_zip_named_jpg_is_no_image(client: Any) -> None:
    answer = post(client, ("cup.jpg", archive()))
    assert error(answer) == (415, "not_an_image")


def test_a_picture_of_900_million_pixels_is_refused_before_it_is_unpacked(client: Any) -> None:
    body = bomb(30_000)
    assert len(body) < 200_000
    answer = post(client, ("big.png", body))
    assert error(answer) == (422, "too_large")
    message = answer.json()["message"]
    assert message.startswith("PNG that would unpack to far too many pixels (Image size (900000000 pixels) exceeds ")
    assert message.endswith(", expected sides of 32 to 4096 pixels")


def test_17_megabytes_are_refused_and_the_rest_of_a_batch_is_not(client: Any) -> None:
    large = b"\xff\xd8\xff" + bytes(17 * 1024 * 1024)
    assert error(post(client, ("large.jpg", large))) == (413, "file_too_large")
    told = post_batch(client, ("large.jpg", large), ("cup.jpg", jpeg(1))).json()
    assert [each["status"] for each in told["results"]] == ["error", "success"]
    said = "the file has 17,825,795 bytes, expected at most 16,777,216"
    assert told["invalid"] == [{"filename": "large.jpg", "error": "file_too_large", "message": said}]


@pytest.mark.parametrize(
    "name",
    [
        "'; DROP TABLE refund.trial; --.jpg",
        "<script>alert(1)</script>.jpg",
        '"><img src=x onerror=alert(1)>.jpg',
        "=cmd|'calc'!A1.jpg",
        "%s%(at)s{0}.jpg",
        "日本語 ü.jpg",
    ],
)
def test_hostile_names_are_names(client: Any, shared_world: World, name: str) -> None:
    answer = client.post("/api/classify", files={"image": (name, b"no photo", "text/html")})
    assert error(answer) == (415, "not_an_image")
    assert answer.headers["content-type"] == "application/json"
    told = answer.json()["filename"]
    rows = shared_world.rows(f"SELECT filename FROM refund.trial WHERE trial_id = {answer.json()['trial_id']}")
    assert rows == [(told,)]
    assert told.replace("%22", '"') == name.rpartition("/")[2]  # clients write a quote as %22


@pytest.mark.parametrize("field", ["file", "images", "'; DROP TABLE refund.trial; --", "<script>alert(1)</script>"])
def test_a_wrong_field_is_told_beside_the_right_one(client: Any, field: str) -> None:
    answer = client.post("/api/classify", files={field: ("cup.jpg", jpeg(1), "image/jpeg")})
    assert error(answer) == (422, "wrong_field")
    assert "expected 'image' with a photo" in answer.json()["message"]


def test_other_bodies_are_told_what_is_expected(client: Any) -> None:
    assert error(client.post("/api/classify", json={"image": "abc"})) == (415, "wrong_content_type")
    assert error(client.post("/api/classify")) == (415, "wrong_content_type")
    assert error(client.post("/api/classify", data={"image": "x"})) == (415, "wrong_content_type")
    multipart = {"Content-Type": "multipart/form-data; boundary=xyz"}
    assert error(client.post("/api/classify", content=b"--xyz--\r\n", headers=multipart)) == (422, "no_file")
    assert error(client.post("/api/classify", content=b"garbage", headers=multipart)) == (400, "malformed_body")


@pytest.mark.usefixtures("decoders_that_obey")
def test_a_photo_that_takes_over_its_decoder_costs_itself(shared_world: World) -> None:
    with desk_in(shared_world, desk_decode_timeout_s=1.0) as desk:
        client = desk.sign_in()
        told = post_batch(client, ("1.jpg", jpeg(1)), ("2.jpg", MARK + b"segfault"), ("3.jpg", jpeg(3))).json()
        assert [each.get("error") for each in told["results"]] == [None, "decode_crashed", None]
        answer = post(client, ("spin.jpg", MARK + b"spin"))
        assert error(answer) == (422, "decode_timeout")
        assert answer.json()["message"] == "decoding took longer than 1 seconds, twice"


# --- connections ------------------------------------------------------------------------------------------------------


def head(length: int) -> bytes:
    return (
        f"POST /refund/api/classify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n"
        "Content-Type: multipart/form-data; boundary=xyz\r\n\r\n"
    ).encode() + b'--xyz\r\nContent-Disposition: form-data; name="image"; filename="cup.jpg"\r\n\r\n'


def connect(url: str) -> socket.socket:
    place = urlsplit(url)
    assert place.hostname == "127.0.0.1"
    assert place.port is not None
    return socket.create_connection((place.hostname, place.port), timeout=PATIENCE_S)


def test_32_slow_bodies_of_one_person_are_sent_away_and_others_are_served_meanwhile(shared_desk: DeskWorld) -> None:
    shared_desk.sign_in("ana")
    with serve(shared_desk.app) as url:
        engine = shared_desk.app.state.desk.engine
        slow = [connect(url) for _ in range(MOST_OF_ONE_PERSON)]
        for connection in slow:
            connection.sendall(head(100_000) + b"x" * 100)
        give_up_at = time.monotonic() + PATIENCE_S
        while engine.room._uploads["ana"] < MOST_OF_ONE_PERSON:
            assert time.monotonic() < give_up_at
            time.sleep(0.01)
        ask = partial(httpx.post, f"{url}/api/classify", files={"image": ("cup.jpg", jpeg(1))}, timeout=PATIENCE_S)
        assert (ask().status_code, ask().json()["error"]) == (503, "busy")  # one more of ana's
        shared_desk.sign_in("bob")
        assert ask().json()["status"] == "success"
        assert engine.room._uploads["ana"] == MOST_OF_ONE_PERSON  # all of them were still under way
        for connection in slow:
            received = b""
            while piece := connection.recv(65536):  # until the server hangs up
                received += piece
            connection.close()
            assert received.startswith(b"HTTP/1.1 400 ")
            assert json.loads(received.partition(b"\r\n\r\n")[2])["error"] == "upload_too_slow"
        assert (engine.room._uploads.total(), engine.room.held_bytes) == (0, 0)


def test_an_upload_that_is_cut_off_leaves_nothing(shared_desk: DeskWorld, shared_world: World) -> None:
    before = shared_world.rows("SELECT count(*) FROM refund.trial")
    with serve(shared_desk.app) as url:
        engine = shared_desk.app.state.desk.engine
        connection = connect(url)
        connection.sendall(head(1_000_000) + b"x" * 500_000)
        while engine.room.held_bytes < 400_000:
            time.sleep(0.01)
        connection.close()
        give_up_at = time.monotonic() + PATIENCE_S
        while engine.room._uploads.total() or engine.room.held_bytes:
            assert time.monotonic() < give_up_at
            time.sleep(0.01)
    assert shared_world.rows("SELECT count(*) FROM refund.trial") == before


def test_of_a_body_without_end_no_more_is_held_than_one_photo(shared_desk: DeskWorld) -> None:
    sent_bytes = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent_bytes
        yield b'--xyz\r\nContent-Disposition: form-data; name="image"; filename="cup.jpg"\r\n\r\n'
        for _ in range(1000):
            sent_bytes += 65536
            yield bytes(65536)

    with serve(shared_desk.app) as url:
        engine = shared_desk.app.state.desk.engine
        largest = 0
        grow = engine.room.grow

        def watched(held: Any, size_bytes: int) -> None:
            nonlocal largest
            grow(held, size_bytes)
            largest = max(largest, engine.room.held_bytes)

        engine.room.grow = watched
        before = psutil.Process().memory_info().rss
        headers = {"Content-Type": "multipart/form-data; boundary=xyz"}
        answer = httpx.post(f"{url}/api/classify", content=endless(), headers=headers, timeout=PATIENCE_S)
        engine.room.grow = grow
        assert (answer.status_code, answer.json()["error"]) == (413, "file_too_large")
        assert largest <= MAX_BYTES
        assert psutil.Process().memory_info().rss - before < 3 * MAX_BYTES
