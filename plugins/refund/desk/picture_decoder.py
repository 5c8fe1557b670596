"""Decodes one photo after another in isolation, in an interpreter that is started once and kept between requests."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from refund.desk.problems import DeskError, one_line
from refund.errors import (
    DecoderPoolError,
    MemoryShortageError,
    ReasonCode,
    RejectedPhotoError,
    StagingMissingError,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from refund.imaging.pool import DecoderPool
    from refund.records import PhotoFacts
    from refund.report.thumbnails import Thumbnail
    from refund.settings import Settings

log = logging.getLogger(__name__)

_BROKEN = (DecoderPoolError, MemoryShortageError, StagingMissingError, OSError)  # no photo's fault


class PictureDecoder:
    """Turns hostile bytes into a JPEG of ours; safe to use from many threads, which wait for each other.

    Args:
        side_px: of the square that photos are squeezed into, and so the longest side of a picture.
        quality: of the JPEG, as Pillow counts it.
    """

    def __init__(self, settings: Settings, *, side_px: int, quality: int) -> None:
        self._settings = settings
        self._side_px = side_px
        self._quality = quality
        self._lock = Lock()
        self._pool: DecoderPool | None = None
        self._pixels: NDArray[np.uint8] | None = None  # (1, side, side, 3), the pool writes there
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Process id of the decoding interpreter, None when it does not run."""
        return self._pool.pid if self._pool else None

    def picture(self, body: bytes) -> Thumbnail:
        """The photo, made anew.

        Raises:
            RejectedPhotoError: it is no photo that can be shown.
            DeskError: 503, others are ahead for too long, or the interpreter cannot run.
        """
        import numpy as np

        from refund.report.thumbnails import make_thumbnail

        with self._turn():
            facts, mapped = self._decode(body)
            if facts.reason is not None:
                raise RejectedPhotoError(facts.reason, facts.detail or "")
            if not facts.width_px or not facts.height_px:
                raise RejectedPhotoError(ReasonCode.CORRUPT, "the decoder did not say how large it is")
            pixels = np.array(mapped[0])  # a copy: the next photo is written to the same place
        return make_thumbnail(
            pixels, width_px=facts.width_px, height_px=facts.height_px, side_px=self._side_px, quality=self._quality
        )

    def close(self) -> None:
        """End the interpreter, after the photo in its hands; nothing is decoded any more."""
        with self._lock:
            self._closed = True
            self._stop()

    def _turn(self) -> _Turn:
        return _Turn(self._lock, patience_s=4 * self._settings.desk_decode_timeout_s)

    def _decode(self, body: bytes) -> tuple[PhotoFacts, NDArray[np.uint8]]:
        try:
            return self._try(body)
        except _BROKEN as exc:
            log.warning("The interpreter that decodes pictures is started again: %s", one_line(exc))
        try:
            return self._try(body)
        except _BROKEN as exc:
            log.error("No picture can be decoded: %s", one_line(exc))
            raise unavailable(message="The interpreter that decodes pictures cannot run.") from exc

    def _try(self, body: bytes) -> tuple[PhotoFacts, NDArray[np.uint8]]:
        try:
            pool, pixels = self._running()
            (facts,) = pool.decode([(0, body)])
        except BaseException:
            self._stop()
            raise
        return facts, pixels

    def _running(self) -> tuple[DecoderPool, NDArray[np.uint8]]:
        from refund.imaging.pack import PIXELS_FILE, create_pixels, open_pixels
        from refund.imaging.pool import DecoderPool

        if self._closed:
            raise unavailable(message="The desk is ending.")
        if self._pool is None or self._pixels is None:
            size = (self._side_px, self._side_px)
            # Everybody keeps open what they opened, so the file's name goes at once: no folder is left behind by a
            # server that is killed, or swept away under one that runs for weeks. But an interpreter that died cannot be
            # followed by another without it, so `_decode` begins anew.
            with tempfile.TemporaryDirectory(prefix="refund-") as folder:
                path = Path(folder) / PIXELS_FILE
                create_pixels(path, count=1, size=size)
                self._pixels = open_pixels(path)
                self._pool = DecoderPool(
                    path,
                    limits=self._settings.limits,
                    workers=1,
                    memory_bytes=self._settings.decode_memory_bytes,
                    timeout_s=self._settings.desk_decode_timeout_s,
                    size=size,
                )
                self._pool.__enter__()
        return self._pool, self._pixels

    def _stop(self) -> None:
        pool, self._pool, self._pixels = self._pool, None, None
        if pool is not None:
            pool.close()


class _Turn:
    """Holds a lock that is not waited for without end: the server's threads are few, and others need them."""

    def __init__(self, lock: Lock, *, patience_s: float) -> None:
        self._lock = lock
        self._patience_s = patience_s

    def __enter__(self) -> None:
        if not self._lock.acquire(timeout=self._patience_s):
            raise unavailable(message=f"Other pictures have been ahead for {self._patience_s:.0f} s.")

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def unavailable(*, message: str) -> DeskError:
    """503: no fault of the photo's."""
    return DeskError(
        status=503,
        error="unavailable",
        message=message,
        what_to_do="Try again in a moment; if it goes on, tell whoever runs this Airflow.",
        headers={"Retry-After": "5"},
    )
