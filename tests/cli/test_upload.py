"""`refund upload`: where photos go, and what one file, or the whole server, that fails costs."""

from __future__ import annotations

import os
import secrets
from datetime import date
from pathlib import Path

import pytest

from refund.cli.photos import upload_all, upload_target
from refund.errors import ObjectStoreUnavailableError, SettingsError
from refund.params import NightParams
from refund.settings import S3Access
from refund.store.objects import ObjectStore
from tests.conftest import free_port
from tests.e2e.driver import run_refund

DAY = date(2026, 11, 21)


@pytest.fixture
def target() -> str:
    """A folder of the shared bucket that no other test uses."""
    return f"upload-{secrets.token_hex(4)}/2026-11-21/"


def test_photos_go_where_the_night_of_their_date_looks() -> None:
    assert upload_target(NightParams(), DAY, refund_id="") == "incoming/2026-11-21/"
    assert upload_target(NightParams(prefix="shop/b/"), DAY, refund_id="R-7 b") == "shop/b/2026-11-21/R-7 b/"


@pytest.mark.parametrize("refund_id", ["a/b", "/", "..", ".", " R-1", "R-1\n"])
def test_a_refund_id_is_the_name_of_one_folder(refund_id: str) -> None:
    with pytest.raises(SettingsError) as caught:
        upload_target(NightParams(), DAY, refund_id=refund_id)
    assert str(caught.value) == (
        f"--refund-id must be the name of one folder, for example R-1001, without a slash; got {refund_id!r}"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prefix", "incoming"], "prefix must end with a slash and not start with one, got 'incoming'"),
        (["--prefix", "/incoming/"], "prefix must end with a slash and not start with one, got '/incoming/'"),
        (["--refund-id", ".."], "--refund-id must be the name of one folder"),
    ],
)
def test_a_place_where_no_night_looks_is_refused_before_anything_is_sent(
    options: list[str], message: str, tmp_path: Path
) -> None:
    answer = run_refund(tmp_path / "none", "upload", tmp_path, *options, code=3)
    assert f"SettingsError: {message}" in answer.err


def test_a_file_that_cannot_be_read_or_named_costs_no_other(s3_moto: S3Access, tmp_path: Path, target: str) -> None:
    objects = ObjectStore(s3_moto)
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff.jpg"))
    files = [tmp_path / "a.jpg", odd, tmp_path / "gone.jpg", tmp_path / "z.jpg"]
    for path in (files[0], odd, files[3]):
        path.write_bytes(b"photo")
    done = upload_all(objects, files, folder=tmp_path, target=target)
    assert (done.uploaded, done.skipped) == (2, 0)
    assert done.refused == [
        {
            "path": str(odd),
            "key": f"{target}b\udcff.jpg",
            "error": "its name is not UTF-8, as S3 keys must be; rename the file",
        },
        {
            "path": str(files[2]),
            "key": f"{target}gone.jpg",
            "error": "it cannot be read: No such file or directory; mend the file or its rights",
        },
    ]
    assert [item.key for item in objects.list(target)] == [f"{target}a.jpg", f"{target}z.jpg"]
    again = upload_all(objects, [files[0], files[3]], folder=tmp_path, target=target)
    assert (again.uploaded, again.skipped, again.refused) == (0, 2, [])


def test_a_server_that_is_down_ends_it_at_the_first_file(tmp_path: Path) -> None:
    objects = ObjectStore(
        S3Access(bucket="b", endpoint_url=f"http://127.0.0.1:{free_port()}", access_key="a", secret_key="s")
    )
    paths = [tmp_path / f"{number}.jpg" for number in range(3)]
    for path in paths:
        path.write_bytes(b"photo")
    files = iter(paths)
    with pytest.raises(ObjectStoreUnavailableError):
        upload_all(objects, files, folder=tmp_path, target="incoming/2026-11-21/")
    assert list(files) == paths[1:]
