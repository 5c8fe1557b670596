"""The line in front of pictures: bounded, fair, each picture once in it, and an end that everybody is told of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from threading import Event, Lock, Thread
from typing import Any
from uuid import UUID

import pytest

from refund.desk.picture_line import MOST, MOST_OF_ONE, Found, Key, PictureLine
from refund.desk.problems import DeskError
from refund.errors import ReasonCode, RejectedPhotoError
from tests.night.conftest import DAY

PATIENCE_S = 30.0


def key(number: int) -> Key:
    return (DAY, UUID(int=number), "small")


class Bucket:
    """Gives out pictures once it is let go."""

    def __init__(self) -> None:
        self.answers = Event()
        self.asked: list[Key] = []
        self._lock = Lock()

    def make(self, wanted: Key) -> Callable[[], Found]:
        def make() -> Found:
            with self._lock:
                self.asked.append(wanted)
            assert self.answers.wait(PATIENCE_S)
            return wanted[1].bytes

        return make


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def line(bucket: Bucket) -> Iterator[PictureLine]:
    made = PictureLine()
    yield made
    bucket.answers.set()
    made.close()


async def begin(asked: Coroutine[Any, Any, Found]) -> asyncio.Task[Found]:
    """Have it wait in the line."""
    task = asyncio.ensure_future(asked)
    await asyncio.sleep(0)
    return task


def test_who_asks_for_the_same_waits_along_and_it_is_made_once(line: PictureLine, bucket: Bucket) -> None:
    async def ask() -> None:
        people = ("ana", "bob", "ana", "eve")
        tasks = [await begin(line.wait(key(1), bucket.make(key(1)), person=person)) for person in people]
        tasks[0].cancel()  # whoever asked first goes away: the others wait on
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        bucket.answers.set()
        assert [await task for task in tasks[1:]] == [key(1)[1].bytes] * 3

    asyncio.run(ask())
    assert bucket.asked == [key(1)]
    assert not line._under_way


def test_what_fails_is_told_to_all_and_begun_anew_for_the_next(line: PictureLine) -> None:
    why = RejectedPhotoError(ReasonCode.DECODE_TIMEOUT, "too long")
    found: list[Found] = [why, b"jpeg"]
    assert asyncio.run(line.wait(key(1), lambda: found.pop(0), person="ana")) is why
    assert asyncio.run(line.wait(key(1), lambda: found.pop(0), person="ana")) == b"jpeg"


def test_one_person_leaves_room_for_others_and_all_together_are_bounded(line: PictureLine, bucket: Bucket) -> None:
    async def refusal(number: int, person: str) -> DeskError:
        with pytest.raises(DeskError) as caught:
            await line.wait(key(number), bucket.make(key(number)), person=person)
        assert (caught.value.status, caught.value.error, caught.value.headers) == (503, "busy", {"Retry-After": "2"})
        assert caught.value.what_to_do == "Ask again in a moment."
        return caught.value

    async def ask() -> None:
        tasks = [await begin(line.wait(key(n), bucket.make(key(n)), person="ana")) for n in range(MOST_OF_ONE)]
        assert str(await refusal(1000, "ana")) == (
            "40 pictures that you asked for are not made yet, at most 40 may wait."
        )
        tasks.append(await begin(line.wait(key(1), bucket.make(key(1)), person="ana")))  # along with the first
        others = range(MOST_OF_ONE, MOST)
        tasks += [await begin(line.wait(key(n), bucket.make(key(n)), person="bob")) for n in others]
        assert str(await refusal(1000, "eve")) == "64 pictures are not made yet, at most 64 may wait."
        bucket.answers.set()
        assert len(await asyncio.gather(*tasks)) == MOST + 1

    asyncio.run(ask())
    assert len(bucket.asked) == MOST
    assert not line._under_way


def test_a_picture_that_nobody_waits_for_any_more_is_not_made(line: PictureLine, bucket: Bucket) -> None:
    async def ask() -> None:
        tasks = [await begin(line.wait(key(n), bucket.make(key(n)), person="ana")) for n in range(10)]
        tasks[-1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[-1]
        bucket.answers.set()
        await asyncio.gather(*tasks[:-1])

    asyncio.run(ask())
    assert sorted(bucket.asked) == [key(n) for n in range(9)]


def test_whoever_still_waits_when_the_line_is_closed_is_told(line: PictureLine, bucket: Bucket) -> None:
    async def ask() -> list[Found | BaseException]:
        tasks = [await begin(line.wait(key(n), bucket.make(key(n)), person="ana")) for n in range(10)]
        closing = Thread(target=line.close)
        closing.start()
        waiting = set(tasks)
        while len(waiting) > 4:  # those that are in hand
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=PATIENCE_S)
            assert done
        bucket.answers.set()
        told = await asyncio.gather(*tasks, return_exceptions=True)
        closing.join(PATIENCE_S)
        return told

    told = asyncio.run(ask())
    refused = [each for each in told if isinstance(each, DeskError)]
    assert [each for each in told if isinstance(each, bytes)] == [key(n)[1].bytes for n in range(10 - len(refused))]
    assert len(refused) >= 6
    for error in refused:
        assert (error.status, error.error, str(error)) == (503, "unavailable", "The desk is ending.")
    with pytest.raises(DeskError, match=r"^The desk is ending\.$"):
        asyncio.run(line.wait(key(99), bucket.make(key(99)), person="ana"))
