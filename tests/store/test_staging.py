"""Staging on disk and in a bucket: the same contract."""

from __future__ import annotations

import errno
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from refund.errors import (
    DiskSpaceError,
    ReasonCode,
    RejectedPhotoError,
    SettingsError,
    StagingCorruptError,
    StagingMissingError,
)
from refund.settings import S3Access
from refund.store.objects import ObjectStore
from refund.store.staging import RUNS_FOLDER, Staging


@pytest.fixture(params=["disk", "bucket"])
def staging(request: pytest.FixtureRequest, tmp_path: Path) -> Staging:
    if request.param == "disk":
        return Staging((tmp_path / "a b%20ü").as_uri())
    s3: S3Access = request.getfixturevalue("s3_moto")
    return Staging(f"s3://{s3.bucket}/staging/{tmp_path.name}/", s3=replace(s3, bucket="another"))


def fill(staging: Staging, uri: str, **files: bytes) -> None:
    with staging.writable_folder(uri) as folder:
        for name, body in files.items():
            (folder / name).write_bytes(body)


def contents(staging: Staging, uri: str) -> dict[str, bytes]:
    with staging.readable_folder(uri) as folder:
        return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def test_a_folder_is_read_as_it_was_written_and_replaced_whole(staging: Staging) -> None:
    uri = staging.uri("run", "shard-0")
    assert not staging.exists(uri)
    fill(staging, uri, a=b"1", b=b"22")
    assert contents(staging, uri) == {"a": b"1", "b": b"22"}
    fill(staging, uri, c=b"")
    assert contents(staging, uri) == {"c": b""}


def test_an_empty_folder_is_a_folder(staging: Staging) -> None:
    fill(staging, staging.uri("empty"))
    assert contents(staging, staging.uri("empty")) == {}


def test_a_folder_that_fails_leaves_what_was_there(staging: Staging) -> None:
    uri = staging.uri("run")
    fill(staging, uri, a=b"1")

    def fail() -> None:
        with staging.writable_folder(uri) as folder:
            (folder / "b").write_bytes(b"2")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert contents(staging, uri) == {"a": b"1"}


def test_files_are_written_read_and_removed(staging: Staging) -> None:
    uri = staging.uri("run", "plan.json")
    staging.write_file(uri, b"{}")
    staging.write_file(uri, b"[]")
    assert (staging.read_file(uri), staging.exists(uri)) == (b"[]", True)
    fill(staging, staging.uri("run", "shard"), stage=b"7")
    assert staging.read_file(f"{staging.uri('run', 'shard')}/stage") == b"7"
    for _ in range(2):
        staging.remove(staging.uri("run"))
    assert not staging.exists(uri)
    assert not staging.exists(staging.uri("run", "shard"))


def test_what_is_missing_says_where_to_clear(staging: Staging) -> None:
    uri = staging.uri("none")
    with pytest.raises(StagingMissingError) as caught:
        contents(staging, uri)
    assert str(caught.value).startswith(f"{uri} is not there; it was cleaned up or never finished. Clear the run from")
    with pytest.raises(StagingMissingError):
        staging.read_file(uri)


@pytest.mark.parametrize("parts", [(), ("..",), ("a", "..", "b"), ("",), ("a", "")])
def test_nothing_outside_the_root_is_named(tmp_path: Path, parts: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError, match="does not name a file or folder in the staging folder"):
        Staging(tmp_path.as_uri()).uri(*parts)


@pytest.mark.parametrize("root", ["/tmp/x", "file://host/x", "file:///", "s3://", "ftp://a/b", ""])
def test_a_root_of_another_form_is_refused(root: str, s3_moto: S3Access) -> None:
    with pytest.raises(SettingsError) as caught:
        Staging(root, s3=s3_moto)
    assert str(caught.value) == f"REFUND_STAGING_ROOT must read file:///path or s3://bucket/prefix, got {root!r}"


def test_a_full_disk_says_how_much_is_needed(tmp_path: Path) -> None:
    staging = Staging(tmp_path.as_uri())

    def fill_up() -> None:
        with staging.writable_folder(staging.uri("x")):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskSpaceError, match=r"MB free, the run needs .*point REFUND_STAGING_ROOT at a larger disk"):
        fill_up()
    assert list((tmp_path / RUNS_FOLDER).iterdir()) == []


def test_a_root_that_cannot_be_a_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    staging = Staging((tmp_path / "file" / "below").as_uri())
    with pytest.raises(SettingsError, match=r"cannot be written: .*; point REFUND_STAGING_ROOT at a folder"):
        staging.write_file(staging.uri("x"), b"")


def test_free_bytes_are_the_disks_even_before_the_root_exists(tmp_path: Path, s3_moto: S3Access) -> None:
    assert (Staging((tmp_path / "not" / "yet").as_uri()).free_bytes() or 0) > 0
    assert Staging("s3://bucket", s3=s3_moto).free_bytes() is None


