"""What one start of the local stack tells the next: ports, places, and how far the set-up came."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from refund.errors import StackError
from refund.local.credentials import write_private
from refund.local.ports import Ports

STATE_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StackState:
    """The content of ``stack.json``."""

    ports: Ports
    dags_folder: str
    postgres_folder: str | None = None  # None: not made yet
    airflow_migrated: str | None = None  # Airflow's version when its database was last migrated
    notes: tuple[str, ...] = field(default=())  # what the user should know about where things lie

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read the file; None where there is none yet.

        Raises:
            StackError: it is no state file, or a newer version of this program wrote it.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as exc:
            msg = f"{path} cannot be read as the state of the local stack: {exc}; {_remedy(path)}"
            raise StackError(msg) from exc
        version = values.pop("version", None) if isinstance(values, dict) else None
        if version != STATE_VERSION:
            msg = (
                f"{path} has version {version!r}, this program reads version {STATE_VERSION}; use the program that "
                f"wrote it, or {_remedy(path)}"
            )
            raise StackError(msg)
        try:
            ports = Ports(**values.pop("ports"))
            return cls(ports=ports, notes=tuple(values.pop("notes", ())), **values)
        except (TypeError, KeyError) as exc:
            msg = f"{path} lacks or has too many fields ({exc}); {_remedy(path)}"
            raise StackError(msg) from exc

    def write(self, path: Path) -> None:
        """Replace the file at once."""
        write_private(path, json.dumps({"version": STATE_VERSION, **asdict(self)}, indent=1) + "\n")


@contextmanager
def stack_lock(path: Path, *, progress: Callable[[str], None], patience_s: float = 300.0) -> Iterator[None]:
    """Let one command at a time change the stack; the kernel frees the lock when its holder dies.

    Raises:
        StackError: another command held it for all of ``patience_s``.
    """
    deadline = time.monotonic() + patience_s
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        told = False
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
                if time.monotonic() > deadline:
                    msg = (
                        f"another command (process {holder}) has been changing the local stack for {patience_s:.0f} s; "
                        f"wait for it or end it, then try again"
                    )
                    raise StackError(msg) from None
                if not told:
                    progress(f"waiting for another command that changes the stack (process {holder})")
                    told = True
                time.sleep(0.1)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _remedy(path: Path) -> str:
    return f"remove the folder {path.parent} to start afresh (this deletes the local database and photos)"
