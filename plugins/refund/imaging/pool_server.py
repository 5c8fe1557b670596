"""The decoding interpreter: hands tickets to forked children, watches them, and reports what became of each photo.

One loop without threads and without a blocking call, so that no full pipe can stop it and forking stays safe. It ends,
and ends its children, when its standard input closes or its parent changes.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from refund.errors import ReasonCode, RefundError, RejectedPhotoError
from refund.imaging.decode import load_plugins
from refund.imaging.examine import rejected_facts
from refund.imaging.pack import pixels_layout
from refund.imaging.pool_arena import read_only
from refund.imaging.pool_child import OUT_OF_MEMORY_STATUS, run_child
from refund.imaging.pool_wire import (
    CONTROL_TICKET,
    TICKET,
    PoolConfig,
    answer_frame,
    facts_from_payload,
    facts_payload,
    take_answer_frames,
    take_tickets,
)

_CHILD_PHOTOS = 16  # photos a child may have before it answers: enough to keep it busy, few to repeat when it dies
_READ_BYTES = 1024 * 1024
_IDLE_DEATHS = 5  # children that die without a photo in hand before the pool gives up
_PARENT_CHECK_S = 1.0
_ANSWER_BATCH_BYTES = 8192  # about twenty answers
_ANSWER_WAIT_S = 0.05


@dataclass(slots=True, eq=False)
class _Photo:
    ticket: int
    slot: int
    offset: int  # of its body in the arena
    length: int
    failed: bool = False  # it was in the hands of a child that failed; now it goes alone


@dataclass(slots=True, eq=False)
class _Child:
    pid: int
    sock: socket.socket
    photos: deque[_Photo] = field(default_factory=deque)  # in order; the child has the first in its hands
    inbox: bytearray = field(default_factory=bytearray)
    began_at: float = 0.0  # monotonic: when it could begin with the first photo
    timed_out: bool = False
    babbled: bool = False  # it answered what no decoder says
    killed: bool = False  # by us
    oom_kills: int = 0  # of the kernel, when it began

    @property
    def alone(self) -> bool:
        return bool(self.photos) and self.photos[0].failed


class _PoolBrokenError(Exception):
    """No photo's fault; the text goes to the parent."""


class _StarvedError(_PoolBrokenError):
    """The machine has no memory left for the last child; another time it may."""


def serve(config: PoolConfig, arena_fd: int) -> int:
    """Answer tickets from standard input on standard output until the input ends; the process's exit status."""
    answers_fd = os.dup(1)
    os.dup2(2, 1)  # a stray print must not end up among the answers
    server = _Server(config, answers_fd, arena_fd)
    try:
        server.run()
    except _PoolBrokenError as exc:
        server.say_fatal(str(exc), starved=isinstance(exc, _StarvedError))
        return 1
    except BrokenPipeError:
        return 0  # the parent is gone
    finally:
        server.stop()
    return 0


