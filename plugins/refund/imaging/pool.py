"""Decodes photos in processes that hold no secret, so that a bad photo costs that photo and nothing else.

The task's process starts one clean interpreter (`python -m refund.imaging.pool`) as a plain subprocess, which works
under Airflow's LocalExecutor and in Celery's daemonic workers alike; that interpreter forks and watches the children
that decode. Bodies lie in memory that those processes may only read (`refund.imaging.pool_arena`), tickets go out and
facts come back through pipes, pixels go straight into the pack's file.

What a task that decodes may take, above what it needs anyway: in its own process the arena, of ``arena_bytes`` or of
one photo of ``limits.max_bytes`` where that is more; in the interpreter about 60 MB and, while it hashes a photo that
failed, a copy of it; in each child ``memory_bytes`` besides the arena, which is the same memory in all of them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

from refund.errors import DecoderPoolError, MemoryShortageError, RejectedPhotoError, StagingMissingError
from refund.imaging.decode import DEFAULT_SIZE, check_bytes
from refund.imaging.examine import rejected_facts
from refund.imaging.pool_arena import Arena
from refund.imaging.pool_wire import CONTROL_TICKET, TICKET, PoolConfig, facts_from_payload, take_answers
from refund.records import ImageLimits, PhotoFacts

IN_FLIGHT_BYTES = 32 * 1024 * 1024  # two of the largest photos that are taken by default; many ordinary ones
IN_FLIGHT_PHOTOS_PER_WORKER = 64
_AMPLE_PHOTOS_PER_WORKER = 24  # with so many in flight nobody waits for the next, and tickets can go out together
_TICKETS_TOGETHER = 16
_START_S = 60.0
_STOP_S = 5.0
_FRUITLESS_STARTS = 3  # interpreters that may die in a row without a single answer
_PIPE_BYTES = 1024 * 1024
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_STARVED = (
    "The kernel's out-of-memory killer ended a decoding child. Its photos are decoded again, children left: %s. Give "
    "the worker more memory or fewer tasks at once"
)
log = logging.getLogger(__name__)


class _InterpreterDiedError(Exception):
    """The decoding interpreter ended or fell silent; its last words."""


@dataclass(frozen=True, slots=True)
class _InFlight:
    slot: int
    offset: int  # in the arena
    length: int


class DecoderPool:
    """Isolated decoding into one pack: use it as a context manager, feed it (slot, body) pairs, take the facts.

    Args:
        pixels_path: the pack's pixels, made by `refund.imaging.pack.create_pixels`.
        limits: what a photo may measure.
        workers: decoding children.
        memory_bytes: address space of one child, the arena not counted (Linux).
        timeout_s: wall-clock and CPU time for one photo.
        size: width and height of the pack's pixels.
        arena_bytes: bodies that wait for their decoder, or one of ``limits.max_bytes`` where that is more.
    """

    def __init__(
        self,
        pixels_path: Path,
        *,
        limits: ImageLimits,
        workers: int,
        memory_bytes: int,
        timeout_s: float,
        size: tuple[int, int] = DEFAULT_SIZE,
        arena_bytes: int = IN_FLIGHT_BYTES,
    ) -> None:
        if workers < 1 or memory_bytes <= 0 or timeout_s <= 0:
            msg = f"a pool needs workers, memory and time above 0, got {workers}, {memory_bytes}, {timeout_s}"
            raise ValueError(msg)
        self._config = PoolConfig(
            pixels_path=str(pixels_path.resolve()),
            limits=limits,
            workers=workers,
            memory_bytes=memory_bytes,
            timeout_s=timeout_s,
            size=size,
        )
        self._arena_bytes = max(arena_bytes, limits.max_bytes)
        self._interpreter: _Interpreter | None = None
        self._arena: Arena | None = None
        self._in_flight: dict[int, _InFlight] = {}  # by ticket
        self._last_ticket = CONTROL_TICKET
        self._decoding = False

    def __enter__(self) -> Self:
        self._running()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def begin(self) -> None:
        """Start the interpreter and do not wait for it, as `decode` does before it hands over the first photo."""
        if self._interpreter is None:
            self._interpreter = _Interpreter(self._config, arena_fd=self._shared().fd)

    def close(self) -> None:
        """End the interpreter and its children and free the arena; harmless when there are none."""
        arena, self._arena = self._arena, None
        self._in_flight.clear()
        try:
            self._stop()
        finally:
            if arena is not None:
                arena.close()

    def _stop(self) -> None:
        interpreter, self._interpreter = self._interpreter, None
        if interpreter is not None:
            interpreter.stop()

    @property
    def pid(self) -> int | None:
        """Process id of the decoding interpreter, None when it does not run or is not ready."""
        return self._interpreter.pid if self._interpreter and self._interpreter.ready else None

    def decode(self, items: Iterable[tuple[int, bytes]]) -> Iterator[PhotoFacts]:
        """Decode (slot, body) pairs; give exactly one `PhotoFacts` for each, in the order they get ready.

        Pulls from ``items`` only while few photos are in flight and the arena had room for the last, so one body at
        most is held outside of it. A photo over which a child crashes, hangs or swells twice, the second time alone, is
        rejected; the others of that child are decoded again.

        Raises:
            DecoderPoolError: the interpreter died several times in a row, or cannot write the pack; no arena.
            MemoryShortageError: the kernel's out-of-memory killer ended the last child.
            ValueError: a slot that the pack does not have.
        """
        if self._decoding:
            msg = "this pool is decoding already; one decode() at a time"
            raise RuntimeError(msg)
        self._decoding = True
        finished = False
        try:
            yield from self._decode(iter(items))
            finished = True
        finally:
            self._decoding = False
            if not finished:  # what is in flight would answer the next call's questions
                self.close()

    def _decode(self, source: Iterator[tuple[int, bytes]]) -> Iterator[PhotoFacts]:
        held: tuple[int, bytes] | None = None  # pulled, but the arena has no room for it yet
        deaths, more = 0, True
        most = IN_FLIGHT_PHOTOS_PER_WORKER * self._config.workers
        while more or held is not None or self._in_flight:
            if more and held is None and len(self._in_flight) < most:
                held = next(source, None)
                more = held is not None
            if held is not None:
                try:
                    check_bytes(held[1], self._config.limits)
                except RejectedPhotoError as exc:
                    facts, held = [rejected_facts(*held, exc)], None
                    yield from facts
                    continue
                if self._hand_over(*held):
                    held = None
                    if more and self._can_wait():
                        continue
            if not self._in_flight:
                continue
            wait = held is not None or not more or len(self._in_flight) >= most
            try:
                answers = self._running().exchange(wait=wait, patience_s=3 * self._config.timeout_s + 30)
                facts = [facts_from_payload(self._in_flight[ticket].slot, payload) for ticket, payload in answers]
            except (_InterpreterDiedError, KeyError, ValueError) as exc:
                deaths += 1
                self._stop()  # and leave the arena as it is: the next interpreter finds everything there
                if deaths >= _FRUITLESS_STARTS:
                    msg = (
                        f"the decoding interpreter died {deaths} times in a row ({exc}); look for the kernel's "
                        f"out-of-memory killer, and lower REFUND_DECODE_WORKERS or REFUND_DECODE_MEMORY_BYTES"
                    )
                    raise DecoderPoolError(msg) from exc
                continue
            for ticket, _ in answers:
                photo = self._in_flight.pop(ticket)
                self._shared().free(photo.offset, photo.length)
            if facts:
                deaths = 0
            yield from facts

    def _hand_over(self, slot: int, body: bytes) -> bool:
        """Put the body into the arena and its ticket into the outbox; say whether there was room."""
        interpreter = self._running()
        interpreter.check_slot(slot)
        offset = self._shared().put(body)
        if offset is None:
            return False
        self._last_ticket += 1
        self._in_flight[self._last_ticket] = photo = _InFlight(slot, offset, len(body))
        interpreter.send(self._last_ticket, photo)
        return True

    def _can_wait(self) -> bool:
        """Whether tickets may stay in the outbox for now; to wake the interpreter for each costs both sides more."""
        ample = _AMPLE_PHOTOS_PER_WORKER * self._config.workers
        return len(self._in_flight) > ample and self._running().unsent < _TICKETS_TOGETHER

    def _running(self) -> _Interpreter:
        """The interpreter, ready; a new one is given everything that is in flight."""
        self.begin()
        interpreter = cast(_Interpreter, self._interpreter)
        if not interpreter.ready:
            try:
                interpreter.await_ready()
            except BaseException:
                self._stop()
                raise
            for ticket, photo in self._in_flight.items():
                interpreter.send(ticket, photo)
        return interpreter

    def _shared(self) -> Arena:
        if self._arena is None:
            self._arena = Arena(self._arena_bytes)
        return self._arena


class _Interpreter:
    """The subprocess and its pipes, neither of which is ever waited for while the other could be served."""

    def __init__(self, config: PoolConfig, *, arena_fd: int) -> None:
        if not Path(config.pixels_path).exists():
            raise StagingMissingError(uri=config.pixels_path)
        self._outbox = bytearray()
        self._inbox = bytearray()
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed by stop)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-s", "-m", "refund.imaging.pool", config.to_json(), str(arena_fd)],
                pass_fds=(arena_fd,),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=_scrubbed(os.environ),
                cwd="/",
                start_new_session=True,  # Ctrl-C is the parent's to handle; the end of its input ends the interpreter
                bufsize=0,
            )
        except OSError as exc:
            self._errors.close()
            msg = f"{sys.executable} could not be started to decode photos: {exc.strerror}"
            raise DecoderPoolError(msg) from exc
        self._stdin, self._stdout = cast(IO[bytes], self._process.stdin), cast(IO[bytes], self._process.stdout)
        for stream in (self._stdin, self._stdout):
            os.set_blocking(stream.fileno(), False)
            _widen(stream.fileno())
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._stdout, selectors.EVENT_READ)
        self.ready, self._count = False, 0  # slots of the pack, once it is ready

    @property
    def pid(self) -> int:
        return self._process.pid

    def await_ready(self) -> None:
        try:
            (_, payload), *_ = self._receive(time.monotonic() + _START_S, controls=True)  # others: children lost since
            self._count, self.ready = int(payload["ready"]), True
        except (_InterpreterDiedError, KeyError, ValueError) as exc:
            msg = f"the decoding interpreter {sys.executable} did not start: {exc}"
            raise DecoderPoolError(msg) from exc

    def check_slot(self, slot: int) -> None:
        if not 0 <= slot < self._count:
            msg = f"slot {slot} does not exist, the pack has {self._count}"
            raise ValueError(msg)

    @property
    def unsent(self) -> int:
        """Tickets that no pipe has taken yet."""
        return len(self._outbox) // TICKET.size

    def send(self, ticket: int, photo: _InFlight) -> None:
        self._outbox += TICKET.pack(ticket, photo.slot, photo.offset, photo.length)

    def exchange(self, *, wait: bool, patience_s: float) -> list[tuple[int, dict[str, Any]]]:
        """Send what the pipe takes and return the answers that are there; with ``wait``, at least one."""
        return self._receive(time.monotonic() + patience_s if wait else None)

    def _receive(self, give_up_at: float | None, *, controls: bool = False) -> list[tuple[int, dict[str, Any]]]:
        while True:
            readable = self._turn(0.0 if give_up_at is None else max(0.0, give_up_at - time.monotonic()))
            answers = take_answers(self._inbox)
            for ticket, payload in answers:
                if ticket == CONTROL_TICKET and "fatal" in payload:
                    msg = f"photos cannot be decoded: {payload['fatal']}"
                    raise MemoryShortageError(msg) if payload.get("starved") else DecoderPoolError(msg)
                if ticket == CONTROL_TICKET and "children" in payload:
                    log.warning(_STARVED, payload["children"])
            answers = [answer for answer in answers if controls or answer[0] != CONTROL_TICKET]
            if answers or (give_up_at is None and not readable):
                return answers
            if give_up_at is not None and time.monotonic() > give_up_at:
                msg = "it fell silent"
                raise _InterpreterDiedError(msg)

    def _turn(self, timeout_s: float) -> bool:
        """Send what the pipe takes, read what is there or comes in time; say whether anything was read."""
        read = False
        self._write()
        for key, _ in self._selector.select(timeout_s):
            if key.fileobj is self._stdin:
                self._write()
                continue
            with contextlib.suppress(BlockingIOError):
                chunk = os.read(self._stdout.fileno(), _PIPE_BYTES)
                if not chunk:
                    raise _InterpreterDiedError(self._last_words())
                self._inbox += chunk
                read = True
        return read

    def _write(self) -> None:
        """Only while the pipe is full it is watched; that it broke shows where answers are read, after the last one."""
        watched = self._stdin in self._selector.get_map()
        try:
            if self._outbox:
                del self._outbox[: os.write(self._stdin.fileno(), self._outbox)]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self._outbox.clear()
        if self._outbox and not watched:
            self._selector.register(self._stdin, selectors.EVENT_WRITE)
        elif watched and not self._outbox:
            self._selector.unregister(self._stdin)

    def _last_words(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_S)
        self._errors.seek(0)
        lines = self._errors.read()[-2000:].decode(errors="replace").strip().splitlines()
        return f"exit status {self._process.returncode}" + (f", last words: {lines[-1]}" if lines else "")

    def stop(self) -> None:
        """End it: by closing its input, by force if that does not do."""
        try:
            self._selector.close()
            self._stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_S)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._stdout.close()
            self._errors.close()


def _scrubbed(environ: os._Environ[str]) -> dict[str, str]:
    """The few variables an interpreter needs to import this package, numpy and Pillow; nothing that could be secret."""
    kept = {name: environ[name] for name in _KEPT_VARIABLES if name in environ}
    roots = [Path(__file__).resolve().parents[2]]
    for package in ("numpy", "PIL"):  # wherever this process has them from, found without importing them
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            roots.append(Path(spec.origin).parents[1])
    kept["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(map(str, roots)))
    kept["OPENBLAS_NUM_THREADS"] = kept["OMP_NUM_THREADS"] = "1"  # threads would make forking unsafe
    return kept


def _widen(fd: int) -> None:
    if sys.platform == "linux":
        import fcntl

        with contextlib.suppress(OSError):  # the system's limit on pipes may be lower
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


if __name__ == "__main__":
    from refund.imaging.pool_server import main

    sys.exit(main())
