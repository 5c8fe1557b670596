"""What validate makes of a store that gives nothing out, and the copies of what it rejects."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from uuid import uuid4

import pytest

from refund import keys
from refund.errors import AccessDeniedError, ObjectStoreUnavailableError, ReasonCode
from refund.night.validate import check_readable, quarantine
from refund.records import PhotoFacts, PhotoObject
from refund.settings import S3Access
from refund.store.objects import ObjectStore
from refund.store.parallel import AT_ONCE
from tests.conftest import make_bucket
from tests.faults.s3_proxy import QUICK, Rule, s3_proxy
from tests.night.conftest import DAY

PLACE = "http://s3.example"


def refused(slot: int) -> PhotoFacts:
    return PhotoFacts(slot=slot, reason=ReasonCode.UNREADABLE, detail="403 AccessDenied")


def test_a_shard_of_which_nothing_may_be_read_is_a_fault_of_rights() -> None:
    with pytest.raises(AccessDeniedError, match=r"refused every one of the shard's 3 photos, for example: 403"):
        check_readable([refused(0), refused(1), refused(2)], place=PLACE)


@pytest.mark.parametrize("reason", [ReasonCode.FILE_TOO_LARGE, ReasonCode.VANISHED])
def test_photos_that_were_not_asked_for_or_are_gone_do_not_speak_for_our_rights(reason: ReasonCode) -> None:
    other = replace(refused(0), reason=reason, detail="not read")
    with pytest.raises(AccessDeniedError, match=r"refused every one of the shard's 3 photos, for example: 403"):
        check_readable([other, refused(1), refused(2), refused(3)], place=PLACE)
    check_readable([other, refused(1), refused(2)], place=PLACE)
    check_readable([other] * 5, place=PLACE)


def test_single_refusals_cost_their_photos_alone() -> None:
    check_readable([refused(0), refused(1)], place=PLACE)
    check_readable([refused(0), refused(1), refused(2), replace(refused(3), reason=None, detail=None)], place=PLACE)
    check_readable([], place=PLACE)


# --- quarantine -----------------------------------------------------------------------------------------------------


@pytest.fixture
def access(s3_moto: S3Access) -> S3Access:
    found = replace(s3_moto, bucket=f"validate-{uuid4().hex[:12]}")
    make_bucket(found)
    return found


@pytest.fixture
def photos(access: S3Access) -> Sequence[PhotoObject]:
    """Three times as many as are copied at once."""
    store = ObjectStore(access)
    for number in range(3 * AT_ONCE):
        store.put(f"incoming/{DAY}/R-1/{number:03}.txt", b"%d" % number)
    return [
        PhotoObject(
            photo_id=uuid4(), photo_date=DAY, bucket=access.bucket, key=item.key, etag=item.etag,
            size_bytes=item.size_bytes, refund_id=None, declared_category=None,
        )
        for item in store.list("incoming/")
    ]  # fmt: skip


def rejected(photos: Sequence[PhotoObject]) -> list[PhotoFacts]:
    """Every fourth is accepted, and every fourth vanished; the others are no images."""
    reasons = (None, ReasonCode.NOT_AN_IMAGE, ReasonCode.VANISHED, ReasonCode.NOT_AN_IMAGE)
    return [PhotoFacts(slot=slot, reason=reasons[slot % 4]) for slot in range(len(photos))]


def expected(photos: Sequence[PhotoObject]) -> list[str | None]:
    return [
        keys.quarantine_key(photo.key, etag=photo.etag, run_date=DAY, reason="not_an_image") if slot % 2 else None
        for slot, photo in enumerate(photos)
    ]


class Watched(ObjectStore):
    """The real bucket, where something else happens before a copy."""

    def __init__(self, access: S3Access, before: Callable[[str], None]) -> None:
        super().__init__(access)
        self.before = before

    def copy(self, source: str, target: str, *, etag: str | None = None, absent: bool = False) -> bool:
        self.before(source)
        return super().copy(source, target, etag=etag, absent=absent)


def test_copies_are_made_side_by_side_and_told_in_order(access: S3Access, photos: Sequence[PhotoObject]) -> None:
    facts = [replace(fact, reason=ReasonCode.NOT_AN_IMAGE) for fact in rejected(photos)]
    together = threading.Barrier(AT_ONCE, timeout=30)  # breaks unless so many are copied at once
    lock, now, most = threading.Lock(), [0], [0]

    def before(_: str) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        together.wait()
        with lock:
            now[0] -= 1

    store = Watched(access, before)
    found = quarantine(photos, facts, store, run_date=DAY)
    assert most == [AT_ONCE]
    assert [store.get(str(target)) for target in found] == [b"%d" % number for number in range(len(photos))]


def test_a_copy_that_cannot_be_made_costs_itself_alone(access: S3Access, photos: Sequence[PhotoObject]) -> None:
    gone, other = photos[5].key, photos[7].key
    store = ObjectStore(access)

    def before(source: str) -> None:
        if source == gone:
            store.delete(source)
        elif source == other:
            store.put(source, b"another version")

    wanted = [None if slot in (5, 7) else target for slot, target in enumerate(expected(photos))]
    assert quarantine(photos, rejected(photos), Watched(access, before), run_date=DAY) == wanted
    assert {item.key for item in store.list("quarantine/")} == set(filter(None, wanted))


def test_a_server_that_goes_down_among_the_copies_is_a_fault_of_the_moment(
    access: S3Access, photos: Sequence[PhotoObject]
) -> None:
    with s3_proxy(access, Rule(do="cut", method="PUT", key="/quarantine/", skip=9, after_bytes=-1)) as proxy:
        store = ObjectStore(proxy.access, patience=QUICK)
        text = r"did not copy 'incoming/.*' to 'quarantine/.*': Connection was closed .* The task retries"
        with pytest.raises(ObjectStoreUnavailableError, match=text):
            quarantine(photos, rejected(photos), store, run_date=DAY)
        assert len(list(store.list("quarantine/"))) == 9
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("s3-copy")]
        proxy.rules.clear()
        assert quarantine(photos, rejected(photos), store, run_date=DAY) == expected(photos)
    assert [item.key for item in ObjectStore(access).list("quarantine/")] == sorted(filter(None, expected(photos)))
