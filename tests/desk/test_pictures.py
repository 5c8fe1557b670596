"""Pictures: made anew in isolation, under addresses that hold for one person and a while."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import psutil
import pytest
from PIL import Image

from refund.desk.auth import Visitor
from refund.desk.pictures import Pictures, _Kept
from refund.desk.problems import DeskError
from refund.errors import ReasonCode, RejectedPhotoError
from tests.desk.conftest import DeskWorld, desk_in
from tests.desk.history_world import publish
from tests.night.conftest import DAY, World
from tests.night.factories import jpeg

ANA = Visitor(name="ana", may_write=True)
SCRIPT = b"<script>alert(document.domain)</script>"
GPS_NOTE = b"52.5200 N 13.4050 E"


def with_secrets() -> bytes:
    """A photo with EXIF (where it was taken), a comment that is a script, and a page after its end."""
    body = io.BytesIO()
    image = Image.open(io.BytesIO(jpeg(1, width=400, height=300)))
    exif = Image.Exif()
    exif[0x010E] = GPS_NOTE.decode()  # ImageDescription
    exif.get_ifd(0x8825)[1] = "N"
    image.save(body, "JPEG", exif=exif, comment=SCRIPT)
    return body.getvalue() + b"\r\n<!doctype html>" + SCRIPT


@pytest.fixture(scope="module")
def shown(shared_world: World) -> Iterator[DeskWorld]:
    """A desk after a night of a few photos."""
    shared_world.put("R-1/secret.jpg", with_secrets())
    shared_world.put("R-1/wide.png", _png(900, 300))
    shared_world.put("R-1/broken.jpg", jpeg(2)[:2000])
    shared_world.put("R-2/replaced.jpg", jpeg(3))
    shared_world.put("R-2/deleted.jpg", jpeg(4))
    shared_world.put("R-3/made_up.jpg", jpeg(6))
    shared_world.put("R-3/elsewhere.jpg", jpeg(7))
    publish(shared_world, "run-1")
    with shared_world.services.database.connect() as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE refund.photo SET synthetic = true WHERE key LIKE '%made_up.jpg'")
        cursor.execute("UPDATE refund.photo SET bucket = 'another' WHERE key LIKE '%elsewhere.jpg'")
    shared_world.put("R-2/replaced.jpg", jpeg(5))
    shared_world.services.objects.delete("incoming/2026-11-21/R-2/deleted.jpg")
    with desk_in(shared_world) as made:
        yield made


def _png(width: int, height: int) -> bytes:
    body = io.BytesIO()
    Image.effect_noise((width, height), 60).convert("RGB").save(body, "PNG")
    return body.getvalue()


def photo_id(desk: DeskWorld, name: str) -> str:
    ((found,),) = desk.world.rows(
        f"SELECT photo_id::text FROM refund.photo WHERE key LIKE '%{name}' AND superseded_by IS NULL"
    )
    return str(found)


def path(desk: DeskWorld, name: str, *, visitor: Visitor = ANA, **over: Any) -> str:
    return desk.app.state.desk.pictures.path(visitor, **{"photo_date": DAY, "photo_id": photo_id(desk, name), **over})


def test_a_picture_is_the_photo_and_nothing_else_of_the_file(shown: DeskWorld) -> None:
    assert GPS_NOTE in with_secrets()
    for size, sides in (("small", (320, 240)), ("large", (400, 300))):
        answer = shown.sign_in("ana").get(path(shown, "secret.jpg", size=size))
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
        for hidden in (b"Exif", b"script", GPS_NOTE, b"doctype"):
            assert hidden not in answer.content
        with Image.open(io.BytesIO(answer.content)) as image:
            assert (image.format, image.size, dict(image.getexif())) == ("JPEG", sides, {})
            assert "comment" not in image.info


def test_a_picture_can_run_nothing_and_stays_with_its_reader(shown: DeskWorld) -> None:
    headers = shown.sign_in("ana").get(path(shown, "secret.jpg")).headers
    assert headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert headers["content-disposition"] == 'inline; filename="photo.jpg"'
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "private, max-age=300"


def test_a_picture_keeps_the_photos_shape(shown: DeskWorld) -> None:
    answer = shown.sign_in("ana").get(path(shown, "wide.png"))
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.size == (320, 107)


def test_an_address_is_the_same_for_a_while_so_that_browsers_keep_the_picture(shown: DeskWorld) -> None:
    pictures = shown.app.state.desk.pictures
    now = shown.services.now().replace(minute=0, second=1)
    pictures._services = replace(shown.services, now=lambda: now)
    first = path(shown, "wide.png")
    pictures._services = replace(shown.services, now=lambda: now + timedelta(seconds=290))
    assert path(shown, "wide.png") == first
    pictures._services = shown.services


@pytest.mark.parametrize(
    ("name", "status", "error", "message"),
    [
        ("replaced.jpg", 404, "changed", "The photo cannot be shown: "),
        ("deleted.jpg", 404, "vanished", "The photo cannot be shown: "),
        ("broken.jpg", 422, "truncated", "The photo cannot be shown: JPEG that ends after 2,000 bytes, "),
    ],
)
def test_a_photo_that_cannot_be_shown_says_why(
    shown: DeskWorld, name: str, status: int, error: str, message: str
) -> None:
    client, where = shown.sign_in("ana"), path(shown, name)
    for _ in range(2):  # the second time from memory
        answer = client.get(where)
        assert (answer.status_code, answer.json()["error"]) == (status, error)
        assert answer.json()["message"].startswith(message)
    told = {
        404: "What was decided on it stands; only the picture is gone.",
        422: "The image ends before it is complete; upload it again. docs/reason_codes.md says what helps.",
    }
    assert answer.json()["what_to_do"] == told[status]


def test_a_photo_that_no_night_has_seen_is_not_there(shown: DeskWorld) -> None:
    for over in ({"photo_id": "00000000-0000-4000-8000-000000000000"}, {"photo_date": date(2026, 11, 20)}):
        answer = shown.sign_in("ana").get(path(shown, "wide.png", **over))
        assert (answer.status_code, answer.json()["error"]) == (404, "vanished")
        assert answer.json()["message"] == "The photo cannot be shown: it does not lie in this bucket."


def test_made_up_photos_and_those_of_another_bucket_are_never_fetched(shown: DeskWorld) -> None:
    for name in ("made_up.jpg", "elsewhere.jpg"):
        answer = shown.sign_in("ana").get(path(shown, name))
        assert (answer.status_code, answer.json()["error"]) == (404, "vanished")
        assert answer.json()["message"] == "The photo cannot be shown: it does not lie in this bucket."


def test_a_photo_above_the_limit_is_not_even_fetched(shown: DeskWorld) -> None:
    with desk_in(shown.world, max_bytes=1000) as desk:
        answer = desk.sign_in("ana").get(path(desk, "wide.png"))
        assert (answer.status_code, answer.json()["error"]) == (422, "file_too_large")
        assert answer.json()["message"].endswith(" bytes.")
        assert desk.app.state.desk.pictures.pids == {"small": None, "large": None}  # nothing was started for it


def test_an_address_serves_only_whom_it_was_made_for(shown: DeskWorld) -> None:
    answer = shown.sign_in("bob").get(path(shown, "wide.png"))
    assert (answer.status_code, answer.json()["error"]) == (403, "picture_of_another")
    assert answer.json()["message"] == "This address of a picture was made for somebody else."
    assert answer.json()["what_to_do"] == "Load the page that shows it again."


def test_an_address_holds_for_minutes(shown: DeskWorld) -> None:
    where, pictures = path(shown, "wide.png").removeprefix("/pictures/"), shown.app.state.desk.pictures
    try:
        for minutes, valid in ((9.9, True), (15.1, False)):
            later = shown.services.now() + timedelta(minutes=minutes)
            pictures._services = replace(shown.services, now=lambda later=later: later)
            if valid:
                assert pictures.jpeg(ANA, where)
                continue
            with pytest.raises(DeskError, match=r"^This address of a picture is too old\.$") as caught:
                pictures.jpeg(ANA, where)
            assert (caught.value.status, caught.value.error) == (403, "picture_path_expired")
    finally:
        pictures._services = shown.services


def test_an_altered_address_is_refused(shown: DeskWorld) -> None:
    where = path(shown, "wide.png")
    body, _, signature = where.rpartition(".")
    other = path(shown, "wide.png", size="large").rpartition(".")[0]
    for altered in (body, f"{body}.{signature[::-1]}", f"{other}.{signature}", "/pictures/x", "/pictures/ü.ü"):
        answer = shown.sign_in("ana").get(altered)
        assert (answer.status_code, answer.json()["error"]) == (403, "picture_path_wrong")
        assert answer.json()["message"] == "This address of a picture was not made by this server."


def test_the_interpreter_stays_between_requests_and_one_that_died_is_followed_by_another(shown: DeskWorld) -> None:
    pictures = shown.app.state.desk.pictures
    assert shown.sign_in("ana").get(path(shown, "wide.png")).status_code == 200
    before = pictures.pids["small"]
    pictures._kept.clear()
    assert shown.sign_in("ana").get(path(shown, "wide.png")).status_code == 200
    assert pictures.pids["small"] == before
    os.kill(before, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(before)], timeout=10)
    pictures._kept.clear()
    assert shown.sign_in("ana").get(path(shown, "wide.png")).status_code == 200
    assert pictures.pids["small"] != before


def test_closing_ends_the_interpreters_and_leaves_nothing(shown: DeskWorld) -> None:
    with Pictures(shown.services) as pictures:
        for size in ("small", "large"):
            where = pictures.path(ANA, photo_date=DAY, photo_id=photo_id(shown, "wide.png"), size=size)
            assert pictures.jpeg(ANA, where.removeprefix("/pictures/"))
        processes = [psutil.Process(pid) for pid in pictures.pids.values() if pid]
        processes += [child for process in processes for child in process.children()]
    assert len(processes) == 4
    gone, alive = psutil.wait_procs(processes, timeout=10)
    assert (len(gone), alive) == (4, [])
    with pytest.raises(DeskError, match=r"^The desk is ending\.$") as caught:
        pictures.jpeg(ANA, where.removeprefix("/pictures/"))
    assert caught.value.status == 503


def test_without_an_interpreter_the_answer_is_to_try_again(shown: DeskWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    with desk_in(shown.world) as desk:
        where, client = path(desk, "wide.png"), desk.sign_in("ana")
        with monkeypatch.context() as patch:
            patch.setattr("sys.executable", "/nowhere/python")
            answer = client.get(where)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert answer.json()["message"] == "The interpreter that decodes pictures cannot run."
        assert client.get(where).status_code == 200


class TooSlow:
    """A decoder for a moment in which the machine has too much to do."""

    def picture(self, _: bytes) -> Any:
        raise RejectedPhotoError(ReasonCode.DECODE_TIMEOUT, "decoding took longer than 10 seconds, twice")

    def close(self) -> None:
        """Nothing runs."""


def test_only_verdicts_that_lie_in_the_photo_are_kept(shown: DeskWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    with desk_in(shown.world) as desk:
        client, pictures, slow = desk.sign_in("ana"), desk.app.state.desk.pictures, TooSlow()
        with monkeypatch.context() as patch:
            patch.setitem(pictures._decoders, "small", slow)
            answer = client.get(path(desk, "wide.png"))
        assert (answer.status_code, answer.json()["error"]) == (422, "decode_timeout")
        assert not pictures._kept._entries
        assert client.get(path(desk, "wide.png")).status_code == 200
        assert client.get(path(desk, "broken.jpg")).json()["error"] == "truncated"
        assert len(pictures._kept._entries) == 2


def test_memory_for_pictures_is_bounded_and_the_oldest_go_first() -> None:
    kept, now, ids = _Kept(1000), datetime(2026, 11, 22, tzinfo=UTC), [UUID(int=number) for number in range(4)]
    for number in ids[:3]:
        kept.put((DAY, number, "small"), b"x" * 300, now)
    assert kept.get((DAY, ids[0], "small"), now) is not None  # asked for, so not the oldest any more
    kept.put((DAY, ids[3], "small"), b"x" * 300, now)
    assert [kept.get((DAY, number, "small"), now) is None for number in ids] == [False, True, False, False]
    kept.put((DAY, ids[0], "small"), b"x" * 400, now)
    assert kept._bytes == 1000
    assert kept.get((DAY, ids[0], "small"), now + timedelta(minutes=6)) is None
