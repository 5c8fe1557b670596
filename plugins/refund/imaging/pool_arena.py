"""Where photos wait for their decoder: memory that one process writes and decoding processes may only read.

The task's process copies each body into the arena once and tells through a pipe where it lies; no body crosses the
kernel. The memory has no name in any file system, so the kernel frees it with the last process that has it, however
that one ends.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from bisect import bisect_left

from refund.errors import DecoderPoolError

_ALIGNMENT_BYTES = 64  # a cache line; it also keeps gaps too small for any photo from piling up
_LOWEST_FD = 3  # a process without standard streams would get one of their numbers, which the interpreter's pipes take
_F_SEAL_FUTURE_WRITE = 0x0010  # linux/fcntl.h; the fcntl module of Python 3.11 does not name it


class FreeRooms:
    """Which parts of ``size_bytes`` are free; the lowest that fits is taken, so that what was touched is used again."""

    def __init__(self, size_bytes: int) -> None:
        self._starts = [0]
        self._lengths = [size_bytes]

    def take(self, length: int) -> int | None:
        """The offset of ``length`` bytes that are now taken, None where no free part is that long."""
        length = _aligned(length)
        for index, free in enumerate(self._lengths):
            if free >= length:
                start = self._starts[index]
                if free == length:
                    del self._starts[index], self._lengths[index]
                else:
                    self._starts[index] += length
                    self._lengths[index] -= length
                return start
        return None

    def give_back(self, start: int, length: int) -> None:
        """Free what `take` gave for the same ``length``; neighbours that are free become one part with it."""
        length = _aligned(length)
        index = bisect_left(self._starts, start)
        if index < len(self._starts) and start + length == self._starts[index]:
            length += self._lengths.pop(index)
            del self._starts[index]
        if index and self._starts[index - 1] + self._lengths[index - 1] == start:
            self._lengths[index - 1] += length
        else:
            self._starts.insert(index, start)
            self._lengths.insert(index, length)

    @property
    def parts(self) -> list[tuple[int, int]]:
        """The free parts as (offset, length), lowest first."""
        return list(zip(self._starts, self._lengths, strict=True))


class Arena:
    """The writer's side. Memory is taken from the system only where a photo was ever written, never beyond the size.

    On Linux it is a memory file, sealed after the writer has its own mapping: no other process can write, grow or
    shrink it, not even through a descriptor opened anew. Elsewhere it is a temporary file without a name, passed on as
    a descriptor that cannot write.

    Raises:
        DecoderPoolError: the system gives no such memory.
    """

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = -(-size_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        self._rooms = FreeRooms(self.size_bytes)
        self._map: mmap.mmap | None = None
        self._writable_fd: int | None = None
        try:
            if not self._open_sealed():
                self._open_file()
        except (OSError, ValueError, OverflowError) as exc:
            msg = (
                f"no memory of {self.size_bytes:,} bytes could be shared with the decoding interpreter ({exc}); "
                f"lower REFUND_MAX_BYTES, or free memory and the disk that TMPDIR is on"
            )
            raise DecoderPoolError(msg) from exc

    def _open_sealed(self) -> bool:
        """Whether this system has memory files that can be sealed against later writers (Linux since 5.1)."""
        if not hasattr(os, "memfd_create"):
            return False
        import fcntl

        memory_fd = os.memfd_create("refund-photos", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(memory_fd, self.size_bytes)
            writable = mmap.mmap(memory_fd, self.size_bytes)
            seals = _F_SEAL_FUTURE_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
            try:
                fcntl.fcntl(memory_fd, fcntl.F_ADD_SEALS, seals)
            except OSError:
                writable.close()
                return False
            self._map = writable
            self.fd = fcntl.fcntl(memory_fd, fcntl.F_DUPFD_CLOEXEC, _LOWEST_FD)
        finally:
            os.close(memory_fd)
        return True

    def _open_file(self) -> None:
        import fcntl

        with tempfile.NamedTemporaryFile(prefix="refund-photos-") as file:
            os.ftruncate(file.fileno(), self.size_bytes)
            read_fd = os.open(file.name, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self.fd = fcntl.fcntl(read_fd, fcntl.F_DUPFD_CLOEXEC, _LOWEST_FD)
            finally:
                os.close(read_fd)
            self._writable_fd = os.dup(file.fileno())

    def put(self, body: bytes) -> int | None:
        """Copy ``body`` in and return its offset; None where no free part is long enough yet.

        Raises:
            DecoderPoolError: the disk of the temporary file is full.
        """
        if not body:
            return 0
        offset = self._rooms.take(len(body))
        if offset is None:
            return None
        if self._map is not None:
            self._map[offset : offset + len(body)] = body
        elif self._writable_fd is not None:
            self._write_file(self._writable_fd, body, offset)
        return offset

    @staticmethod
    def _write_file(fd: int, body: bytes, offset: int) -> None:
        view = memoryview(body)
        try:
            while view:  # a write through a mapping would end this process where the disk is full
                written = os.pwrite(fd, view, offset)
                view, offset = view[written:], offset + written
        except OSError as exc:
            msg = f"photos could not be written to a temporary file ({exc.strerror}); free the disk that TMPDIR is on"
            raise DecoderPoolError(msg) from exc

    def free(self, offset: int, length: int) -> None:
        """Give back what a body of ``length`` took at ``offset``."""
        if length:
            self._rooms.give_back(offset, length)

    def close(self) -> None:
        """Let go of the memory; it is freed when no decoding process has it any more."""
        if self._map is not None:
            self._map.close()
        if self._writable_fd is not None:
            os.close(self._writable_fd)
        os.close(self.fd)


def read_only(fd: int) -> mmap.mmap:
    """The reader's side: all of the arena behind the descriptor, mapped so that it cannot be written."""
    return mmap.mmap(fd, os.fstat(fd).st_size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)


def _aligned(length: int) -> int:
    return -(-length // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
