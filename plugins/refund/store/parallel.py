"""Asks a server many things at once, with an end to how many, and gives the answers in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

AT_ONCE = 16  # requests; the S3 client keeps 32 connections

T = TypeVar("T")
R = TypeVar("R")


def in_order(ask: Callable[[T], R], items: Iterable[T], *, name: str) -> Iterator[R]:
    """What ``ask`` makes of each item, `AT_ONCE` at a time, in the order of the items.

    The first error is raised; once it is met none is begun, and those under way are awaited. ``name`` is that of the
    threads.
    """
    pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix=name)
    try:
        yield from pool.map(ask, items)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
