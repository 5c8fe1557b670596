"""The bucket, against two real servers over HTTP: moto takes any key, nanio checks signatures."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from hashlib import md5
from pathlib import Path

import pytest

from refund.errors import (
    AccessDeniedError,
    BucketMissingError,
    ObjectStoreUnavailableError,
    ReasonCode,
    RejectedPhotoError,
    SettingsError,
)
from refund.settings import S3Access
from refund.store import objects
from refund.store.objects import ObjectStore, is_plain_key
from refund.store.s3_clients import boto3_client
from tests.conftest import free_port
from tests.faults.s3_proxy import QUICK, Rule, s3_proxy

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
    return ObjectStore(access, patience=QUICK)


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


def test_a_copy_is_of_the_version_asked_for_or_of_none(store: ObjectStore) -> None:
    store.put("seven.jpg", b"judged")
    judged = md5(b"judged", usedforsecurity=False).hexdigest()
    store.copy("seven.jpg", "kept/seven.jpg", etag=judged)
    assert store.get("kept/seven.jpg") == b"judged"
    store.put("seven.jpg", b"newer")
    error = rejection(lambda: store.copy("seven.jpg", "other/seven.jpg", etag=judged))
    assert str(error) == f"changed: 'seven.jpg' is not the version with ETag {judged} any more"
    assert store.head("other/seven.jpg") is None


def test_a_server_that_holds_to_the_condition_is_believed(s3_moto: S3Access) -> None:
    ObjectStore(s3_moto).put("eight.jpg", b"1")
    with s3_proxy(
        s3_moto, Rule(do="status", method="PUT", key="kept/", status=412, code="PreconditionFailed")
    ) as proxy:
        store = ObjectStore(proxy.access, patience=QUICK)
        error = rejection(lambda: store.copy("eight.jpg", "kept/eight.jpg", etag="e"))
        assert (error.reason, proxy.broke()) == (ReasonCode.CHANGED, 1)


def test_a_copy_may_be_made_only_where_nothing_lies(s3_heeding: S3Access) -> None:
    store = ObjectStore(s3_heeding, patience=QUICK)
    store.put("nine.jpg", b"nine")
    store.put("there.jpg", b"there")
    assert store.copy("nine.jpg", "free/nine.jpg", absent=True)
    assert not store.copy("nine.jpg", "there.jpg", absent=True)
    judged = md5(b"nine", usedforsecurity=False).hexdigest()
    assert not store.copy("nine.jpg", "there.jpg", absent=True, etag=judged)
    assert (store.get("free/nine.jpg"), store.get("there.jpg")) == (b"nine", b"there")
    assert rejection(lambda: store.copy("nothing.jpg", "free/x.jpg", absent=True)).reason is ReasonCode.VANISHED


def test_a_server_that_does_not_know_that_condition_copies_without_it(s3_moto: S3Access) -> None:
    ObjectStore(s3_moto).put("ten.jpg", b"ten")
    rule = Rule(do="status", method="PUT", key="free/ten", status=501, code="NotImplemented", times=1)
    with s3_proxy(s3_moto, rule) as proxy:
        assert ObjectStore(proxy.access, patience=QUICK).copy("ten.jpg", "free/ten.jpg", absent=True)
        assert proxy.requests == ["PUT /refund-test/free/ten.jpg"] * 2
    assert ObjectStore(s3_moto).get("free/ten.jpg") == b"ten"


def test_two_writes_at_once_are_a_fault_of_the_moment(s3_moto: S3Access) -> None:
    ObjectStore(s3_moto).put("eleven.jpg", b"1")
    rule = Rule(do="status", method="PUT", key="free/", status=409, code="ConditionalRequestConflict")
    with s3_proxy(s3_moto, rule) as proxy:
        store = ObjectStore(proxy.access, patience=QUICK)
        text = r"did not copy 'eleven\.jpg' to 'free/eleven\.jpg': .*ConditionalRequestConflict.* The task retries"
        with pytest.raises(ObjectStoreUnavailableError, match=text):
            store.copy("eleven.jpg", "free/eleven.jpg", absent=True)


def test_uploads_that_a_killed_writer_left_are_ended(s3_moto: S3Access) -> None:
    store = ObjectStore(s3_moto)
    client = boto3_client(s3_moto, QUICK)
    for key in ("parts/a/pixels", "parts/ab/pixels", "parts/a"):
        client.create_multipart_upload(Bucket=s3_moto.bucket, Key=key)

    def unfinished() -> list[str]:
        found = client.list_multipart_uploads(Bucket=s3_moto.bucket).get("Uploads", ())
        return sorted(upload["Key"] for upload in found if upload["Key"].startswith("parts/"))

    store.abort_uploads("parts/", below=True, before=datetime(2000, 1, 1, tzinfo=UTC))  # moto says 2010 of all
    assert unfinished() == ["parts/a", "parts/a/pixels", "parts/ab/pixels"]
    store.abort_uploads("parts/a/", below=True)
    assert unfinished() == ["parts/a", "parts/ab/pixels"]
    store.abort_uploads("parts/a")
    assert unfinished() == ["parts/ab/pixels"]
    store.abort_uploads("parts/", below=True)
    assert unfinished() == []


def test_a_server_that_cannot_list_uploads_is_let_be(s3_nanio: S3Access, s3_moto: S3Access) -> None:
    ObjectStore(s3_nanio).abort_uploads("parts/", below=True)
    with s3_proxy(s3_moto, Rule(do="status", key="uploads", status=501, code="NotImplemented")) as proxy:
        ObjectStore(proxy.access, patience=QUICK).abort_uploads("parts/", below=True)
        assert proxy.broke() > 0
