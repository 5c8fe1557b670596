"""Reads photos out of a multipart body while it arrives, and refuses what is too much before it is there.

The framework's own form parser would write bodies of any size to temporary files first. Here nothing touches a disk, a
photo beyond its limit is refused or dropped at the byte that is too many, and who sends slowly is sent away.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect

from refund.desk.problems import DeskError
from refund.errors import ReasonCode, RejectedPhotoError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartParser
    from starlette.requests import Request

    from refund.desk.throttle import Held

MOST_IN_A_BATCH = 10
FIELDS = ("top_k", "keep")
MAX_NAME_CHARS = 255
_MAX_FIELD_BYTES = 1024
_MAX_PARTS = MOST_IN_A_BATCH + 1 + len(FIELDS)  # one photo too many is told as such
_MAX_HEADER_COUNT = 8
_MAX_HEADER_BYTES = 4096
_SLACK_BYTES = 64 * 1024  # of a body, beside its photos: boundaries, headers, fields
_SHOWN_CHARS = 80  # of what a client sent, in our answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Photo:
    """One file of an upload."""

    filename: str  # the last part of its path, without control characters
    body: bytes = field(repr=False)
    size_bytes: int  # of what was sent until it was too much
    refused: RejectedPhotoError | None = None  # above the limit; the body is empty then


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """What came in one multipart body."""

    photos: tuple[Photo, ...]
    fields: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a route takes."""

    name: str  # of the field that holds photos
    most: int  # photos
    max_bytes: int  # of one photo
    timeout_s: float  # for each ``max_bytes`` of the body that has begun to arrive

    @property
    def most_bytes(self) -> int:
        """Of the whole body."""
        return self.most * self.max_bytes + _SLACK_BYTES


async def read_upload(request: Request, expected: Expected, held: Held) -> Upload:
    """Read the body; ``held`` is told of every byte kept before it is.

    Raises:
        DeskError: 400 malformed, cut off or too slow; 413 too much; 415 no multipart; 422 other fields than expected;
            503 the process holds too much.
    """
    boundary = _boundary(request)
    _check_announced(request, expected)
    form = _Form(expected, held)
    parser = _parser(boundary, form)
    begun_s = asyncio.get_running_loop().time()
    granted_s = expected.timeout_s
    try:
        async with asyncio.timeout(granted_s) as patience:
            async for received in _feed(request, parser, form, expected):
                granted_s = expected.timeout_s * (1 + received // expected.max_bytes)
                patience.reschedule(begun_s + granted_s)
    except TimeoutError:
        raise DeskError(
            status=400,
            error="upload_too_slow",
            message=f"The upload was not complete after {granted_s:g} seconds.",
            what_to_do="Send it again over a faster connection, or send smaller photos.",
            headers={"Connection": "close"},
        ) from None
    except ClientDisconnect:
        raise _cut_off() from None
    return form.upload()


def clean_name(raw: str) -> str:
    """The last part of a path, without control and format characters (such as those that turn text around)."""
    last = raw.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return "".join(letter for letter in last if unicodedata.category(letter)[0] != "C").strip()[:MAX_NAME_CHARS]


def _boundary(request: Request) -> bytes:
    from python_multipart.multipart import parse_options_header

    content_type, options = parse_options_header(request.headers.get("content-type", ""))
    if content_type != b"multipart/form-data":
        seen = _shown(content_type.decode("latin-1")) if content_type else "none"
        raise DeskError(
            status=415,
            error="wrong_content_type",
            message=f"The content type is {seen}, expected multipart/form-data.",
            what_to_do="Send the photo as a form's file: curl -F image=@photo.jpg does.",
        )
    if not (boundary := options.get(b"boundary")):
        raise DeskError(
            status=400,
            error="no_boundary",
            message="The content type multipart/form-data names no boundary.",
            what_to_do="Let the client set the header Content-Type by itself.",
        )
    return boundary


def _check_announced(request: Request, expected: Expected) -> None:
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced[:20]) > expected.most_bytes:
        raise _too_much(expected, seen=f"The body is announced with {int(announced[:20]):,} bytes")


