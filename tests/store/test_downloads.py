"""Many downloads at once, from real servers behind a proxy that breaks them: who is to blame, a photo or the server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from hashlib import md5
from uuid import UUID

import pytest

from refund.errors import (
    AccessDeniedError,
    BucketMissingError,
    ObjectStoreUnavailableError,
    ReasonCode,
    RejectedPhotoError,
)
from refund.records import PhotoObject
from refund.settings import S3Access
from refund.store.objects import ObjectStore
from tests.faults.s3_proxy import QUICK, Rule, S3Proxy, s3_proxy

COUNT = 12
STUCK = "d/7.jpg"


@pytest.fixture(params=["s3_moto", "s3_nanio"])
def access(request: pytest.FixtureRequest) -> S3Access:
    found: S3Access = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def store(access: S3Access) -> ObjectStore:
    return ObjectStore(access, patience=QUICK)


def photo(key: str, body: bytes, **over: object) -> PhotoObject:
    values = {
        "photo_id": UUID(int=0), "photo_date": date(1970, 1, 1), "bucket": "b", "key": key,
        "etag": md5(body, usedforsecurity=False).hexdigest(), "size_bytes": len(body), "refund_id": None,
        "declared_category": None,
    }  # fmt: skip
    return PhotoObject(**{**values, **over})  # type: ignore[arg-type]  # overrides of any field


def test_many_are_downloaded_each_with_its_own_verdict(store: ObjectStore) -> None:
    bodies = {f"many/{number}.jpg": bytes([number]) * number for number in range(40)}
    for key, body in bodies.items():
        store.put(key, body)
    items = [photo(key, body) for key, body in bodies.items()]
    items += [
        photo("many/gone.jpg", b"x"),
        photo("many/7.jpg", b"other!!"),
        photo("many/9.jpg", bodies["many/9.jpg"], size_bytes=10**9),
    ]
    results = dict(store.get_many(items, max_bytes=1000, max_in_flight_bytes=64, concurrency=4))
    assert sorted(results) == list(range(43))
    assert [results[number] for number in range(40)] == list(bodies.values())
    faults = [results[number] for number in (40, 41, 42)]
    assert [fault.reason for fault in faults if isinstance(fault, RejectedPhotoError)] == [
        ReasonCode.VANISHED, ReasonCode.CHANGED, ReasonCode.FILE_TOO_LARGE,
    ]  # fmt: skip
    assert str(faults[2]) == "file_too_large: 1,000,000,000 bytes, at most 1,000 are taken"


def test_a_fault_of_the_server_ends_the_download(access: S3Access) -> None:
    store = ObjectStore(replace(access, bucket="nowhere"))
    with pytest.raises(BucketMissingError):
        list(store.get_many([photo("a.jpg", b"a")] * 3, max_bytes=9, max_in_flight_bytes=9, concurrency=2))


def test_bodies_in_flight_stay_within_the_budget(s3_moto: S3Access, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObjectStore(s3_moto)
    lock, taken, flying, most = threading.Lock(), 0, 0, 0

    def counted(key: str, *, etag: str | None, size_bytes: int | None) -> bytes:
        nonlocal flying, most
        with lock:
            flying += size_bytes or 0
            most = max(most, flying)
        return b"x" * (size_bytes or 0)

    monkeypatch.setattr(store, "read", counted)
    items = [photo("k", b"x" * size) for size in (40, 40, 40, 300, 40, 40)]
    for _, body in store.get_many(items, max_bytes=1000, max_in_flight_bytes=100, concurrency=8):
        taken += 1
        with lock:
            flying -= len(body)  # type: ignore[arg-type]  # no rejections here
    assert (taken, most <= 300) == (6, True)  # the one of 300 flies alone


def test_stopping_early_leaves_no_thread(s3_moto: S3Access) -> None:
    store = ObjectStore(s3_moto)
    store.put("stop.jpg", b"1")
    downloads = store.get_many([photo("stop.jpg", b"1")] * 50, max_bytes=9, max_in_flight_bytes=9, concurrency=4)
    next(downloads)
    downloads.close()  # type: ignore[attr-defined]  # it is a generator
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("s3-get")]


# --- behind a proxy that breaks things -----------------------------------------------------------------------------


def body_of(number: int) -> bytes:
    return f"{number:04}".encode() * 1000


@pytest.fixture(scope="module")
def photographed(s3_nanio: S3Access) -> S3Access:
    """`COUNT` photos of 4,000 bytes, in a server that checks signatures: the proxy must leave requests as they are."""
    store = ObjectStore(s3_nanio)
    for number in range(COUNT):
        store.put(f"d/{number}.jpg", body_of(number))
    return s3_nanio


@pytest.fixture
def proxy(photographed: S3Access) -> Iterator[S3Proxy]:
    with s3_proxy(photographed) as proxy:
        yield proxy


def download(proxy: S3Proxy, *, count: int = COUNT, concurrency: int = 4) -> dict[int, bytes | RejectedPhotoError]:
    store = ObjectStore(proxy.access, patience=QUICK)
    items = [photo(f"d/{number}.jpg", body_of(number)) for number in range(count)]
    return dict(store.get_many(items, max_bytes=10**6, max_in_flight_bytes=10**6, concurrency=concurrency))


def check_only_one_failed(proxy: S3Proxy, results: dict[int, bytes | RejectedPhotoError]) -> RejectedPhotoError:
    fault = results.pop(7)
    assert results == {number: body_of(number) for number in range(COUNT) if number != 7}
    assert isinstance(fault, RejectedPhotoError)
    assert not fault.reason.is_final  # the next night looks again
    assert proxy.broke() >= 3  # obstore, boto3, and boto3 or obstore in the second round
    start = "bucket 'refund-test' answers and gives out other photos, but this object could not be read in 2 rounds: "
    assert fault.detail.startswith(start)
    return fault


@pytest.mark.parametrize(
    ("rule", "seen"),
    [
        (Rule(do="status", key=STUCK, status=500, code="InternalError"), "InternalError"),
        pytest.param(Rule(do="status", key=STUCK, status=503, code="SlowDown"), "SlowDown", marks=pytest.mark.slow),
        pytest.param(
            Rule(do="status", key=STUCK, status=429, code="TooManyRequests"), "TooManyRequests", marks=pytest.mark.slow
        ),
        pytest.param(Rule(do="stall", key=STUCK, after_bytes=-1), "Read timeout", marks=pytest.mark.slow),
        pytest.param(Rule(do="stall", key=STUCK, after_bytes=1500), "only 1,024 of 4,000", marks=pytest.mark.slow),
        pytest.param(Rule(do="slow", key=STUCK, bytes_per_s=200), "of 4,000 bytes came in", marks=pytest.mark.slow),
        (Rule(do="cut", key=STUCK, after_bytes=-1), "Connection was closed"),
    ],
    ids=["500", "503", "429", "no answer", "no body", "slow body", "no connection"],
)
def test_a_stuck_object_costs_itself(proxy: S3Proxy, rule: Rule, seen: str) -> None:
    proxy.rules.append(replace(rule))
    fault = check_only_one_failed(proxy, download(proxy))
    assert fault.reason is ReasonCode.UNREADABLE
    assert seen in fault.detail


@pytest.mark.parametrize(
    ("do", "seen"),
    [
        ("cut", "it came with a body that broke off: "),
        ("shorter", "it came with 3999 bytes, listed were 4000"),
        ("longer", "it came with 4001 bytes, listed were 4000"),
    ],
)
def test_a_body_of_a_wrong_length_costs_its_photo(proxy: S3Proxy, do: str, seen: str) -> None:
    proxy.rules.append(Rule(do=do, key=STUCK, after_bytes=1000))
    fault = check_only_one_failed(proxy, download(proxy))
    assert fault.reason is ReasonCode.BODY_MISMATCH
    assert seen in fault.detail


def test_what_comes_after_the_announced_length_is_not_taken(proxy: S3Proxy) -> None:
    proxy.rules.append(Rule(do="trailing", key="d/"))
    assert download(proxy) == {number: body_of(number) for number in range(COUNT)}
    assert proxy.broke() >= COUNT


@pytest.mark.parametrize("do", ["status", pytest.param("stall", marks=pytest.mark.slow), "cut", "shorter", "longer"])
def test_what_passes_costs_no_photo(proxy: S3Proxy, do: str) -> None:
    proxy.rules.append(Rule(do=do, key=STUCK, after_bytes=100, times=3))
    assert download(proxy) == {number: body_of(number) for number in range(COUNT)}
    assert proxy.broke() == 3


@pytest.mark.parametrize("key", ["plain.jpg", "not//plain.jpg"])  # obstore and boto3; boto3 alone
@pytest.mark.parametrize("do", ["cut", "shorter", "longer"])
def test_one_object_is_read_again_and_then_rejected(s3_moto: S3Access, key: str, do: str) -> None:
    ObjectStore(s3_moto).put(key, b"1" * 100)
    with s3_proxy(s3_moto, Rule(do=do, key=key, after_bytes=20)) as proxy:
        store = ObjectStore(proxy.access, patience=QUICK)
        with pytest.raises(RejectedPhotoError) as caught:
            store.get(key, size_bytes=100)
        assert caught.value.reason is ReasonCode.BODY_MISMATCH
        assert caught.value.detail.startswith(
            "the bucket answers, but this object could not be read in two tries: it came with "
        )
        assert proxy.broke() >= 2
        proxy.rules[:] = [Rule(do=do, key=key, after_bytes=20, times=1)]
        assert store.get(key, size_bytes=100) == b"1" * 100


@pytest.mark.parametrize("do", ["status", "cut", "shorter"])
def test_many_stuck_objects_are_the_servers_fault(proxy: S3Proxy, do: str) -> None:
    proxy.rules += [Rule(do=do, key=f"d/{number}.jpg") for number in (1, 4, 7, 9)]
    with pytest.raises(ObjectStoreUnavailableError) as caught:
        download(proxy)
    text = str(caught.value)
    assert "lists bucket 'refund-test', but 4 of 12 photos could not be read, too many for a fault of theirs" in text
    assert "The task retries; if it goes on, look at the server's own log" in text


@pytest.mark.slow
def test_an_outage_at_the_end_rejects_no_photo(proxy: S3Proxy) -> None:
    proxy.rules.append(Rule(do="status", key="/d/", skip=COUNT - 2))  # lists go on
    with pytest.raises(ObjectStoreUnavailableError, match=r"2 of 12 photos could not be read"):
        download(proxy, concurrency=1)


@pytest.mark.slow
def test_an_outage_that_ends_with_the_last_try_rejects_no_photo(proxy: S3Proxy) -> None:
    alone = Rule(do="status", key=STUCK)
    proxy.rules.append(alone)
    check_only_one_failed(proxy, download(proxy, concurrency=1))
    proxy.rules[:] = [Rule(do="status", key="/d/", skip=COUNT - 2, times=2 * alone.done)]  # all tries of two photos
    assert download(proxy, concurrency=1) == {number: body_of(number) for number in range(COUNT)}
    assert proxy.broke() == 2 * alone.done


def test_a_single_photo_that_cannot_be_read_is_not_told_from_an_outage(proxy: S3Proxy) -> None:
    proxy.rules.append(Rule(do="status", key="d/0.jpg"))
    with pytest.raises(ObjectStoreUnavailableError, match=r"1 of 1 photos could not be read.*SlowDown.*The task retri"):
        download(proxy, count=1)


def test_a_server_that_goes_down_in_the_middle_rejects_no_photo(proxy: S3Proxy) -> None:
    store = ObjectStore(proxy.access, patience=QUICK)
    items = [photo(f"d/{number}.jpg", body_of(number)) for number in range(COUNT)]
    downloads = store.get_many(items, max_bytes=10**6, max_in_flight_bytes=4000, concurrency=1)
    assert isinstance(next(downloads)[1], bytes)
    proxy.down()
    with pytest.raises(ObjectStoreUnavailableError, match=r"did not list bucket 'refund-test': Could not connect"):
        list(downloads)


def test_a_bucket_that_goes_in_the_middle_rejects_no_photo(proxy: S3Proxy) -> None:
    proxy.rules.append(Rule(do="status", skip=5, status=404, code="NoSuchBucket"))
    with pytest.raises(BucketMissingError, match="bucket 'refund-test' does not exist"):
        download(proxy)


def test_credentials_withdrawn_in_the_middle_reject_no_photo(proxy: S3Proxy) -> None:
    proxy.rules.append(Rule(do="status", skip=5, status=403, code="InvalidAccessKeyId"))
    with pytest.raises(AccessDeniedError, match="refused to list bucket 'refund-test'"):
        download(proxy)


def test_a_right_withdrawn_in_the_middle_rejects_no_photo(proxy: S3Proxy) -> None:
    proxy.rules.append(Rule(do="status", key="/d/", skip=5, status=403, code="AccessDenied"))  # lists go on
    with pytest.raises(AccessDeniedError) as caught:
        download(proxy)
    text = str(caught.value)
    assert "refuses photos that it gave out a moment ago: bucket 'refund-test' answers, but refuses" in text
    assert "Give the user of the Airflow connection refund_s3 the right to read (s3:GetObject) back" in text


@pytest.mark.parametrize(
    ("status", "code"),
    [(403, "InvalidObjectState"), (400, "KMS.DisabledException"), (403, "AccessDenied")],
)
def test_an_object_that_the_store_refuses_costs_one_photo(proxy: S3Proxy, status: int, code: str) -> None:
    proxy.rules.append(Rule(do="status", key=STUCK, status=status, code=code))
    fault = download(proxy)[7]
    assert isinstance(fault, RejectedPhotoError)
    assert (fault.reason, fault.reason.is_final) == (ReasonCode.UNREADABLE, False)
    assert fault.detail == (
        f"bucket 'refund-test' answers, but refuses to give out this object: An error occurred ({code}) when calling "
        f"the GetObject operation: told to"
    )


@pytest.mark.parametrize("do", ["cut", "shorter", "status"])
def test_a_listing_that_breaks_is_a_fault_of_the_moment(proxy: S3Proxy, do: str) -> None:
    proxy.rules.append(Rule(do=do, key="list-type", after_bytes=60))
    with pytest.raises(ObjectStoreUnavailableError, match=r"did not list 'd/': .*The task retries"):
        list(ObjectStore(proxy.access, patience=QUICK).list("d/"))
    proxy.rules[:] = [Rule(do=do, key="list-type", after_bytes=60, times=1)]
    assert len(list(ObjectStore(proxy.access, patience=QUICK).list("d/"))) == COUNT
