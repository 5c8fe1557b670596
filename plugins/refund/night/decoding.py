"""Decode photos that lie anywhere, in isolation, into one file of pixels; a photo that cannot be had costs itself."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from refund.errors import DecoderPoolError, DiskSpaceError, FatalRunError, ReasonCode, RejectedPhotoError
from refund.imaging.decode import DEFAULT_SIZE
from refund.night.room import DecodingRoom, usual_decoding
from refund.records import PhotoFacts
from refund.settings import Settings
from refund.store.staging import WORKING_ROOM_BYTES


def decode_bodies(
    bodies: Iterable[tuple[int, bytes | RejectedPhotoError]],
    *,
    count: int,
    pixels_path: Path,
    settings: Settings,
    size: tuple[int, int] = DEFAULT_SIZE,
    room: DecodingRoom | None = None,
) -> list[PhotoFacts]:
    """Decode ``count`` photos, given as (slot, body or why there is none) in any order, into ``pixels_path``.

    Returns one `PhotoFacts` per slot, in order; the pixels are ``(count, H, W, 3) uint8`` for `size` (width, height).
    Without a ``room`` it takes the usual memory.

    Raises:
        DecoderPoolError: the isolated interpreter cannot run.
        DiskSpaceError: the disk is full.
        FatalRunError: a slot was never given.
    """
    from refund.imaging.pack import create_pixels
    from refund.imaging.pool import DecoderPool

    facts: list[PhotoFacts | None] = [None] * count

    def readable() -> Iterator[tuple[int, bytes]]:
        for slot, body in bodies:
            if isinstance(body, RejectedPhotoError):
                facts[slot] = PhotoFacts(slot=slot, reason=body.reason, detail=body.detail)
            else:
                yield slot, body

    room = room or usual_decoding(settings, photos=count)
    create_pixels(pixels_path, count=count, size=size)
    pool = DecoderPool(
        pixels_path,
        limits=settings.limits,
        workers=room.children,
        memory_bytes=room.child_bytes,
        timeout_s=settings.decode_timeout_s,
        size=size,
        arena_bytes=room.arena_bytes,
    )
    with _disk_told_apart(pixels_path), closing(pool):
        pool.begin()  # it gets ready while the first photos come
        for fact in pool.decode(readable()):
            facts[fact.slot] = fact
    complete = [fact for fact in facts if fact is not None]
    if len(complete) != count:
        msg = (
            f"{count - len(complete)} of {count} photos got no verdict, the first at {facts.index(None)}; run it again"
        )
        raise FatalRunError(msg)
    return complete


@contextmanager
def _disk_told_apart(pixels_path: Path) -> Iterator[None]:
    """The pool can only say that pixels could not be written; where the disk has no room for them, that is why.

    The file was made without taking its room, so a disk that others fill meanwhile shows only then.
    """
    try:
        yield
    except DecoderPoolError as exc:
        stat, free_bytes = pixels_path.stat(), shutil.disk_usage(pixels_path.parent).free
        needed_bytes = stat.st_size - stat.st_blocks * 512  # POSIX counts blocks of 512 bytes
        if free_bytes >= needed_bytes:
            raise
        needed_bytes += WORKING_ROOM_BYTES
        raise DiskSpaceError(path=str(pixels_path.parent), free_bytes=free_bytes, needed_bytes=needed_bytes) from exc


def read_file(path: Path, *, max_bytes: int) -> bytes | RejectedPhotoError:
    """The bytes of a regular file, or why it is none that could be classified."""
    try:
        if path.exists() and not path.is_file():  # a pipe or a device would be read without end
            return RejectedPhotoError(ReasonCode.NOT_AN_IMAGE, "it is no regular file")
        size_bytes = path.stat().st_size
        if size_bytes > max_bytes:
            detail = f"{size_bytes:,} bytes, at most {max_bytes:,} are allowed"
            return RejectedPhotoError(ReasonCode.FILE_TOO_LARGE, detail)
        return path.read_bytes()
    except FileNotFoundError:
        return RejectedPhotoError(ReasonCode.VANISHED, "there is no such file")
    except OSError as exc:  # a folder, a socket, no permission
        return RejectedPhotoError(ReasonCode.NOT_AN_IMAGE, f"it cannot be read: {exc.strerror}")