async def _feed(request: Request, parser: MultipartParser, form: _Form, expected: Expected) -> AsyncIterator[int]:
    """How many bytes have arrived, time and again."""
    from python_multipart.exceptions import FormParserError

    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > expected.most_bytes:
            raise _too_much(expected, seen="The body has more bytes")
        try:
            parser.write(chunk)
        except FormParserError as exc:
            raise _malformed(seen=str(exc)) from exc
        if form.done:
            return
        yield received
    if not form.ended:
        raise _cut_off()


def _parser(boundary: bytes, form: _Form) -> MultipartParser:
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser

    try:
        return MultipartParser(
            boundary,
            {
                "on_part_begin": form.begin_part,
                "on_header_field": form.add_header_name,
                "on_header_value": form.add_header_value,
                "on_header_end": form.end_header,
                "on_headers_finished": form.end_headers,
                "on_part_data": form.add,
                "on_part_end": form.end_part,
                "on_end": form.end,
            },
            max_header_count=_MAX_HEADER_COUNT,
            max_header_size=_MAX_HEADER_BYTES,
        )
    except FormParserError as exc:
        raise _malformed(seen=str(exc)) from exc


class _Form:
    """The parts of one body as the parser finds them."""

    def __init__(self, expected: Expected, held: Held) -> None:
        self._expected, self._held = expected, held
        self._photos: list[Photo] = []
        self._fields: dict[str, str] = {}
        self._parts = 0
        self._header_name, self._header_value = b"", b""
        self._disposition = ""
        self._name = ""
        self._filename: str | None = None
        self._pieces: list[bytes] = []
        self._size_bytes = 0
        self._add: Callable[[bytes], None] = self._add_text
        self.done = False  # nothing that follows could change the answer
        self.ended = False

    def upload(self) -> Upload:
        """What came.

        Raises:
            DeskError: 422, no photo.
        """
        if not self._photos:
            raise DeskError(
                status=422,
                error="no_file",
                message=f"The form has no file in a field {self._expected.name!r}.",
                what_to_do=f"Send the photo as a file in the field {self._expected.name!r}.",
            )
        return Upload(photos=tuple(self._photos), fields=self._fields)

    # --- called by the parser, in the order of the body ---------------------------------------------------------------

    def begin_part(self) -> None:
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise _malformed(seen=f"more than {_MAX_PARTS} parts")
        self._disposition, self._header_name, self._header_value = "", b"", b""
        self._pieces, self._size_bytes = [], 0

    def add_header_name(self, chunk: bytes, start: int, end: int) -> None:
        self._header_name += chunk[start:end]

    def add_header_value(self, chunk: bytes, start: int, end: int) -> None:
        self._header_value += chunk[start:end]

    def end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value.decode("latin-1")
        self._header_name, self._header_value = b"", b""

    def end_headers(self) -> None:
        from python_multipart.multipart import parse_options_header

        kind, options = parse_options_header(self._disposition)
        if kind != b"form-data" or b"name" not in options:
            raise _malformed(seen="a part without the header Content-Disposition: form-data; name=…")
        self._name = options[b"name"].decode("utf-8", "replace")
        given = options.get(b"filename")
        self._filename = None if given is None else clean_name(given.decode("utf-8", "replace"))
        if self._filename is None:
            self._check_field()
            self._add = self._add_text
        else:
            self._check_file()
            self._add = self._add_photo

    def add(self, chunk: bytes, start: int, end: int) -> None:
        self._add(chunk[start:end])

    def end_part(self) -> None:
        whole = b"".join(self._pieces)
        self._pieces = []
        if self._filename is None:
            self._fields[self._name] = whole.decode("utf-8", "replace")
        elif self._size_bytes <= self._expected.max_bytes:
            self._photos.append(Photo(filename=self._filename, body=whole, size_bytes=self._size_bytes))
        else:
            self._refuse_photo(self._filename)

    def end(self) -> None:
        self.ended = True

    # ------------------------------------------------------------------------------------------------------------------

    def _check_field(self) -> None:
        if self._name == self._expected.name:
            raise DeskError(
                status=422,
                error="no_file_name",
                message=f"The field {self._name!r} came as text, expected a file with a name.",
                what_to_do=f"Send it as a file: curl -F {self._name}=@photo.jpg does.",
            )
        if self._name not in FIELDS:
            raise self._wrong_field()
        if self._name in self._fields:
            raise DeskError(
                status=422,
                error="invalid",
                message=f"The field {self._name!r} came twice.",
                what_to_do="Send it once.",
            )

    def _check_file(self) -> None:
        expected = self._expected
        if self._name != expected.name:
            raise self._wrong_field()
        if not self._filename:
            raise DeskError(
                status=422,
                error="no_file_name",
                message=f"The file in the field {self._name!r} has no name, as where nothing was picked.",
                what_to_do="Pick a photo, or give the file a name.",
            )
        if len(self._photos) >= expected.most:
            if expected.most == 1:
                raise DeskError(
                    status=422,
                    error="too_many_files",
                    message=f"The form has more than one file in the field {self._name!r}, expected one.",
                    what_to_do="Send several photos as the field 'images' to api/classify/batch.",
                )
            raise DeskError(
                status=413,
                error="too_many_files",
                message=f"The form has more than {expected.most} files, expected at most {expected.most}.",
                what_to_do="Send the rest in another batch.",
            )

    def _wrong_field(self) -> DeskError:
        return DeskError(
            status=422,
            error="wrong_field",
            message=(
                f"The form has a field {_shown(self._name)}, expected {self._expected.name!r} with a photo, and maybe "
                f"{' and '.join(map(repr, FIELDS))}."
            ),
            what_to_do=f"Name the field of the photo {self._expected.name!r}.",
        )

    def _add_text(self, piece: bytes) -> None:
        self._size_bytes += len(piece)
        if self._size_bytes > _MAX_FIELD_BYTES:
            raise DeskError(
                status=413,
                error="too_large",
                message=f"The field {self._name!r} has more than {_MAX_FIELD_BYTES:,} bytes.",
                what_to_do="docs/api.md lists fields and ranges.",
            )
        self._pieces.append(piece)

    def _add_photo(self, piece: bytes) -> None:
        self._size_bytes += len(piece)
        if self._size_bytes <= self._expected.max_bytes:
            self._held.add(len(piece))
            self._pieces.append(piece)
            return
        self._held.drop(sum(map(len, self._pieces)))
        self._pieces.clear()  # the rest of this photo is passed over, for the sake of those that follow
        if self._expected.most == 1 and not self.done:
            self._refuse_photo(self._filename or "")
            self.done = True

    def _refuse_photo(self, filename: str) -> None:
        if self.done:
            return
        detail = (
            f"the file has {self._size_bytes:,} bytes or more, expected at most {self._expected.max_bytes:,}"
            if self._expected.most == 1
            else f"the file has {self._size_bytes:,} bytes, expected at most {self._expected.max_bytes:,}"
        )
        refused = RejectedPhotoError(ReasonCode.FILE_TOO_LARGE, detail)
        self._photos.append(Photo(filename=filename, body=b"", size_bytes=self._size_bytes, refused=refused))


def _too_much(expected: Expected, *, seen: str) -> DeskError:
    photos = "one photo" if expected.most == 1 else f"{expected.most} photos"
    return DeskError(
        status=413,
        error="file_too_large" if expected.most == 1 else "too_large",
        message=f"{seen}, expected at most {photos} of {expected.max_bytes:,} bytes each.",
        what_to_do="Send smaller photos; nothing of this upload was kept.",
    )


def _malformed(*, seen: str) -> DeskError:
    return DeskError(
        status=400,
        error="malformed_body",
        message=f"The body is no multipart form: {seen[:200]}.",
        what_to_do="Send what a browser's form or curl -F sends.",
    )


def _cut_off() -> DeskError:
    return DeskError(
        status=400,
        error="cut_off",
        message="The body ends before its last boundary.",
        what_to_do="Send it again.",
    )


def _shown(text: str) -> str:
    return repr(clean_name(text)[:_SHOWN_CHARS])
