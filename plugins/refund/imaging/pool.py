"""Decodes photos in processes that hold no secret, so that a bad photo costs that photo and nothing else.

The task's process starts one clean interpreter (`python -m refund.imaging.pool`) as a plain subprocess, which works
under Airflow's LocalExecutor and in Celery's daemonic workers alike; that interpreter forks and watches the children
that decode. Bodies go out and facts come back through its pipes; pixels go straight into the pack's file.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

from refund.errors import DecoderPoolError, RejectedPhotoError, StagingMissingError
from refund.imaging.decode import DEFAULT_SIZE, check_bytes
from refund.imaging.examine import rejected_facts
from refund.imaging.pool_wire import CONTROL_TICKET, PHOTO_HEADER, PoolConfig, facts_from_payload, take_answers
from refund.records import ImageLimits, PhotoFacts

IN_FLIGHT_BYTES = 64 * 1024 * 1024
IN_FLIGHT_PHOTOS_PER_WORKER = 64
_START_S = 60.0
_STOP_S = 5.0
_FRUITLESS_STARTS = 3  # interpreters that may die in a row without a single answer
_PIPE_BYTES = 1024 * 1024
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class _InterpreterDiedError(Exception):
    """The decoding interpreter ended or fell silent; its last words."""


class DecoderPool:
    """Isolated decoding into one pack: use it as a context manager, feed it (slot, body) pairs, take the facts.

    Args:
        pixels_path: the pack's pixels, made by `refund.imaging.pack.create_pixels`.
        limits: what a photo may measure.
        workers: decoding children.
        memory_bytes: address space of one child (Linux).
        timeout_s: wall-clock and CPU time for one photo.
        size: width and height of the pack's pixels.
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
        self._interpreter: _Interpreter | None = None
        self._last_ticket = CONTROL_TICKET
        self._decoding = False

    def __enter__(self) -> Self:
        self._running()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the interpreter and its children; harmless when there are none."""
        interpreter, self._interpreter = self._interpreter, None
        if interpreter is not None:
            interpreter.stop()

    @property
    def pid(self) -> int | None:
        """Process id of the decoding interpreter, None when it does not run."""
        return self._interpreter.pid if self._interpreter else None

    def decode(self, items: Iterable[tuple[int, bytes]]) -> Iterator[PhotoFacts]:
        """Decode (slot, body) pairs; give exactly one `PhotoFacts` for each, in the order they get ready.

        Pulls from ``items`` only while few photos are in flight, so memory is bounded by `IN_FLIGHT_BYTES`. A photo
        over which a child crashes, hangs or swells twice, the second time alone, is rejected; the others of that child
        are decoded again.

        Raises:
            DecoderPoolError: the interpreter died several times in a row, or cannot write the pack.
            ValueError: a slot that the pack does not have.
        """
        if self._decoding:
            msg = "this pool is decoding already; one decode() at a time"
            raise RuntimeError(msg)
        self._decoding = True
        in_flight: dict[int, tuple[int, bytes]] = {}
        finished = False
        try:
            yield from self._decode(iter(items), in_flight)
            finished = True
        finally:
            self._decoding = False
            if not finished:  # what is in flight would answer the next call's questions
                self.close()

    def _decode(
        self, source: Iterator[tuple[int, bytes]], in_flight: dict[int, tuple[int, bytes]]
    ) -> Iterator[PhotoFacts]:
        deaths, more = 0, True
        most_photos = IN_FLIGHT_PHOTOS_PER_WORKER * self._config.workers
        in_flight_bytes = 0
        while more or in_flight:
            if more and len(in_flight) < most_photos and (in_flight_bytes < IN_FLIGHT_BYTES or not in_flight):
                item = next(source, None)
                if item is None:
                    more = False
                    continue
                slot, body = item
                try:
                    check_bytes(body, self._config.limits)
                except RejectedPhotoError as exc:
                    yield rejected_facts(slot, body, exc)
                    continue
                self._last_ticket += 1
                in_flight[self._last_ticket] = (slot, body)
                in_flight_bytes += len(body)
                self._running(in_flight, but=self._last_ticket).send(self._last_ticket, slot, body)
                wait = False
            else:
                wait = True
            try:
                answers = self._running(in_flight).exchange(wait=wait, patience_s=3 * self._config.timeout_s + 30)
                facts = [facts_from_payload(in_flight[ticket][0], payload) for ticket, payload in answers]
            except (_InterpreterDiedError, KeyError, ValueError) as exc:
                deaths += 1
                self.close()
                if deaths >= _FRUITLESS_STARTS:
                    msg = (
                        f"the decoding interpreter died {deaths} times in a row ({exc}); look for the kernel's "
                        f"out-of-memory killer, and lower REFUND_DECODE_WORKERS or REFUND_DECODE_MEMORY_BYTES"
                    )
                    raise DecoderPoolError(msg) from exc
                continue
            for ticket, _ in answers:
                in_flight_bytes -= len(in_flight.pop(ticket)[1])
            if facts:
                deaths = 0
            yield from facts

    def _running(
        self, in_flight: dict[int, tuple[int, bytes]] | None = None, *, but: int | None = None
    ) -> _Interpreter:
        """The interpreter; a new one is given everything that is in flight, but for the ticket ``but``."""
        if self._interpreter is None:
            self._interpreter = _Interpreter(self._config)
            for ticket, (slot, body) in (in_flight or {}).items():
                if ticket != but:
                    self._interpreter.send(ticket, slot, body)
        return self._interpreter


class _Interpreter:
    """The subprocess and its pipes, neither of which is ever waited for while the other could be served."""

    def __init__(self, config: PoolConfig) -> None:
        if not Path(config.pixels_path).exists():
            raise StagingMissingError(uri=config.pixels_path)
        self._outbox: deque[memoryview] = deque()
        self._inbox = bytearray()
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed by stop)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-s", "-m", "refund.imaging.pool", config.to_json()],
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
        try:
            self._count = self._await_ready()
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def _await_ready(self) -> int:
        try:
            ((_, payload),) = self._receive(time.monotonic() + _START_S, controls=True)
            return int(payload["ready"])
        except (_InterpreterDiedError, KeyError, ValueError) as exc:
            msg = f"the decoding interpreter {sys.executable} did not start: {exc}"
            raise DecoderPoolError(msg) from exc

    def send(self, ticket: int, slot: int, body: bytes) -> None:
        if not 0 <= slot < self._count:
            msg = f"slot {slot} does not exist, the pack has {self._count}"
            raise ValueError(msg)
        self._outbox.append(memoryview(PHOTO_HEADER.pack(ticket, slot, len(body))))
        if body:
            self._outbox.append(memoryview(body))

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
                    raise DecoderPoolError(msg)
            if answers or (give_up_at is None and not readable):
                return answers
            if give_up_at is not None and time.monotonic() > give_up_at:
                msg = "it fell silent"
                raise _InterpreterDiedError(msg)

    def _turn(self, timeout_s: float) -> bool:
        """Serve whichever pipe is ready, once; say whether anything was read."""
        read = False
        if self._outbox and self._stdin not in self._selector.get_map():
            self._selector.register(self._stdin, selectors.EVENT_WRITE)
        for key, _ in self._selector.select(timeout_s):
            try:
                if key.fileobj is self._stdin:
                    self._write()
                else:
                    chunk = os.read(self._stdout.fileno(), _PIPE_BYTES)
                    if not chunk:
                        raise _InterpreterDiedError(self._last_words())
                    self._inbox += chunk
                    read = True
            except BlockingIOError:
                continue
            except BrokenPipeError as exc:
                raise _InterpreterDiedError(self._last_words()) from exc
        return read

    def _write(self) -> None:
        while self._outbox:
            view = self._outbox[0]
            written = os.write(self._stdin.fileno(), view)
            if written < len(view):
                self._outbox[0] = view[written:]
                return
            self._outbox.popleft()
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
