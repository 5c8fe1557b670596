"""How often one person may ask this server process for anything; photos to classify have a limit of their own."""

from __future__ import annotations

import math
import time
from threading import Lock
from typing import TYPE_CHECKING

from refund.desk.problems import DeskError

if TYPE_CHECKING:
    from limits import RateLimitItem
    from limits.strategies import RateLimiter

REQUESTS_PER_MINUTE = 1_200  # a reviewer at full speed asks a tenth of it


class Pace:
    """Requests of a person in any minute; nothing is started before the first one: `limits` keeps a timer."""

    def __init__(self, requests_per_minute: int = REQUESTS_PER_MINUTE) -> None:
        self._requests_per_minute = requests_per_minute
        self._lock = Lock()
        self._made: tuple[RateLimiter, RateLimitItem] | None = None

    def take(self, person: str) -> None:
        """Count one request.

        Raises:
            DeskError: 429; then it is not counted.
        """
        limiter, allowed = self._limiter()
        if limiter.hit(allowed, person):
            return
        wait_s = max(1, math.ceil(limiter.get_window_stats(allowed, person).reset_time - time.time()))
        raise DeskError(
            status=429,
            error="too_many_requests",
            message=f"One person may ask {self._requests_per_minute:,} times a minute, and you did.",
            what_to_do="Wait as long as Retry-After says, then ask again.",
            headers={"Retry-After": str(wait_s)},
        )

    def _limiter(self) -> tuple[RateLimiter, RateLimitItem]:
        with self._lock:
            if self._made is None:
                from limits import RateLimitItemPerMinute
                from limits.storage import MemoryStorage
                from limits.strategies import MovingWindowRateLimiter

                self._made = MovingWindowRateLimiter(MemoryStorage()), RateLimitItemPerMinute(self._requests_per_minute)
            return self._made
