"""Downloads a shard's photos ahead of their use, and tells one stuck object from a server in trouble."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, MutableSequence, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, cast

from refund.errors import AccessDeniedError, ObjectStoreUnavailableError, ReasonCode, RejectedPhotoError
from refund.store.s3_errors import BrokenBodyError, seen

if TYPE_CHECKING:
    from refund.records import PhotoObject
    from refund.store.objects import ObjectStore

# Photos that may be stuck in one shard before the server is blamed: a broken disk or a hot partition of a store shows
# in a few keys, an overloaded or dying server in many. Three, so that a small shard can lose some; a tenth, because a
# night that lost more says little, and S3 itself promises 99.9 %.
_STUCK_COUNT = 3
_STUCK_SHARE = 10
_WITNESSES = 3  # photos that came through, kept to ask again: one alone may be deleted meanwhile

Fault = RejectedPhotoError | BrokenBodyError | ObjectStoreUnavailableError


def download_many(
    store: ObjectStore,
    items: Iterable[PhotoObject],
    *,
    max_bytes: int,
    max_in_flight_bytes: int,
    concurrency: int,
    spent_s: MutableSequence[float] | None = None,
) -> Iterator[tuple[int, bytes | RejectedPhotoError]]:
    """Download many objects; yields (index of the item, body or its fault), in any order.

    At most ``concurrency`` at once; bodies downloaded or being downloaded but not yet taken sum up to at most
    ``max_in_flight_bytes`` by their listed sizes, or are a single one. An object listed with more than ``max_bytes``
    is not downloaded.

    A photo that cannot be read while the bucket answers is put aside; after all others it is tried again, in as many
    rounds as `Patience.round_pauses_s` has pauses. If it still fails it is rejected, as BODY_MISMATCH or UNREADABLE,
    but only where at least one photo came through and can be read right before its last try and after it: an outage
    rejects none, also one that ends with that try.

    Where ``spent_s`` is given, the seconds that an object's requests took are added to its element of the same index,
    without the pauses between rounds; it stays as it is for objects that were never asked for.

    Raises:
        ObjectStoreUnavailableError: the bucket does not answer; or more than three photos and more than a tenth of them
            fail; or so many fail in a row that nothing else comes in between; or no photo can be read any more.
        BucketMissingError, AccessDeniedError: the fault is not one object's.
    """
    photos = list(items)
    allowed = max(_STUCK_COUNT, len(photos) // _STUCK_SHARE)
    came: deque[PhotoObject] = deque(maxlen=_WITNESSES)
    refused: dict[int, RejectedPhotoError] = {}
    stuck: dict[int, Fault] = {}
    waiting: list[int] = []
    for index, photo in enumerate(photos):
        if photo.size_bytes > max_bytes:
            detail = f"{photo.size_bytes:,} bytes, at most {max_bytes:,} are taken"
            yield index, RejectedPhotoError(ReasonCode.FILE_TOO_LARGE, detail)
        else:
            waiting.append(index)
    first_end = None
    pauses_s = (0.0, *store.patience.round_pauses_s)
    for number, pause_s in enumerate(pauses_s, start=1):
        if not waiting:
            break
        if first_end is not None:
            time.sleep(pause_s)
            if came and number == len(pauses_s):
                _require_readable(store, came, photos, stuck)
        stuck, in_a_row = {}, 0
        downloads = _round(
            store,
            photos,
            waiting,
            max_in_flight_bytes=max_in_flight_bytes,
            concurrency=concurrency,
            spent_s=spent_s,
        )
        for index, result in downloads:
            if isinstance(result, bytes):
                in_a_row = 0
                came.append(photos[index])
                yield index, result
            elif isinstance(result, RejectedPhotoError):
                in_a_row = 0
                if result.reason is ReasonCode.UNREADABLE:
                    refused[index] = result  # perhaps our right to read was taken away: told at the end
                else:
                    yield index, result
            else:
                stuck[index] = result
                in_a_row += 1
                late = first_end is not None and time.monotonic() - first_end > store.patience.rounds_s
                if late or len(stuck) > allowed or (first_end is None and in_a_row > max(concurrency, _STUCK_COUNT)):
                    raise _outage(store, photos, stuck)
            del result  # or this frame would keep the body alive while it waits
        waiting = list(stuck)
        first_end = first_end or time.monotonic()
    if stuck and not came:
        raise _outage(store, photos, stuck)
    if came and (stuck or refused):
        _require_readable(store, came, photos, stuck)
    yield from refused.items()
    for index, fault in stuck.items():
        yield index, _verdict(store, fault, rounds=len(pauses_s))


def _round(
    store: ObjectStore,
    photos: Sequence[PhotoObject],
    indices: Sequence[int],
    *,
    max_in_flight_bytes: int,
    concurrency: int,
    spent_s: MutableSequence[float] | None,
) -> Iterator[tuple[int, bytes | Fault]]:
    """Try each of these photos once, so far ahead of their use as the room allows."""
    waiting = deque(indices)
    flying = flying_bytes = 0  # begun, or waiting to be, and not taken yet
    begun: SimpleQueue[int | None] = SimpleQueue()
    done: SimpleQueue[tuple[int, bytes | Fault | None, BaseException | None]] = SimpleQueue()

    def work() -> None:
        while (index := begun.get()) is not None:
            try:
                done.put((index, _timed_attempt(store, photos[index], index, spent_s), None))
            except BaseException as exc:  # noqa: BLE001  (raised by whom it was done for)
                done.put((index, None, exc))

    # Two queues: a Future for each photo, and waiting for any of them, take as long as a sixth of its download.
    threads = [
        Thread(target=work, name=f"s3-get-{number}", daemon=True) for number in range(min(concurrency, len(waiting)))
    ]
    try:
        for thread in threads:
            thread.start()
        while waiting or flying:
            while waiting and flying < concurrency:
                size_bytes = photos[waiting[0]].size_bytes
                if flying and flying_bytes + size_bytes > max_in_flight_bytes:
                    break
                begun.put(waiting.popleft())
                flying += 1
                flying_bytes += size_bytes
            index, result, error = done.get()
            if error is not None:
                raise error
            flying -= 1
            yield index, cast("bytes | Fault", result)
            del result  # or this frame would keep the body alive while it waits
            flying_bytes -= photos[index].size_bytes
    finally:
        with suppress(Empty):
            while True:  # what nobody has begun with
                begun.get_nowait()
        for thread in threads:
            if thread.ident is not None:
                begun.put(None)
        for thread in threads:
            if thread.ident is not None:
                thread.join()


def _timed_attempt(
    store: ObjectStore, photo: PhotoObject, index: int, spent_s: MutableSequence[float] | None
) -> bytes | Fault:
    began_s = time.perf_counter()
    try:
        return _attempt(store, photo)
    finally:
        if spent_s is not None:
            spent_s[index] += time.perf_counter() - began_s


def _attempt(store: ObjectStore, photo: PhotoObject) -> bytes | Fault:
    try:
        return store.read(photo.key, etag=photo.etag, size_bytes=photo.size_bytes)
    except RejectedPhotoError as exc:
        return exc
    except (BrokenBodyError, ObjectStoreUnavailableError) as exc:
        store.check_bucket()  # raises where nothing answers: no use in trying the others
        return exc


def _require_readable(
    store: ObjectStore, came: Iterable[PhotoObject], photos: Sequence[PhotoObject], stuck: dict[int, Fault]
) -> None:
    """Read a photo again that came through before, so that a fault of all photos is not taken for one of a few."""
    refusal = None
    for photo in came:
        result = _attempt(store, photo)
        if isinstance(result, bytes):
            return
        if isinstance(result, RejectedPhotoError) and result.reason is ReasonCode.UNREADABLE:
            refusal = result
    if refusal is not None:
        msg = (
            f"S3 at {store.access.place} refuses photos that it gave out a moment ago: {refusal.detail}. Give the "
            f"user of the Airflow connection refund_s3 the right to read (s3:GetObject) back"
        )
        raise AccessDeniedError(msg)
    if stuck:
        raise _outage(store, photos, stuck)


def _outage(store: ObjectStore, photos: Sequence[PhotoObject], stuck: dict[int, Fault]) -> ObjectStoreUnavailableError:
    index, fault = next(reversed(stuck.items()))
    return ObjectStoreUnavailableError(
        f"S3 at {store.access.place} lists bucket {store.bucket!r}, but {len(stuck)} of {len(photos)} photos could not "
        f"be read, too many for a fault of theirs, for example {photos[index].key!r}: {seen(fault)}. The task retries; "
        f"if it goes on, look at the server's own log"
    )


def _verdict(store: ObjectStore, fault: Fault, *, rounds: int) -> RejectedPhotoError:
    reason = ReasonCode.BODY_MISMATCH if isinstance(fault, BrokenBodyError) else ReasonCode.UNREADABLE
    detail = (
        f"bucket {store.bucket!r} answers and gives out other photos, but this object could not be read in {rounds} "
        f"rounds: {seen(fault)}"
    )
    return RejectedPhotoError(reason, detail)
