"""Reads how much memory is free here: what the container's limit leaves, the machine, or this process's own limit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

CONTAINER, MACHINE, PROCESS = "the container's limit", "this machine", "the limit of this process (ulimit -v)"
_NO_LIMIT_BYTES = 1 << 60  # version 1 writes a number near 2**63 where there is no limit


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeMemory:
    """How much there is, and what holds it to that."""

    free_bytes: int
    held_by: str
    most_bytes: int | None = None  # that can ever be free here, however long one waits; None: not known


def read_free_memory(*, proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> FreeMemory:
    """The least of what the control groups of this process and all their parents leave, the machine, and its own limit.

    Pages of files count as free: the kernel drops them before it refuses memory. A limit that cannot be read does not
    count; where nothing can be read, psutil is asked.
    """
    groups = _left_by_groups(proc, cgroups)
    found = [FreeMemory(free_bytes=free, held_by=CONTAINER, most_bytes=limit) for free, limit in groups]
    machine = _fields(proc / "meminfo").get("MemAvailable:")
    if machine is not None:
        found.append(FreeMemory(free_bytes=machine * 1024, held_by=MACHINE))
    if (process := _left_to_process(proc)) is not None:
        found.append(FreeMemory(free_bytes=process, held_by=PROCESS, most_bytes=process))  # another try has no more
    if not found:
        import psutil

        found.append(FreeMemory(free_bytes=psutil.virtual_memory().available, held_by=MACHINE))
    return min(found, key=lambda each: each.free_bytes)


def _left_by_groups(proc: Path, cgroups: Path) -> Iterator[tuple[int, int]]:
    """Bytes that each limited group leaves, and its limit; versions 2 (``0::/path``) and 1 (``4:memory:/path``)."""
    for line in (_text(proc / "self" / "cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            names, root = ("memory.max", "memory.current", "inactive_file", "active_file"), cgroups
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "total_active_file")
            root = cgroups / "memory"
        else:
            continue
        for folder in _with_parents(root, path):
            limit, used = _number(folder / names[0]), _number(folder / names[1])
            if limit is None or used is None or limit >= _NO_LIMIT_BYTES:
                continue
            stat = _fields(folder / "memory.stat")
            yield max(0, limit - used + sum(stat.get(name, 0) for name in names[2:])), limit


def _with_parents(root: Path, path: str) -> list[Path]:
    """The folders of a group and its parents; in a container its own group is the root of what is mounted."""
    relative = PurePosixPath(path.strip("/"))
    if ".." in relative.parts:  # seen from another namespace: the path says nothing here
        return [root]
    return [root / each for each in (relative, *relative.parents)]


def _left_to_process(proc: Path) -> int | None:
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    pages = (_text(proc / "self" / "statm") or "").split()
    if soft == resource.RLIM_INFINITY or not pages:
        return None
    return max(0, soft - int(pages[0]) * resource.getpagesize())


def _text(path: Path) -> str | None:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8")
    return None


def _number(path: Path) -> int | None:
    text = (_text(path) or "").strip()
    return int(text) if text.isdecimal() else None  # version 2 writes "max" where there is no limit


def _fields(path: Path) -> dict[str, int]:
    """Lines of a name and a number, whatever comes after it."""
    words = [line.split() for line in (_text(path) or "").splitlines()]
    return {each[0]: int(each[1]) for each in words if len(each) > 1 and each[1].isdecimal()}
