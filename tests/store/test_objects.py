"""The bucket, against two real servers over HTTP: moto takes any key, nanio checks signatures."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from hashlib import md5
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import pytest

from refund.errors import (
    AccessDeniedError,
    BucketMissingError,
    ObjectStoreUnavailableError,
    ReasonCode,
    RejectedPhotoError,
    SettingsError,
)
from refund.records import PhotoObject
from refund.settings import S3Access
from refund.store import objects
from refund.store.objects import ObjectStore, is_plain_key
from tests.conftest import free_port

HOSTILE = [
    "h/a b.jpg", "h/é☃.jpg", "h/100%.jpg", "h/%2e%2e/x.jpg", "h/a+b&c=d?.jpg", "h/#x.jpg", "h//double.jpg",
    "/h/leading.jpg", "h/./dot.jpg", "h/../up.jpg", "h/back\\slash.jpg", "h/quo\"te'.jpg", "h/{br}[ack]~^`|<>.jpg",
    "h/tab\t.jpg", "h/trailing /x.jpg", "h/trailing.", "h/..x",
]  # fmt: skip


@pytest.fixture(params=["s3_moto", "s3_nanio"])
def access(request: pytest.FixtureRequest) -> S3Access:
    found: S3Access = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def store(access: S3Access) -> ObjectStore:
    return ObjectStore(access)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "RETRY_PAUSE_S", 0.0)


def photo(key: str, body: bytes, **over: object) -> PhotoObject:
    values = {
        "photo_id": UUID(int=0), "photo_date": date(1970, 1, 1), "bucket": "b", "key": key,
        "etag": md5(body, usedforsecurity=False).hexdigest(), "size_bytes": len(body), "refund_id": None,
        "declared_category": None,
    }  # fmt: skip
    return PhotoObject(**{**values, **over})  # type: ignore[arg-type]  # overrides of any field


def rejection(call: object) -> RejectedPhotoError:
    with pytest.raises(RejectedPhotoError) as caught:
        call()  # type: ignore[operator]  # a lambda
    return caught.value


def test_what_is_put_is_listed_and_read(store: ObjectStore) -> None:
    store.put("one/a.jpg", b"abc", content_type="image/jpeg")
    store.put("one/sub/b.jpg", b"")
    listed = list(store.list("one/"))
    assert [(item.key, item.size_bytes) for item in listed] == [("one/a.jpg", 3), ("one/sub/b.jpg", 0)]
    assert store.head("one/a.jpg") is not None
    for item in listed:
        body = store.get(item.key, etag=item.etag, size_bytes=item.size_bytes)
        assert body == {"one/a.jpg": b"abc", "one/sub/b.jpg": b""}[item.key]
    folders, items = store.list_level("one/")
    assert (list(folders), [item.key for item in items]) == (["one/sub/"], ["one/a.jpg"])
    assert store.list_level("none/") == ([], [])
    assert store.uri("one/a.jpg") == "s3://refund-test/one/a.jpg"


def test_copy_delete_upload_and_download(store: ObjectStore, tmp_path: Path) -> None:
    store.put("two/ä b.jpg", b"abc")
    store.copy("two/ä b.jpg", "quarantine/two/ä b.jpg")
    assert store.get("quarantine/two/ä b.jpg") == b"abc"
    store.download("two/ä b.jpg", tmp_path / "deep" / "file")
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "deep").iterdir()] == [("file", b"abc")]
    store.upload(tmp_path / "deep" / "file", "two/up.jpg")
    assert store.get("two/up.jpg") == b"abc"
    for _ in range(2):
        store.delete("two/up.jpg")
    assert store.head("two/up.jpg") is None


def test_an_object_that_vanished_is_the_photos_fault(store: ObjectStore, tmp_path: Path) -> None:
    for call in (
        lambda: store.get("nothing.jpg"),
        lambda: store.download("nothing.jpg", tmp_path / "x"),
        lambda: store.copy("nothing.jpg", "y.jpg"),
    ):
        error = rejection(call)
        assert str(error) == "vanished: no object 'nothing.jpg' any more, while bucket 'refund-test' answers"
    assert list(tmp_path.iterdir()) == []


def test_an_object_that_was_overwritten_is_changed(store: ObjectStore) -> None:
    store.put("three.jpg", b"new")
    error = rejection(lambda: store.get("three.jpg", etag="0" * 32, size_bytes=3))
    assert error.reason is ReasonCode.CHANGED
    assert error.detail == (
        f"it was listed with ETag {'0' * 32}, now it has {md5(b'new', usedforsecurity=False).hexdigest()}; "
        f"the new version comes with the next run"
    )


def test_a_body_of_another_size_is_a_mismatch(store: ObjectStore) -> None:
    store.put("four.jpg", b"four")
    error = rejection(lambda: store.get("four.jpg", size_bytes=5))
    assert str(error) == (
        "body_mismatch: the bucket answers, but this object could not be read in two tries: "
        "it came with 4 bytes, listed were 5"
    )


def test_a_missing_bucket_is_named_whatever_is_asked(access: S3Access, tmp_path: Path) -> None:
    store = ObjectStore(replace(access, bucket="nowhere"))
    calls = [
        store.check_bucket, lambda: list(store.list("")), lambda: store.head("k"), lambda: store.get("k"),
        lambda: store.get("a//k"), lambda: store.put("k", b""), lambda: store.copy("k", "l"),
        lambda: store.download("k", tmp_path / "x"),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(BucketMissingError) as caught:
            call()
        assert str(caught.value).startswith(f"bucket 'nowhere' does not exist at {access.endpoint_url}; create it")


def test_a_wrong_secret_names_the_connection_to_correct(s3_nanio: S3Access) -> None:
    for change in ({"secret_key": "wrong"}, {"access_key": "nobody"}):
        store = ObjectStore(replace(s3_nanio, **change))
        for call in (
            store.check_bucket,
            lambda s=store: s.get("k"),
            lambda s=store: s.put("k", b"1"),
            lambda s=store: s.head("k"),
        ):
            with pytest.raises(AccessDeniedError) as caught:
                call()
            assert "refused to" in str(caught.value)
            assert "Correct login and password of the Airflow connection refund_s3" in str(caught.value)
            assert "wrong" not in str(caught.value)


def test_a_store_goes_on_after_a_refused_write(s3_nanio: S3Access) -> None:
    store = ObjectStore(s3_nanio)
    with pytest.raises(AccessDeniedError, match="refused to write"):
        store.put("five/" + "x" * 2000, b"a" * 100_000)
    store.put("five/ok.jpg", b"1")
    assert store.get("five/ok.jpg") == b"1"


def test_a_large_file_is_uploaded_in_parts(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "PART_BYTES", 5 * 1024**2)  # the least that S3 takes
    body = bytes(range(256)) * 43_000  # 11 MB
    (tmp_path / "pixels.npy").write_bytes(body)
    store.upload(tmp_path / "pixels.npy", "large.npy", content_type="application/x-npy")
    found = store.head("large.npy")
    assert found is not None
    assert found.etag.endswith("-3")
    assert store.get("large.npy", etag=found.etag, size_bytes=len(body)) == body


@pytest.mark.parametrize("part_bytes", [5, 5 * 1024**2])
def test_an_upload_into_a_missing_bucket_or_with_a_wrong_secret_says_so(
    s3_nanio: S3Access, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part_bytes: int
) -> None:
    monkeypatch.setattr(objects, "PART_BYTES", part_bytes)
    (tmp_path / "file").write_bytes(b"a" * 1000)
    with pytest.raises(BucketMissingError, match="bucket 'nowhere' does not exist"):
        ObjectStore(replace(s3_nanio, bucket="nowhere")).upload(tmp_path / "file", "k")
    with pytest.raises(AccessDeniedError, match="refused to write 'k'"):
        ObjectStore(replace(s3_nanio, secret_key="wrong")).upload(tmp_path / "file", "k")
    with pytest.raises(ObjectStoreUnavailableError, match="did not write 'k'"):
        ObjectStore(replace(s3_nanio, endpoint_url=f"http://127.0.0.1:{free_port()}")).upload(tmp_path / "file", "k")


def test_a_server_that_is_not_there_is_a_fault_of_the_moment(s3_moto: S3Access) -> None:
    port = free_port()
    store = ObjectStore(replace(s3_moto, endpoint_url=f"http://127.0.0.1:{port}"))
    for call in (store.check_bucket, lambda: store.get("k")):
        with pytest.raises(
            ObjectStoreUnavailableError, match=rf"S3 at http://127\.0\.0\.1:{port} did not .*The task retries"
        ):
            call()


def test_a_malformed_endpoint_is_a_setting_to_correct(s3_moto: S3Access) -> None:
    with pytest.raises(SettingsError, match=r"endpoint 'localhost:9000' is malformed: Invalid endpoint"):
        ObjectStore(replace(s3_moto, endpoint_url="localhost:9000")).check_bucket()


def test_any_key_is_listed_read_and_copied(s3_moto: S3Access) -> None:
    store = ObjectStore(s3_moto)
    for key in HOSTILE:
        store.put(key, key.encode())
    listed = {item.key: item for prefix in ("h/", "/h/") for item in store.list(prefix)}
    assert set(listed) >= set(HOSTILE)
    for key in HOSTILE:
        assert store.get(key, etag=listed[key].etag, size_bytes=listed[key].size_bytes) == key.encode()
        store.copy(key, f"q/{key}")
        assert store.get(f"q/{key}") == key.encode()


def test_which_keys_are_plain() -> None:
    assert [key for key in HOSTILE if not is_plain_key(key)] == [
        "h//double.jpg", "/h/leading.jpg", "h/./dot.jpg", "h/../up.jpg",
    ]  # fmt: skip


def test_the_fast_path_reads_plain_keys(s3_nanio: S3Access, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObjectStore(s3_nanio)
    store.put("six.jpg", b"six")
    monkeypatch.setattr(store, "_get_slow", None)  # not callable: any use fails
    assert store.get("six.jpg") == b"six"


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

    monkeypatch.setattr(store, "get", counted)
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


class _Broken(BaseHTTPRequestHandler):
    """A server that lists, but breaks every body in its middle."""

    def do_GET(self) -> None:
        listing = "list-type" in self.path
        body = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>" if listing else b"half"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) if listing else 8))
        self.send_header("ETag", '"e"')
        self.send_header("Last-Modified", "Sat, 21 Nov 2026 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def broken_server() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Broken)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_body_that_always_breaks_costs_one_photo(broken_server: str) -> None:
    access = S3Access(bucket="b", endpoint_url=broken_server, access_key="a", secret_key="s")
    error = rejection(lambda: ObjectStore(access).get("k.jpg", etag="e", size_bytes=8))
    assert error.reason is ReasonCode.BODY_MISMATCH
    assert "the bucket answers, but this object could not be read in two tries" in error.detail


class _Proxy(ThreadingHTTPServer):
    """Passes everything on to a real server, but answers GET and HEAD of one path (or, with None, of all) by itself."""

    def __init__(self, upstream: str, path: str | None, status: int, code: str) -> None:
        super().__init__(("127.0.0.1", 0), _ProxyHandler)
        self.upstream = urlsplit(upstream).netloc
        self.path = path
        self.status = status
        self.body = f"<Error><Code>{code}</Code><Message>told to</Message></Error>".encode()
        self.refused = 0


class _ProxyHandler(BaseHTTPRequestHandler):
    server: _Proxy

    def do_GET(self) -> None:
        if self.server.path in (None, urlsplit(self.path).path):
            self.server.refused += 1
            self.answer(self.server.status, [("Content-Type", "application/xml")], self.server.body)
            return
        connection = HTTPConnection(self.server.upstream, timeout=20)
        connection.request(self.command, self.path, headers=dict(self.headers))
        found = connection.getresponse()
        kept = [
            (name, value) for name, value in found.getheaders() if name in ("ETag", "last-modified", "Last-Modified")
        ]
        self.answer(found.status, kept, found.read(), size_bytes=found.headers["Content-Length"])
        connection.close()

    do_HEAD = do_GET  # noqa: N815 -- http.server looks it up by this name

    def answer(
        self, status: int, headers: list[tuple[str, str]], body: bytes, *, size_bytes: str | None = None
    ) -> None:
        self.send_response_only(status)
        for name, value in [*headers, ("Content-Length", size_bytes or str(len(body)))]:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextmanager
def proxy(access: S3Access, key: str | None, status: int, code: str) -> Iterator[tuple[ObjectStore, _Proxy]]:
    path = None if key is None else f"/{access.bucket}/{key}"
    server = _Proxy(access.endpoint_url or "", path, status, code)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield ObjectStore(replace(access, endpoint_url=f"http://127.0.0.1:{server.server_port}")), server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "code"),
    [(403, "InvalidObjectState"), (400, "KMS.DisabledException"), (403, "AccessDenied")],
)
def test_an_object_that_the_store_refuses_costs_one_photo(s3_moto: S3Access, status: int, code: str) -> None:
    for key in ("refused/1.jpg", "refused/2.jpg", "refused/3.jpg"):
        ObjectStore(s3_moto).put(key, key.encode())
    with proxy(s3_moto, "refused/2.jpg", status, code) as (store, _):
        items = [photo(f"refused/{number}.jpg", f"refused/{number}.jpg".encode()) for number in (1, 2, 3)]
        results = dict(store.get_many(items, max_bytes=99, max_in_flight_bytes=99, concurrency=2))
    assert (results[0], results[2]) == (b"refused/1.jpg", b"refused/3.jpg")
    fault = results[1]
    assert isinstance(fault, RejectedPhotoError)
    assert (fault.reason, fault.reason.is_final) == (ReasonCode.UNREADABLE, False)
    assert fault.detail == (
        f"bucket 'refund-test' answers, but refuses to give out this object: An error occurred ({code}) when calling "
        f"the GetObject operation: told to"
    )


def test_a_store_that_refuses_everything_is_no_photos_fault(s3_moto: S3Access) -> None:
    with proxy(s3_moto, None, 403, "AccessDenied") as (store, _), pytest.raises(AccessDeniedError) as caught:
        store.get("refused/1.jpg")
    assert "refused to list bucket 'refund-test'" in str(caught.value)


@pytest.mark.parametrize(
    ("status", "code"),
    [(503, "SlowDown"), (500, "InternalError"), (429, "TooManyRequests"), (400, "ThrottlingException")],
)
def test_a_server_that_asks_to_slow_down_rejects_no_photo(
    s3_moto: S3Access, monkeypatch: pytest.MonkeyPatch, status: int, code: str
) -> None:
    ObjectStore(s3_moto).put("slow.jpg", b"slow")
    monkeypatch.setattr(time, "sleep", lambda _: None)  # botocore's pauses between its tries
    with proxy(s3_moto, "slow.jpg", status, code) as (store, server):
        with pytest.raises(ObjectStoreUnavailableError, match=rf"did not read 'slow\.jpg': .*{code}.*The task retries"):
            list(store.get_many([photo("slow.jpg", b"slow")], max_bytes=9, max_in_flight_bytes=9, concurrency=1))
        store.check_bucket()
    assert server.refused > 1  # tried again within the process