class _Server:
    def __init__(self, config: PoolConfig, answers_fd: int, arena_fd: int) -> None:
        self._config = config
        self._bodies = read_only(arena_fd)
        os.close(arena_fd)
        self._answers_fd = answers_fd
        self._parent = os.getppid()
        self._selector = selectors.DefaultSelector()
        self._children: list[_Child] = []
        self._waiting: deque[_Photo] = deque()
        self._alone: deque[_Photo] = deque()
        self._inbox = bytearray()
        self._outbox = bytearray()
        self._woken_at = 0.0  # monotonic: when answers were last written
        self._input_open = True
        self._idle_deaths = 0

    def run(self) -> None:
        self._prepare()
        os.set_blocking(0, False)
        os.set_blocking(self._answers_fd, False)
        self._selector.register(0, selectors.EVENT_READ)
        while self._input_open and os.getppid() == self._parent:
            while not self._hand_out():  # a child was lost over it, and another is there
                pass
            self._send_answers()
            for key, _ in self._selector.select(self._next_deadline_s()):
                if key.fd == 0:
                    self._read_tickets()
                elif key.fd == self._answers_fd:
                    self._write_answers()
                elif key.data in self._children:
                    self._listen(key.data)
            self._stop_overdue()

    def _prepare(self) -> None:
        import numpy  # noqa: F401  (imported once here, so that children have it when they are forked)

        load_plugins()
        try:
            offset, shape = pixels_layout(path := Path(self._config.pixels_path))
        except RefundError as exc:
            raise _PoolBrokenError(str(exc)) from exc
        if (shape[2], shape[1]) != self._config.size:
            msg = f"{path} holds {shape[2]} x {shape[1]} pixels, the pool was made for {self._config.size}"
            raise _PoolBrokenError(msg)
        try:
            self._pixels_fd, self._pixels_offset = os.open(path, os.O_RDWR), offset
        except OSError as exc:
            msg = f"{path} cannot be written to: {exc.strerror}"
            raise _PoolBrokenError(msg) from exc
        for _ in range(self._config.workers):
            self._fork()
        self._outbox += answer_frame(CONTROL_TICKET, {"ready": shape[0]})

    def _fork(self) -> None:
        ours, theirs = socket.socketpair()
        counted = _oom_kills(self._config.kernel_counts)
        try:
            pid = os.fork()
        except OSError as exc:
            msg = f"no decoding child could be started: {exc.strerror}"
            raise _PoolBrokenError(msg) from exc
        if pid == 0:
            run_child(
                theirs.fileno(), self._pixels_fd, self._bodies, pixels_offset=self._pixels_offset, config=self._config
            )
        theirs.close()
        ours.setblocking(False)
        child = _Child(pid=pid, sock=ours, oom_kills=counted)
        self._children.append(child)
        self._selector.register(ours, selectors.EVENT_READ, child)

    # --- the parent -------------------------------------------------------------------------------------------------

    def _read_tickets(self) -> None:
        with contextlib.suppress(BlockingIOError):
            received = os.read(0, _READ_BYTES)
            if not received:
                self._input_open = False
            self._inbox += received
            self._waiting.extend(_Photo(*ticket) for ticket in take_tickets(self._inbox))

    def _send_answers(self) -> None:
        """Write answers that are due; only while the pipe is full it is watched, which would cost a turn each time."""
        watched = self._answers_fd in self._selector.get_map()
        if self._outbox and not watched and self._answers_are_due():
            self._write_answers()
            if self._outbox:
                self._selector.register(self._answers_fd, selectors.EVENT_WRITE)
        elif watched and not self._outbox:
            self._selector.unregister(self._answers_fd)

    def _answers_are_due(self) -> bool:
        """Whether to wake the parent: a few answers together cost it, and us, far less than each alone."""
        busy = any(child.photos for child in self._children)
        return (
            not busy or len(self._outbox) >= _ANSWER_BATCH_BYTES or time.monotonic() - self._woken_at > _ANSWER_WAIT_S
        )

    def _write_answers(self) -> None:
        with contextlib.suppress(BlockingIOError):
            written = os.write(self._answers_fd, self._outbox)
            del self._outbox[:written]
            self._woken_at = time.monotonic()

    def say_fatal(self, text: str, *, starved: bool) -> None:
        """Tell the parent why the pool ends, and whether it was for want of memory."""
        self._outbox += answer_frame(CONTROL_TICKET, {"fatal": text, "starved": starved})
        os.set_blocking(self._answers_fd, True)
        with contextlib.suppress(OSError):
            while self._outbox:
                self._write_answers()

    # --- the children -----------------------------------------------------------------------------------------------

    def _hand_out(self) -> bool:
        """Give every child its share; False when one of them could not take it any more."""
        share = min(_CHILD_PHOTOS, max(1, -(-len(self._waiting) // len(self._children))))
        for child in self._children:
            given: list[_Photo] = []
            if self._alone:
                if not child.photos:
                    given.append(self._alone.popleft())
                # the others run dry, so that no photo waits for its turn alone until the night is over
            elif not child.alone:
                while self._waiting and len(child.photos) + len(given) < share:
                    given.append(self._waiting.popleft())
            if given and not self._give(child, given):
                (self._alone if given[0].failed else self._waiting).extendleft(reversed(given))
                self._bury(child)
                return False
        return True

    def _give(self, child: _Child, photos: list[_Photo]) -> bool:
        """Send the tickets; False when the child did not get them, so that these photos are not its victims.

        A child's few tickets always fit into its socket, unless it answers without ever reading.
        """
        frames = b"".join(TICKET.pack(photo.ticket, photo.slot, photo.offset, photo.length) for photo in photos)
        try:
            if child.sock.send(frames) < len(frames):
                return False
        except OSError:
            return False
        if not child.photos:
            child.began_at = time.monotonic()
        child.photos.extend(photos)
        if child.alone:  # what the kernel ended before says nothing of this photo
            child.oom_kills = _oom_kills(self._config.kernel_counts)
        return True

    def _listen(self, child: _Child) -> None:
        try:
            received = child.sock.recv(_READ_BYTES)
            if received:
                child.inbox += received
                self._take(child)
                return
        except BlockingIOError:
            return
        except ValueError:
            child.babbled = True
        except OSError:  # it died with tickets unread
            pass
        self._bury(child)

    def _take(self, child: _Child) -> None:
        for ticket, payload, frame in take_answer_frames(child.inbox):
            if ticket == CONTROL_TICKET:
                raise _PoolBrokenError(str(payload.get("fatal"))[:1000])
            if not child.photos or child.photos[0].ticket != ticket:
                msg = f"an answer about photo {ticket}, which was not asked"
                raise ValueError(msg)
            facts_from_payload(child.photos[0].slot, payload)  # refuses nonsense before the parent sees it
            child.photos.popleft()
            child.began_at = time.monotonic()
            self._idle_deaths = 0
            self._outbox += frame

    def _next_deadline_s(self) -> float:
        deadlines = [child.began_at + self._config.timeout_s for child in self._children if child.photos]
        longest = _ANSWER_WAIT_S if self._outbox else _PARENT_CHECK_S
        return max(0.0, min([longest, *(deadline - time.monotonic() for deadline in deadlines)]))

    def _stop_overdue(self) -> None:
        now = time.monotonic()
        for child in list(self._children):
            if child.photos and now > child.began_at + self._config.timeout_s:
                child.timed_out = True
                self._bury(child)

    def _bury(self, child: _Child) -> None:
        """Reap a child that failed, put another in its place, and send its photos again, each alone."""
        spent_ms = round((time.monotonic() - child.began_at) * 1000, 3)
        status = self._end(child)
        self._children.remove(child)
        photos = list(child.photos)
        starved = self._starved(child, status)
        if starved and child.alone and not self._children:
            msg = (
                "the kernel's out-of-memory killer ended the last decoding child over a single photo; give the "
                "worker more memory or fewer tasks at once"
            )
            raise _StarvedError(msg)
        if not photos and not (starved and self._children):
            self._idle_deaths += 1
            if self._idle_deaths >= _IDLE_DEATHS:
                if starved:
                    msg = (
                        f"{_IDLE_DEATHS} decoding children died without a photo, the last ended by the kernel's "
                        f"out-of-memory killer; give the worker more memory or fewer tasks at once"
                    )
                    raise _StarvedError(msg)
                msg = f"{_IDLE_DEATHS} decoding children died without a photo, the last {_death(status)}"
                raise _PoolBrokenError(msg)
        if child.alone and not starved:
            self._reject(photos.pop(0), self._verdict(child, status), decode_ms=spent_ms)
        if child.timed_out and len(photos) > 1:  # the others are not to wait for its second try as well
            photos.append(photos.pop(0))
        for photo in photos:
            photo.failed = True
            self._alone.append(photo)
        if starved and self._children:
            self._outbox += answer_frame(CONTROL_TICKET, {"children": len(self._children)})
        else:
            self._fork()

    def _starved(self, child: _Child, status: int) -> bool:
        """Whether the machine had no memory left for this child: nobody's fault, and no other is to take its place."""
        if child.killed or not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            return False
        return _oom_kills(self._config.kernel_counts) > child.oom_kills

    def _verdict(self, child: _Child, status: int) -> RejectedPhotoError:
        config = self._config
        if child.timed_out or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
            detail = f"decoding took longer than {config.timeout_s:g} seconds, twice"
            return RejectedPhotoError(ReasonCode.DECODE_TIMEOUT, detail)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == OUT_OF_MEMORY_STATUS:
            detail = f"decoding needed more than {config.memory_bytes / 1e6:,.0f} MB of memory, twice"
            return RejectedPhotoError(ReasonCode.DECODE_MEMORY, detail)
        if child.babbled:
            detail = "the decoder answered with something else than facts about this photo, twice"
            return RejectedPhotoError(ReasonCode.DECODE_CRASHED, detail)
        detail = f"the decoder died twice over this photo, the last time {_death(status)}"
        return RejectedPhotoError(ReasonCode.DECODE_CRASHED, detail)

    def _reject(self, photo: _Photo, error: RejectedPhotoError, *, decode_ms: float) -> None:
        body = self._bodies[photo.offset : photo.offset + photo.length]
        facts = rejected_facts(photo.slot, body, error)
        self._outbox += answer_frame(photo.ticket, facts_payload(facts) | {"decode_ms": decode_ms})

    def _end(self, child: _Child) -> int:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(child.sock)
        child.sock.close()
        if not (
            child.timed_out or child.babbled
        ):  # give it the moment between closing its socket and exiting: its status is telling
            give_up_at = time.monotonic() + 0.5
            while time.monotonic() < give_up_at:
                pid, status = os.waitpid(child.pid, os.WNOHANG)
                if pid:
                    return status
                time.sleep(0.001)
        child.killed = True
        os.kill(child.pid, signal.SIGKILL)
        return os.waitpid(child.pid, 0)[1]

    def stop(self) -> None:
        """End every child at once."""
        for child in self._children:
            child.timed_out = True  # no moment of grace
            self._end(child)
        self._children.clear()


def _oom_kills(kernel_counts: str) -> int:
    """How many processes the kernel has ended for want of memory, on this whole machine; 0 where it does not say."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(kernel_counts).read_text(encoding="utf-8").splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


def _death(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"by signal {signal.Signals(os.WTERMSIG(status)).name}"
    return f"with exit status {os.WEXITSTATUS(status)}"


def main() -> int:
    """Entry of `python -m refund.imaging.pool`."""
    return serve(PoolConfig.from_json(sys.argv[1]), int(sys.argv[2]))