def test_a_staged_object_that_was_altered_is_noticed(s3_moto: S3Access, tmp_path: Path) -> None:
    staging = Staging(f"s3://{s3_moto.bucket}/altered", s3=s3_moto)
    fill(staging, staging.uri("pack"), a=b"123")
    ObjectStore(s3_moto).put("altered/refund-runs/pack/a", b"1")
    with pytest.raises(StagingCorruptError) as caught:
        contents(staging, staging.uri("pack"))
    assert str(caught.value) == (
        f"s3://{s3_moto.bucket}/altered/refund-runs/pack/a has 1 bytes, its writer wrote 3; "
        f"clear the run from the task fetch on"
    )
    ObjectStore(s3_moto).delete("altered/refund-runs/pack/a")
    with pytest.raises(StagingMissingError, match="altered/refund-runs/pack/a is not there"):
        contents(staging, staging.uri("pack"))


def test_what_nobody_touched_for_long_is_removed(staging: Staging) -> None:
    fill(staging, staging.uri("old run", "pack"), a=b"1")
    assert staging.remove_stale(datetime.now(UTC) - timedelta(days=1)) == []
    assert staging.exists(staging.uri("old run", "pack"))
    assert staging.remove_stale(datetime.now(UTC) + timedelta(days=1)) == ["old run"]
    assert not staging.exists(staging.uri("old run", "pack"))


def test_on_a_disk_only_our_own_folder_is_cleared(tmp_path: Path) -> None:
    staging = Staging(tmp_path.as_uri())
    with staging.writable_folder(staging.uri("old run")) as temporary:
        assert temporary.parent == tmp_path / RUNS_FOLDER
    (tmp_path / "thesis.txt").write_bytes(b"mine")
    (tmp_path / "photos").mkdir()
    assert staging.remove_stale(datetime.now(UTC) + timedelta(days=1)) == ["old run"]
    assert {path.name for path in tmp_path.iterdir()} == {RUNS_FOLDER, "photos", "thesis.txt"}


@pytest.mark.parametrize("prefix", ["", "shared/"])
def test_in_a_bucket_only_our_own_folder_is_cleared(s3_moto: S3Access, prefix: str) -> None:
    staging = Staging(f"s3://{s3_moto.bucket}/{prefix}", s3=s3_moto)
    objects = ObjectStore(s3_moto)
    foreign = [f"{prefix}incoming/2026-11-21/R1/a.jpg", f"{prefix}thesis.txt"]
    for key in foreign:
        objects.put(key, b"1")
    fill(staging, staging.uri("old run"), a=b"1")
    assert list(objects.list(f"{prefix}{RUNS_FOLDER}/old run/"))
    assert staging.remove_stale(datetime.now(UTC) + timedelta(days=1)) == ["old run"]
    assert all(objects.head(key) for key in foreign)
    assert not list(objects.list(f"{prefix}{RUNS_FOLDER}/"))


def test_a_staged_file_that_the_store_does_not_hand_over_is_not_called_missing(
    s3_moto: S3Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> bytes:
        raise RejectedPhotoError(ReasonCode.UNREADABLE, "archived")

    staging = Staging(f"s3://{s3_moto.bucket}/refused", s3=s3_moto)
    monkeypatch.setattr(ObjectStore, "get", refuse)
    with pytest.raises(StagingCorruptError) as caught:
        staging.read_file(staging.uri("plan.json"))
    assert str(caught.value) == f"{staging.uri('plan.json')}: archived; clear the run from the task fetch on"


def test_only_the_files_named_are_downloaded(staging: Staging, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = staging.uri("run", "pack")
    fill(staging, uri, **{"pixels.npy": b"large", "photos.parquet": b"small"})
    downloaded: list[str] = []
    download = ObjectStore.download

    def counted(store: ObjectStore, key: str, path: Path) -> None:
        downloaded.append(path.name)
        download(store, key, path)

    monkeypatch.setattr(ObjectStore, "download", counted)
    with staging.readable_folder(uri, names=["photos.parquet"]) as folder:
        assert (folder / "photos.parquet").read_bytes() == b"small"
    assert downloaded == (["photos.parquet"] if uri.startswith("s3://") else [])
    with (
        pytest.raises(StagingMissingError, match=r"pack/other is not there"),
        staging.readable_folder(uri, names=["other"]),
    ):
        pass


def test_a_disk_that_fills_while_a_folder_is_fetched_says_how_much_is_needed(
    s3_moto: S3Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    staging = Staging(f"s3://{s3_moto.bucket}/full", s3=s3_moto)
    fill(staging, staging.uri("pack"), a=b"1")
    monkeypatch.setattr(ObjectStore, "download", fail)
    with pytest.raises(DiskSpaceError, match=r"refund-staged-\S+ has .* MB free, the run needs"):
        contents(staging, staging.uri("pack"))
