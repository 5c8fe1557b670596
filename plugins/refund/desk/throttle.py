"""How much one person, and all together, may ask of this server process: photos a minute, uploads and bytes at once."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

from refund.desk.problems import DeskError

if TYPE_CHECKING:
    from limits import RateLimitItem
    from limits.strategies import RateLimiter

MOST_UPLOADS = 64
MOST_OF_ONE_PERSON = 32
MOST_PHOTOS_HELD = 12  # of the largest size, by all together
MOST_PHOTOS_OF_ONE = 10  # of the largest size: a whole batch; what is left is for the others


class Throttle:
    """Photos that a person may have classified in any minute; counted by this server process alone.

    Nothing is started before the first photo: `limits` keeps a timer.
    """

    def __init__(self, photos_per_minute: int) -> None:
        self._photos_per_minute = photos_per_minute
        self._lock = Lock()
        self._made: tuple[RateLimiter, RateLimitItem] | None = None

    def take(self, person: str, photos: int = 1) -> None:
        """Count these photos.

        Raises:
            DeskError: 429; then none of them is counted.
        """
        if photos < 1:
            return
        limiter, allowed = self._limiter()
        if limiter.hit(allowed, person, cost=photos):
            return
        if photos > self._photos_per_minute:
            what_to_do = "Send fewer photos in one batch, or have REFUND_DESK_REQUESTS_PER_MINUTE raised."
        else:
            what_to_do = "Wait as long as Retry-After says, then send again."
        wait_s = max(1, math.ceil(limiter.get_window_stats(allowed, person).reset_time - time.time()))
        raise DeskError(
            status=429,
            error="too_many_requests",
            message=f"{photos} more would pass the {self._photos_per_minute} photos a minute that one person may try.",
            what_to_do=what_to_do,
            headers={"Retry-After": str(wait_s)},
        )

    def _limiter(self) -> tuple[RateLimiter, RateLimitItem]:
        with self._lock:
            if self._made is None:
                from limits import RateLimitItemPerMinute
                from limits.storage import MemoryStorage
                from limits.strategies import MovingWindowRateLimiter

                self._made = MovingWindowRateLimiter(MemoryStorage()), RateLimitItemPerMinute(self._photos_per_minute)
            return self._made


class UploadRoom:
    """What uploads may take of this process: how many at once, and the bytes that they hold together."""

    def __init__(self, *, max_bytes: int) -> None:
        self.most_bytes = MOST_PHOTOS_HELD * max_bytes
        self.most_bytes_of_one = MOST_PHOTOS_OF_ONE * max_bytes
        self.held_bytes = 0
        self._held_by: Counter[str] = Counter()  # bytes
        self._uploads: Counter[str] = Counter()
        self._lock = Lock()

    @contextmanager
    def upload(self, person: str) -> Iterator[Held]:
        """One upload, from before its first byte is read until its answer is made.

        Raises:
            DeskError: 503, too many are under way.
        """
        with self._lock:
            if self._uploads.total() >= MOST_UPLOADS:
                raise _full(message=f"{MOST_UPLOADS} uploads are under way, as many as the desk takes at once.")
            if self._uploads[person] >= MOST_OF_ONE_PERSON:
                raise _full(message=f"{MOST_OF_ONE_PERSON} uploads of yours are under way, as many as one may have.")
            self._uploads[person] += 1
        held = Held(self, person)
        try:
            yield held
        finally:
            with self._lock:
                self._count(held, -held.size_bytes)
                self._uploads[person] -= 1
                if not self._uploads[person]:
                    del self._uploads[person]
                    del self._held_by[person]

    def grow(self, held: Held, size_bytes: int) -> None:
        """Let an upload hold so many bytes more; see `Held.add`."""
        with self._lock:
            if self.held_bytes + size_bytes > self.most_bytes:
                raise _full(message=f"Uploads hold {self.held_bytes:,} bytes, of at most {self.most_bytes:,}.")
            own_bytes = self._held_by[held.person]
            if own_bytes + size_bytes > self.most_bytes_of_one:
                most = f"at most {self.most_bytes_of_one:,} that one person may have here at once"
                raise _full(message=f"Uploads of yours hold {own_bytes:,} bytes, of {most}.")
            self._count(held, size_bytes)

    def shrink(self, held: Held, size_bytes: int) -> None:
        """Let others have so many bytes; see `Held.drop`."""
        with self._lock:
            self._count(held, -size_bytes)

    def _count(self, held: Held, size_bytes: int) -> None:
        self.held_bytes += size_bytes
        self._held_by[held.person] += size_bytes
        held.size_bytes += size_bytes


class Held:
    """The bytes that one upload holds."""

    def __init__(self, room: UploadRoom, person: str) -> None:
        self._room = room
        self.person = person
        self.size_bytes = 0

    def add(self, size_bytes: int) -> None:
        """Hold more.

        Raises:
            DeskError: 503, this person's uploads, or all together, hold as much as they may.
        """
        self._room.grow(self, size_bytes)

    def drop(self, size_bytes: int) -> None:
        """Hold so much less."""
        self._room.shrink(self, size_bytes)


def _full(*, message: str) -> DeskError:
    return DeskError(
        status=503,
        error="busy",
        message=message,
        what_to_do="Send it again in a moment.",
        headers={"Retry-After": "2"},
    )
