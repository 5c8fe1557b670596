"""A decoding child: takes tickets from a socket, reads their photos where they lie, writes pixels, answers with facts.

Runs in a process forked by `refund.imaging.pool_server`, under limits; whatever happens to it, only the photo in its
hands is lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path
from typing import NoReturn

from refund.imaging.examine import examine_photo
from refund.imaging.pool_wire import CONTROL_TICKET, TICKET, PoolConfig, answer_frame, facts_payload, take_tickets

OUT_OF_MEMORY_STATUS = 42  # exit status that means: the memory limit was reached
_LOWEST_KEPT_FD = 100
_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 64 * 1024 * 1024  # freed memory that a child keeps: asking for new pages is dear, 256 times a megabyte
_ANSWERS_TOGETHER = 8  # half of what the server lets a child have, so that it never runs dry
_ANSWER_WAIT_S = 0.05
_TICKETS_AT_ONCE = 64


def run_child(sock_fd: int, pixels_fd: int, bodies: mmap.mmap, *, pixels_offset: int, config: PoolConfig) -> NoReturn:
    """Decode until the socket closes; never returns into the forked copy of the server.

    ``bodies`` is the arena as the server mapped it, readable only; the mapping is inherited, its descriptor is not.
    """
    status = 70
    try:
        sock_fd, pixels_fd = _keep_only(sock_fd, pixels_fd)
        _limit(config, pixels_fd, arena_bytes=len(bodies))
        with socket.socket(fileno=sock_fd) as sock:
            _serve(sock, bodies, pixels_fd, pixels_offset, config)
        status = 0
    except MemoryError:
        status = OUT_OF_MEMORY_STATUS
    except (BrokenPipeError, ConnectionResetError):
        status = 0  # the server is gone
    finally:
        os._exit(status)


def _keep_only(sock_fd: int, pixels_fd: int) -> tuple[int, int]:
    """Close every other descriptor: a child that held a sibling's socket would keep it from seeing its end."""
    kept_sock = fcntl.fcntl(sock_fd, fcntl.F_DUPFD, _LOWEST_KEPT_FD)
    kept_pixels = fcntl.fcntl(pixels_fd, fcntl.F_DUPFD, kept_sock + 1)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.closerange(3, kept_sock)
    os.closerange(kept_sock + 1, kept_pixels)
    os.closerange(kept_pixels + 1, 65_536)
    return kept_sock, kept_pixels


def _limit(config: PoolConfig, pixels_fd: int, *, arena_bytes: int) -> None:
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(OSError):  # where the machine runs out of memory, a child is to die before the task
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")

        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if hasattr(libc, "mallopt"):  # glibc; bodies and pictures of one photo then lie where the last one's did
            libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES // 2)
            libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    _set_limit(resource.RLIMIT_CORE, 0)
    _set_limit(resource.RLIMIT_FSIZE, os.fstat(pixels_fd).st_size)
    _set_limit(resource.RLIMIT_NOFILE, 64)
    _set_limit(resource.RLIMIT_AS, config.memory_bytes + arena_bytes)  # the arena is mapped, but it is not the child's


def _set_limit(kind: int, soft: int) -> None:
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        soft = min(soft, hard)
    with contextlib.suppress(ValueError, OSError):  # macOS refuses RLIMIT_AS; the wall clock still bounds the child
        resource.setrlimit(kind, (soft, hard))


def _serve(sock: socket.socket, bodies: mmap.mmap, pixels_fd: int, pixels_offset: int, config: PoolConfig) -> None:
    """Answers go back several at once; if this child dies, the photos whose answers it kept are decoded again."""
    photo_bytes = config.size[0] * config.size[1] * 3
    patience_s = min(_ANSWER_WAIT_S, config.timeout_s / 10)  # the server's clock for a photo runs from the last answer
    inbox, answers, answered, sent_at = bytearray(), bytearray(), 0, time.monotonic()
    while received := sock.recv(_TICKETS_AT_ONCE * TICKET.size):
        inbox += received
        for ticket, slot, offset, length in take_tickets(inbox):
            # RLIMIT_CPU counts from the start of the process, so the limit moves with every photo.
            _set_limit(resource.RLIMIT_CPU, int(time.process_time() + config.timeout_s) + 1)
            began_s = time.perf_counter()
            body = bodies[offset : offset + length]
            facts, pixels = examine_photo(slot, body, limits=config.limits, size=config.size)
            try:
                if pixels is not None:
                    _write(pixels_fd, pixels.data.cast("B"), pixels_offset + slot * photo_bytes)
            except OSError as exc:
                fatal = f"pixels of slot {slot} could not be written to {config.pixels_path}: {exc.strerror}"
                sock.sendall(answers + answer_frame(CONTROL_TICKET, {"fatal": fatal}))
                return
            decode_ms = round((time.perf_counter() - began_s) * 1000, 3)
            answers += answer_frame(ticket, facts_payload(facts) | {"decode_ms": decode_ms})
            answered += 1
            if answered % _ANSWERS_TOGETHER == 0 or time.monotonic() - sent_at > patience_s:
                sock.sendall(answers)
                answers.clear()
                sent_at = time.monotonic()
        if answers:
            sock.sendall(answers)
            answers.clear()
        sent_at = time.monotonic()


def _write(fd: int, view: memoryview, offset: int) -> None:
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
