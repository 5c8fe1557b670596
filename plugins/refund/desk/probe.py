"""Asks every part that the desk needs whether it works, all at once and for a bounded time."""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from datetime import datetime
from threading import Lock, Thread
from typing import TYPE_CHECKING

from refund.desk.problems import DeskError, one_line
from refund.errors import RefundError
from refund.store.database import EXPECTED_VERSION

if TYPE_CHECKING:
    from refund.desk.verdict import Verdict
    from refund.desk.wiring import Desk

log = logging.getLogger(__name__)

PATIENCE_S = 4.0  # for an answer of a part
QUEUE_PATIENCE_S = 3.0  # for a picture's turn; less than `PATIENCE_S`, so that mere load can be told from a fault
KEPT_S = 2.0  # an answer is given again for so long, so that a monitor cannot load the stores


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """How one part is."""

    ok: bool
    message: str  # no secret: what works, or what was seen, expected and to do
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """How all parts are, and when they were asked."""

    parts: Mapping[str, Part]
    checked_at: datetime

    @property
    def ok(self) -> bool:
        """Whether everything works."""
        return all(part.ok for part in self.parts.values())


class Probe:
    """Checks by name, each in a thread of its own and never twice at a time: one that hangs is not begun again."""

    def __init__(
        self,
        checks: Mapping[str, Callable[[], str]],
        *,
        patience_s: float = PATIENCE_S,
        kept_s: float = KEPT_S,
    ) -> None:
        """``checks`` return what works, in a sentence, or raise."""
        self._checks = checks
        self._patience_s, self._kept_s = patience_s, kept_s
        self._lock = Lock()
        self._under_way: dict[str, tuple[Future[Part], float]] = {}
        self._found: Found | None = None
        self._found_at = float("-inf")

    def ask(self, now: Callable[[], datetime]) -> Found:
        """How the parts are, or were a moment ago."""
        with self._lock:  # who comes meanwhile waits for this answer
            if self._found is None or time.monotonic() - self._found_at > self._kept_s:
                give_up_at = time.monotonic() + self._patience_s
                asked = {name: self._begin(name) for name in self._checks}
                parts = {name: self._answer(name, begun, give_up_at) for name, begun in asked.items()}
                self._found, self._found_at = Found(parts=parts, checked_at=now()), time.monotonic()
            return self._found

    def _begin(self, name: str) -> tuple[Future[Part], float]:
        known = self._under_way.get(name)
        if known is not None and not known[0].done():
            return known
        answer: Future[Part] = Future()
        begun = answer, time.monotonic()
        self._under_way[name] = begun
        # a daemon: a server that shuts down does not wait for a store that does not answer
        Thread(target=_run, args=(name, self._checks[name], answer), name=f"desk-probe-{name}", daemon=True).start()
        return begun

    def _answer(self, name: str, begun: tuple[Future[Part], float], give_up_at: float) -> Part:
        answer, since = begun
        try:
            part = answer.result(timeout=max(0.0, give_up_at - time.monotonic()))
        except FutureTimeoutError:
            waited_s = time.monotonic() - since
            message = f"No answer for {waited_s:.0f} s; expected one within {self._patience_s:.0f} s."
            return Part(ok=False, message=message, seconds=round(waited_s, 3))
        self._under_way.pop(name, None)
        return part


def _run(name: str, check: Callable[[], str], answer: Future[Part]) -> None:
    begun_s = time.perf_counter()
    try:
        ok, message = True, check()
    except (RefundError, DeskError) as exc:  # their texts name no secret
        ok, message = False, str(exc)
        log.warning("The desk's %s does not work: %s", name, one_line(exc))
    except Exception:  # the text may hold anything
        ok, message = False, "It failed in a way that is told in Airflow's log alone."
        log.exception("The desk's %s does not work", name)
    answer.set_result(Part(ok=ok, message=message, seconds=round(time.perf_counter() - begun_s, 3)))


def desk_probe(desk: Desk) -> Probe:
    """The parts of a desk."""
    tried: Future[Verdict] | None = None  # one picture at most waits among those of people

    def database() -> str:
        desk.services.database.require_schema()
        return f"Postgres answers, its schema is at {EXPECTED_VERSION}."

    def bucket() -> str:
        objects = desk.services.objects
        objects.check_bucket()
        return f"The bucket {objects.bucket} can be listed."

    def model() -> str:
        row = desk.services.registry.resolve("champion")
        return f"The champion is {row.model}."

    def decoding() -> str:
        nonlocal tried
        engine = desk.engine
        try:
            if tried is None or tried.done():
                tried = None
                (tried,) = engine.classify([(_smallest_photo(desk.services.settings.min_side_px), 1)])
            facts = tried.result(timeout=QUEUE_PATIENCE_S).facts
        except DeskError as exc:
            if exc.error == "busy" and engine.works():
                return "As many photos wait as may; they are being classified."
            raise
        except FutureTimeoutError:
            if engine.works():
                return f"Busy: a picture waited {QUEUE_PATIENCE_S:g} s among others, which are being classified."
            raise DeskError(
                status=503,
                error="stuck",
                message=f"A picture waited {QUEUE_PATIENCE_S:g} s, and no photo has been decoded for a minute or more.",
                what_to_do="Restart the API server; Airflow's log may say why.",
            ) from None
        if not facts.ok:
            raise DeskError(
                status=503,
                error="cannot_decode",
                message=f"A plain picture is rejected as {facts.reason}: {facts.detail}.",
                what_to_do="Look at Airflow's log.",
            )
        return "A picture was decoded in isolation and classified."

    return Probe({"database": database, "bucket": bucket, "model": model, "decoding": decoding})


def _smallest_photo(side_px: int) -> bytes:
    """A BMP that is just large enough, its colours running across it: over plain grey a quantised network may say 0."""
    padding = bytes(-side_px * 3 % 4)
    scale = 255 / side_px
    rows = (
        b"".join(bytes((int(x * scale), int(y * scale), 255 - int(x * scale))) for x in range(side_px)) + padding
        for y in range(side_px)
    )
    pixels = b"".join(rows)
    header = struct.pack("<IiiHHIIiiII", 40, side_px, side_px, 1, 24, 0, len(pixels), 2835, 2835, 0, 0)
    offset = 14 + len(header)
    return struct.pack("<2sIHHI", b"BM", offset + len(pixels), 0, 0, offset) + header + pixels
