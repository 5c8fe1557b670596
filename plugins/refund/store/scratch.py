"""Folders for the moment that a killed process cannot leave behind for good: the next one to make any removes them."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path


@contextlib.contextmanager
def scratch_folder(parent: Path, *, prefix: str) -> Iterator[Path]:
    """A new folder in ``parent``, removed at the end; those of the same prefix whose process is dead go first.

    A live one is known by the lock on its folder, which the system drops with the process, however it ends. Where the
    file system locks no folders, nothing is taken for dead. Only folders of this host are looked at: a shared file
    system may keep locks to one machine. ``prefix`` must be one that nobody else uses there.
    """
    ours = f"{prefix}{sha256(platform.node().encode()).hexdigest()[:8]}-"
    _remove_dead(parent, ours)
    folder, lock = _locked_folder(parent, ours)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _locked_folder(parent: Path, prefix: str) -> tuple[Path, int | None]:
    import fcntl

    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        try:
            lock = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # taken for dead before it was locked
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            os.close(lock)
            return folder, None
        if folder.exists():
            return folder, lock
        os.close(lock)


def _remove_dead(parent: Path, prefix: str) -> None:
    import fcntl

    for folder in parent.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):  # it went meanwhile, is another user's, or no folder
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a live one refuses
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
