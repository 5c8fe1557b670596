"""Finds and ends the processes of one stack by a mark in their environment, whatever their pids are now."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

MARK = "REFUND_STACK_ID"


def stack_processes(stack_id: str, *, clusters: Sequence[Path], airflow_home: Path) -> list[psutil.Process]:
    """Living processes of one stack; the calling process and its parents never count.

    Pid files are not believed: after a power cut their pids belong to somebody else. Postgres and Airflow overwrite
    the environment that the kernel shows when they rename themselves, so Postgres is also known by the cluster on its
    command line, and Airflow by its title together with its working directory.
    """
    import psutil

    mine = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        if process.pid in mine:
            continue
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if (
                _environment(process).get(MARK) == stack_id
                or _is_postgres_of(process, clusters)
                or _is_airflow_of(process, airflow_home)
            ):
                found.append(process)
        except psutil.Error:  # gone, or another user's: not ours then
            continue
    return found


def with_children(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """The processes and all their descendants: decoding children run without the mark."""
    import psutil

    every: dict[int, psutil.Process] = {}
    for process in processes:
        try:
            for member in (process, *process.children(recursive=True)):
                every[member.pid] = member
        except psutil.NoSuchProcess:
            continue
    return list(every.values())


def end(processes: Sequence[psutil.Process], *, patience_s: float = 5.0) -> list[str]:
    """Ask, wait, then kill; returns ``name (pid N)`` for each that had to be ended."""
    import psutil

    named = []
    for process in processes:
        try:
            named.append(f"{process.name()} (pid {process.pid})")
            process.terminate()  # psutil compares the creation time first: a reused pid is left alone
        except psutil.NoSuchProcess:
            continue
    _, alive = psutil.wait_procs(processes, timeout=patience_s)
    for process in alive:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, timeout=patience_s)
    return named


def _environment(process: psutil.Process) -> dict[str, str]:
    import psutil

    try:
        return dict(process.environ())
    except (psutil.AccessDenied, OSError):
        return {}


def _is_postgres_of(process: psutil.Process, clusters: Sequence[Path]) -> bool:
    command = process.cmdline()
    return bool(command) and Path(command[0]).name == "postgres" and any(str(place) in command for place in clusters)


def _is_airflow_of(process: psutil.Process, airflow_home: Path) -> bool:
    import psutil

    try:
        title = " ".join(process.cmdline())
        return title.startswith("airflow ") and Path(process.cwd()) == airflow_home.resolve()
    except (psutil.AccessDenied, OSError):
        return False
