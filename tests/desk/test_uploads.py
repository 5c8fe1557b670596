"""Multipart bodies, read while they arrive: what is too much is refused before it is there, and nothing is left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.requests import Request

from refund.desk.problems import DeskError
from refund.desk.throttle import MOST_OF_ONE_PERSON, MOST_UPLOADS, Held, Throttle, UploadRoom
from refund.desk.uploads import Expected, Upload, clean_name, read_upload

BOUNDARY = b"xyz"
MULTIPART = "multipart/form-data; boundary=xyz"
ONE = Expected(name="image", most=1, max_bytes=1_000_000, timeout_s=5.0)
BATCH = Expected(name="images", most=10, max_bytes=1_000_000, timeout_s=5.0)
CHUNK = 64 * 1024


def part(body: bytes, *, name: str = "image", filename: str | None = "cup.jpg") -> bytes:
    named = "" if filename is None else f'; filename="{filename}"'
    return (
        b"--" + BOUNDARY + f'\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode() + body + b"\r\n"
    )


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--" + BOUNDARY + b"--\r\n"


class Client:
    """A client that sends a body piece by piece, and counts what was taken from it."""

    def __init__(self, pieces: Iterator[bytes] | list[bytes], *, stalls: bool = False, leaves: bool = False) -> None:
        self._pieces = iter(pieces)
        self._stalls, self._leaves = stalls, leaves
        self.taken_bytes = 0

    async def receive(self) -> dict[str, Any]:
        piece = next(self._pieces, None)
        if piece is not None:
            self.taken_bytes += len(piece)
            return {"type": "http.request", "body": piece, "more_body": True}
        if self._stalls:
            await asyncio.sleep(3600)
        if self._leaves:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": b"", "more_body": False}


def chunks(body: bytes, size: int = CHUNK) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)]


def read(
    client: Client | bytes,
    expected: Expected = ONE,
    *,
    content_type: str | None = MULTIPART,
    announced: str | None = None,
    held: Held | None = None,
) -> Upload:
    if isinstance(client, bytes):
        client = Client(chunks(client))
    headers = {"content-type": content_type, "content-length": announced}
    scope = {
        "type": "http",
        "method": "POST",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items() if value is not None],
    }
    request = Request(scope, client.receive)
    if held is not None:
        return asyncio.run(read_upload(request, expected, held))
    with UploadRoom(max_bytes=expected.max_bytes).upload("ana") as own:
        return asyncio.run(read_upload(request, expected, own))


def refusal(*given: Any, **over: Any) -> tuple[int, str, str]:
    with pytest.raises(DeskError) as caught:
        read(*given, **over)
    assert caught.value.what_to_do
    return caught.value.status, caught.value.error, caught.value.message


# --- what is taken ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 100, CHUNK])
def test_a_body_is_the_same_however_it_is_cut_into_pieces(size: int) -> None:
    photo = bytes(range(256)) * 8 + b"\r\n--xy\r\n--xyy\r\n"
    body = form(part(b"3", name="top_k", filename=None), part(photo), part(b"true", name="keep", filename=None))
    upload = read(Client(chunks(body, size)))
    assert [(each.filename, each.body, each.size_bytes) for each in upload.photos] == [("cup.jpg", photo, len(photo))]
    assert upload.fields == {"top_k": "3", "keep": "true"}


def test_a_photo_of_exactly_the_limit_is_taken() -> None:
    (photo,) = read(form(part(bytes(ONE.max_bytes)))).photos
    assert (photo.size_bytes, photo.refused) == (ONE.max_bytes, None)


def test_photos_of_a_batch_keep_their_order() -> None:
    upload = read(form(*(part(b"%d" % number, name="images", filename=f"{number}.jpg") for number in range(10))), BATCH)
    assert [(photo.filename, photo.body) for photo in upload.photos] == [(f"{n}.jpg", b"%d" % n) for n in range(10)]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("cup.jpg", "cup.jpg"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\ana\\cup.jpg", "cup.jpg"),
        ("a/b\\c.jpg/", "c.jpg"),
        ("nul\0 tab\t bell\x07 line\r\nfeed", "nul tab bell linefeed"),
        ("gpj.‮tidder‬exe", "gpj.tidderexe"),
        ("<img src=x onerror=alert(1)>.jpg", "<img src=x onerror=alert(1)>.jpg"),
        ("'; DROP TABLE refund.trial; --.jpg", "'; DROP TABLE refund.trial; --.jpg"),
        ("ü" * 400, "ü" * 255),
        ("/", ""),
    ],
)
def test_of_a_file_name_the_last_part_is_kept_without_control_characters(raw: str, expected: str) -> None:
    assert clean_name(raw) == expected


# --- too much ---------------------------------------------------------------------------------------------------------


def endless() -> Iterator[bytes]:
    yield part(b"")[:-2]
    while True:
        yield bytes(CHUNK)


def test_a_photo_above_the_limit_is_refused_at_the_byte_that_is_too_many() -> None:
    client = Client(endless())
    with UploadRoom(max_bytes=ONE.max_bytes).upload("ana") as held:
        (photo,) = read(client, held=held).photos
        assert held.size_bytes <= ONE.max_bytes
    assert photo.refused is not None
    assert photo.refused.reason == "file_too_large"
    assert photo.refused.detail.endswith(" bytes or more, expected at most 1,000,000")
    assert photo.body == b""
    assert client.taken_bytes <= ONE.max_bytes + 2 * CHUNK


def test_in_a_batch_a_photo_above_the_limit_costs_itself_alone() -> None:
    body = form(
        part(b"first", name="images", filename="1.jpg"),
        part(bytes(BATCH.max_bytes + 1), name="images", filename="2.jpg"),
        part(b"third", name="images", filename="3.jpg"),
    )
    first, second, third = read(body, BATCH).photos
    assert (first.body, third.body) == (b"first", b"third")
    assert (first.refused, third.refused) == (None, None)
    assert second.refused is not None
    assert second.refused.detail == "the file has 1,000,001 bytes, expected at most 1,000,000"


def test_a_batch_that_never_ends_is_refused_as_a_whole() -> None:
    def body() -> Iterator[bytes]:
        yield part(b"", name="images")[:-2]
        while True:
            yield bytes(CHUNK)

    client = Client(body())
    said = "The body has more bytes, expected at most 10 photos of 1,000,000 bytes each."
    assert refusal(client, BATCH) == (413, "too_large", said)
    assert client.taken_bytes <= BATCH.most_bytes + CHUNK


def test_a_body_that_is_announced_too_large_is_not_read_at_all() -> None:
    client = Client(endless())
    said = "The body is announced with 17,000,000 bytes, expected at most one photo of 1,000,000 bytes each."
    assert refusal(client, announced="17000000") == (413, "file_too_large", said)
    assert client.taken_bytes == 0


def test_eleven_photos_are_too_many_for_a_batch_and_two_for_one() -> None:
    eleven = form(*(part(b"x", name="images") for _ in range(11)))
    said = "The form has more than 10 files, expected at most 10."
    assert refusal(eleven, BATCH) == (413, "too_many_files", said)
    said = "The form has more than one file in the field 'image', expected one."
    assert refusal(form(part(b"x"), part(b"y"))) == (422, "too_many_files", said)


def test_fields_headers_and_parts_are_bounded() -> None:
    long_field = form(part(bytes(1025), name="top_k", filename=None), part(b"x"))
    assert refusal(long_field) == (413, "too_large", "The field 'top_k' has more than 1,024 bytes.")
    long_header = b"--xyz\r\nX-Long: " + b"a" * 5000
    assert refusal(long_header)[:2] == (400, "malformed_body")
    many_headers = b"--xyz\r\n" + b"".join(b"X-%d: a\r\n" % number for number in range(20))
    assert refusal(many_headers)[:2] == (400, "malformed_body")


def test_what_looks_like_boundaries_throughout_takes_no_longer() -> None:
    body = form(part((b"\r\n--xy" * 200_000)[: ONE.max_bytes]))
    began_s = time.process_time()
    read(body)
    assert time.process_time() - began_s < 1.0


# --- other than expected ----------------------------------------------------------------------------------------------


def test_other_content_types_are_told_what_is_expected() -> None:
    said = "The content type is {}, expected multipart/form-data."
    assert refusal(b"x", content_type="image/jpeg") == (415, "wrong_content_type", said.format("'jpeg'"))
    assert refusal(b"x", content_type=None) == (415, "wrong_content_type", said.format("none"))
    without = "The content type multipart/form-data names no boundary."
    assert refusal(b"x", content_type="multipart/form-data") == (400, "no_boundary", without)
    assert refusal(b"x", content_type="multipart/form-data; boundary=" + "b" * 300)[:2] == (400, "malformed_body")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (part(b"x"), "The body ends before its last boundary."),
        (part(b"x")[:-20], "The body ends before its last boundary."),
        (b"", "The body ends before its last boundary."),
    ],
)
def test_a_body_that_is_cut_off_is_told_so(body: bytes, said: str) -> None:
    assert refusal(body) == (400, "cut_off", said)
    assert refusal(Client([body] if body else [], leaves=True)) == (400, "cut_off", said)


@pytest.mark.parametrize(
    "body",
    [b"not a form at all", b"--abc\r\n", b"--xyz\r\nNo colon\r\n\r\n", b"--xyz\r\n\r\nno disposition\r\n--xyz--"],
)
def test_what_is_no_form_is_told_so(body: bytes) -> None:
    status, error, message = refusal(body)
    assert (status, error) == (400, "malformed_body")
    assert message.startswith("The body is no multipart form: ")


def test_a_wrong_field_is_named_beside_the_right_one() -> None:
    said = "The form has a field {}, expected 'image' with a photo, and maybe 'top_k' and 'keep'."
    assert refusal(form(part(b"x", name="file"))) == (422, "wrong_field", said.format("'file'"))
    assert refusal(form(part(b"x", name="topk", filename=None))) == (422, "wrong_field", said.format("'topk'"))
    hostile = form(part(b"x", name="'; DROP TABLE <b>" + "a" * 500))
    assert refusal(hostile) == (422, "wrong_field", said.format(repr(("'; DROP TABLE <b>" + "a" * 500)[:80])))


def test_a_form_without_a_photo_is_told_where_it_belongs() -> None:
    assert refusal(form()) == (422, "no_file", "The form has no file in a field 'image'.")
    assert refusal(form(part(b"3", name="top_k", filename=None)))[:2] == (422, "no_file")
    picked_nothing = "The file in the field 'image' has no name, as where nothing was picked."
    assert refusal(form(part(b"", filename=""))) == (422, "no_file_name", picked_nothing)
    as_text = "The field 'image' came as text, expected a file with a name."
    assert refusal(form(part(b"x", filename=None))) == (422, "no_file_name", as_text)
    twice = form(part(b"3", name="top_k", filename=None), part(b"4", name="top_k", filename=None), part(b"x"))
    assert refusal(twice) == (422, "invalid", "The field 'top_k' came twice.")


# --- slow, and many ---------------------------------------------------------------------------------------------------


def test_who_sends_slowly_is_sent_away() -> None:
    with pytest.raises(DeskError) as caught:
        read(Client([part(b"x")], stalls=True), Expected(name="image", most=1, max_bytes=1000, timeout_s=0.05))
    assert (caught.value.status, caught.value.error) == (400, "upload_too_slow")
    assert caught.value.message == "The upload was not complete after 0.05 seconds."
    assert caught.value.headers == {"Connection": "close"}


def test_a_large_upload_has_as_much_time_again_for_each_photo_of_it_that_has_arrived() -> None:
    class Phone(Client):
        """Sends half a photo each tenth of a second; then nothing more."""

        async def receive(self) -> dict[str, Any]:
            await asyncio.sleep(0.1)
            return await super().receive()

    batch = Expected(name="images", most=10, max_bytes=1000, timeout_s=0.5)
    body = form(*(part(bytes(900), name="images") for _ in range(3)))
    assert len(read(Phone(chunks(body, 500)), batch).photos) == 3  # 0.7 s and more
    with pytest.raises(DeskError) as caught:
        read(Phone(chunks(body, 500)[:5], stalls=True), batch)
    assert caught.value.message == "The upload was not complete after 1.5 seconds."


def test_a_photo_that_is_passed_over_is_held_no_more() -> None:
    room = UploadRoom(max_bytes=BATCH.max_bytes)
    large = part(bytes(BATCH.max_bytes + CHUNK), name="images")
    with room.upload("ana") as held:
        photos = read(form(*[large] * 9, part(b"cup", name="images")), BATCH, held=held).photos
        assert [photo.refused is None for photo in photos] == [False] * 9 + [True]
        assert (held.size_bytes, room.held_bytes) == (3, 3)
    assert room.held_bytes == 0


def test_one_person_holds_a_whole_batch_and_leaves_room_for_others() -> None:
    room = UploadRoom(max_bytes=100)
    with room.upload("ana") as held, room.upload("ana") as second:
        held.add(1000)
        with pytest.raises(DeskError) as caught:
            second.add(1)
        said = "Uploads of yours hold 1,000 bytes, of at most 1,000 that one person may have here at once."
        assert (caught.value.status, caught.value.error, caught.value.message) == (503, "busy", said)
        with room.upload("bob") as other:
            other.add(200)
        held.drop(400)
        second.add(400)
    assert (room.held_bytes, room._held_by.total()) == (0, 0)


def test_uploads_hold_a_bounded_number_of_bytes_and_give_them_back() -> None:
    room = UploadRoom(max_bytes=100)
    with room.upload("ana") as held, room.upload("cy") as third:
        held.add(1000)
        third.add(200)
        with pytest.raises(DeskError) as caught, room.upload("bob") as other:
            other.add(1)
        assert (caught.value.status, caught.value.error) == (503, "busy")
        assert caught.value.message == "Uploads hold 1,200 bytes, of at most 1,200."
        assert caught.value.headers == {"Retry-After": "2"}
    assert room.held_bytes == 0


def test_so_many_uploads_at_once_and_no_more() -> None:
    from contextlib import ExitStack

    room = UploadRoom(max_bytes=100)
    with ExitStack() as stack:
        for _ in range(MOST_OF_ONE_PERSON):
            stack.enter_context(room.upload("ana"))
        with pytest.raises(DeskError, match=r"^32 uploads of yours are under way, as many as one may have") as caught:
            stack.enter_context(room.upload("ana"))
        for number in range(MOST_UPLOADS - MOST_OF_ONE_PERSON):
            stack.enter_context(room.upload(f"other {number}"))
        with pytest.raises(DeskError, match=r"^64 uploads are under way, as many as the desk takes at once"):
            stack.enter_context(room.upload("bob"))
    assert caught.value.status == 503
    with room.upload("ana"):
        pass


def test_what_a_refused_upload_held_is_given_back() -> None:
    room = UploadRoom(max_bytes=ONE.max_bytes)
    for client in (Client([part(b"x" * 1000)], leaves=True), Client(chunks(form(part(b"x"), part(b"y"))))):
        with pytest.raises(DeskError), room.upload("ana") as held:
            read(client, held=held)
    assert room.held_bytes == 0


def test_a_person_may_try_so_many_photos_a_minute() -> None:
    throttle = Throttle(10)
    throttle.take("ana")
    throttle.take("ana", 9)
    with pytest.raises(DeskError) as caught:
        throttle.take("ana")
    assert (caught.value.status, caught.value.error) == (429, "too_many_requests")
    assert caught.value.message == "1 more would pass the 10 photos a minute that one person may try."
    assert 1 <= int(caught.value.headers["Retry-After"]) <= 60
    throttle.take("bob", 10)
    throttle.take("cy", 8)
    with pytest.raises(DeskError):
        throttle.take("cy", 3)
    throttle.take("cy", 2)  # those refused were not counted


def test_a_batch_that_no_minute_allows_is_told_what_helps() -> None:
    with pytest.raises(DeskError) as caught:
        Throttle(5).take("ana", 6)
    expected = "Send fewer photos in one batch, or have REFUND_DESK_REQUESTS_PER_MINUTE raised."
    assert caught.value.what_to_do == expected
