"""Shows photos of the bucket: decoded in isolation and encoded anew, for a short while, to whoever was let in."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date, datetime
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Self
from uuid import UUID

from itsdangerous import BadData, URLSafeSerializer

from refund.desk.auth import signing_key
from refund.desk.picture_decoder import PictureDecoder
from refund.desk.picture_line import Key, PictureLine, Size
from refund.desk.problems import DeskError
from refund.errors import ReasonCode, RejectedPhotoError
from refund.report.labels import explain_reason

if TYPE_CHECKING:
    from refund.desk.auth import Visitor
    from refund.night.services import Services

SIDES_PX: dict[Size, int] = {"small": 320, "large": 1024}  # of the longer side
VALID_S = 600  # at least; a page that stays open longer has to be loaded again
KEPT_BYTES = 32 * 1024 * 1024
KEPT_S = 300.0  # a photo that was deleted is not shown much longer than that

_QUALITY: dict[Size, int] = {"small": 76, "large": 84}
_SALT = "refund.desk.pictures"
_STEP_S = 300  # paths made within it are the same, so that browsers find the picture they have
_VERDICT_BYTES = 1024  # counted for a photo that cannot be shown
_GONE = frozenset({ReasonCode.VANISHED, ReasonCode.CHANGED})


class Pictures:
    """Paths of pictures, and the pictures; decodes them and keeps those asked for last. Safe for many threads."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._signer = URLSafeSerializer(
            signing_key(), salt=_SALT, signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"}
        )
        self._stack = ExitStack()
        self._decoders: dict[Size, PictureDecoder] = {
            size: PictureDecoder(services.settings, side_px=side_px, quality=_QUALITY[size])
            for size, side_px in SIDES_PX.items()
        }
        self._kept = _Kept(KEPT_BYTES)
        self._line = PictureLine()

    def __enter__(self) -> Self:
        for decoder in self._decoders.values():
            self._stack.callback(decoder.close)
        self._stack.callback(self._line.close)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the interpreters and forget the pictures."""
        self._kept.clear()
        self._stack.close()

    @property
    def pids(self) -> dict[Size, int | None]:
        """Process ids of the decoding interpreters; None for those that nobody needed yet."""
        return {size: decoder.pid for size, decoder in self._decoders.items()}

    def path(self, visitor: Visitor, *, photo_date: date, photo_id: UUID | str, size: Size = "small") -> str:
        """Where this visitor, and nobody else, finds the picture for the next minutes: a path below the desk's root.

        ``small`` and ``large`` have a longer side of at most 320 and 1,024 pixels.
        """
        made = int(self._services.now().timestamp()) // _STEP_S * _STEP_S
        claim = [photo_date.isoformat(), str(photo_id), size, visitor.name, made + _STEP_S + VALID_S]
        return f"/pictures/{self._signer.dumps(claim)}"

    async def fetch(self, visitor: Visitor, token: str) -> bytes:
        """As `jpeg`, from a coroutine: whoever waits holds no thread of the server, and who asks the same waits along.

        Raises:
            DeskError: as `jpeg`; also 503 where too many pictures are being made already, in all or for this person.
        """
        key = self._opened(visitor, token)
        found = self._kept.get(key, self._services.now())
        if found is None:
            found = await self._line.wait(key, lambda: self._make(key), person=visitor.name)
        return _shown(found)

    def jpeg(self, visitor: Visitor, token: str) -> bytes:
        """The picture that `path` named.

        Raises:
            DeskError: 403 where the path was altered, made for somebody else or too long ago; 404 where the bucket has
                no such version of the photo any more; 422 where it cannot be shown; 503 where nothing can be decoded.
        """
        key = self._opened(visitor, token)
        return _shown(self._kept.get(key, self._services.now()) or self._make(key))

    def _make(self, key: Key) -> bytes | RejectedPhotoError:
        photo_date, photo_id, size = key
        found: bytes | RejectedPhotoError
        try:
            found = self._decoders[size].picture(self._body(photo_date, photo_id)).jpeg
        except RejectedPhotoError as exc:
            found = RejectedPhotoError(exc.reason, exc.detail)  # without the frames that hold the photo's bytes
        if isinstance(found, bytes) or found.reason.is_final:  # another try may show what only the moment refused
            self._kept.put(key, found, self._services.now())
        return found

    def _opened(self, visitor: Visitor, token: str) -> Key:
        try:
            day, photo_id, size, name, until = self._signer.loads(token)
            claim = date.fromisoformat(day), UUID(photo_id), size
        except (BadData, ValueError, TypeError) as exc:
            raise _refused(
                error="picture_path_wrong", message="This address of a picture was not made by this server."
            ) from exc
        if name != visitor.name:
            raise _refused(error="picture_of_another", message="This address of a picture was made for somebody else.")
        if self._services.now().timestamp() > until:
            raise _refused(error="picture_path_expired", message="This address of a picture is too old.")
        return claim

    def _body(self, photo_date: date, photo_id: UUID) -> bytes:
        from refund.store.photos import find_object

        photo = find_object(self._services.database, photo_date=photo_date, photo_id=photo_id)
        if photo is None or photo.bucket != self._services.objects.bucket:  # made up, or the bucket was changed since
            raise RejectedPhotoError(ReasonCode.VANISHED, "it does not lie in this bucket")
        if photo.size_bytes > self._services.settings.max_bytes:
            raise RejectedPhotoError(ReasonCode.FILE_TOO_LARGE, f"{photo.size_bytes:,} bytes")
        return self._services.objects.get(photo.key, etag=photo.etag, size_bytes=photo.size_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    found: bytes | RejectedPhotoError
    at: datetime

    @property
    def size_bytes(self) -> int:
        return len(self.found) if isinstance(self.found, bytes) else _VERDICT_BYTES


class _Kept:
    """Pictures and verdicts asked for last, up to so many bytes, each for `KEPT_S`."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._lock = Lock()
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()

    def get(self, key: Key, now: datetime) -> bytes | RejectedPhotoError | None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or (now - entry.at).total_seconds() > KEPT_S:
                return None
            self._entries.move_to_end(key)
            return entry.found

    def put(self, key: Key, found: bytes | RejectedPhotoError, now: datetime) -> None:
        entry = _Entry(found=found, at=now)
        with self._lock:
            if (old := self._entries.pop(key, None)) is not None:
                self._bytes -= old.size_bytes
            self._entries[key] = entry
            self._bytes += entry.size_bytes
            while self._bytes > self._most_bytes:
                _, gone = self._entries.popitem(last=False)
                self._bytes -= gone.size_bytes

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
            self._bytes = 0


def _refused(*, error: str, message: str) -> DeskError:
    return DeskError(status=403, error=error, message=message, what_to_do="Load the page that shows it again.")


def _shown(found: bytes | RejectedPhotoError) -> bytes:
    if isinstance(found, RejectedPhotoError):
        raise _cannot_show(found)
    return found


def _cannot_show(rejected: RejectedPhotoError) -> DeskError:
    gone = rejected.reason in _GONE
    return DeskError(
        status=404 if gone else 422,
        error=rejected.reason.value,
        message=f"The photo cannot be shown: {rejected.detail}.",
        what_to_do="What was decided on it stands; only the picture is gone."
        if gone
        else explain_reason(rejected.reason) + " docs/reason_codes.md says what helps.",
    )
