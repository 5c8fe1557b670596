"""`refund model build` away from a laptop: no packaged network, no champion without a reason, weights from S3."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from refund.cli import model_build
from refund.cli.access import Access
from refund.cli.model_build import history_reason, weights_file
from refund.errors import ModelArtefactError, SettingsError
from refund.settings import DatabaseAccess, S3Access, Settings
from refund.store.objects import ObjectStore

REMEDY = "correct --weights or REFUND_WEIGHTS, which read s3://bucket/key, or upload the weights there"


def test_a_reason_is_kept_as_given() -> None:
    assert history_reason(" better on shoes ", champion=True, on_a_laptop=False) == "better on shoes"


@pytest.mark.parametrize(("champion", "on_a_laptop"), [(True, True), (False, False)])
def test_a_laptop_and_a_mere_registration_need_no_reason(champion: bool, on_a_laptop: bool) -> None:
    assert history_reason("", champion=champion, on_a_laptop=on_a_laptop) == "refund model build"


@pytest.mark.parametrize("given", ["", "  "])
def test_elsewhere_the_champion_changes_only_for_a_reason(given: str) -> None:
    with pytest.raises(SettingsError) as caught:
        history_reason(given, champion=True, on_a_laptop=False)
    assert str(caught.value) == (
        "the champion changes only for a reason, which its history keeps; give --reason TEXT, or --no-champion"
    )


@pytest.mark.parametrize(
    ("local", "given", "expected"),
    [(None, None, False), (None, True, True), (object(), None, True), (object(), False, False)],
)
def test_only_a_local_stack_falls_back_unasked(
    local: Any, given: bool | None, expected: bool, s3_moto: S3Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = Access(s3=s3_moto, database=DatabaseAccess(host="h", password="p"), settings=Settings(), local=local)
    asked: dict[str, Any] = {}

    def note(**given: Any) -> str:
        asked.update(given)
        return "m@1"

    monkeypatch.setattr(model_build, "find_access", lambda: access)
    monkeypatch.setattr(model_build, "build_and_register", note)
    model_build.build(weights="", fallback=given, champion=True, reason="why", as_json=True)
    assert asked["fallback"] is expected
    assert asked["reason"] == "why"


def test_weights_come_from_a_file_or_from_s3(s3_moto: S3Access, tmp_path: Path) -> None:
    assert weights_file("w.h5", tmp_path, s3=s3_moto) == Path("w.h5")
    ObjectStore(s3_moto).put("weights/w.h5", b"weights")
    found = weights_file(f"s3://{s3_moto.bucket}/weights/w.h5", tmp_path, s3=replace(s3_moto, bucket="another"))
    assert (found, found.read_bytes()) == (tmp_path / "w.h5", b"weights")


@pytest.mark.parametrize(
    ("weights", "seen"),
    [
        ("s3://refund-test/gone.h5", "is not there, S3 at {place} has no object 'gone.h5'"),
        ("s3://no-such-bucket/w.h5", "is not there, S3 at {place} has no bucket 'no-such-bucket'"),
        ("s3://refund-test", "names no object"),
        ("s3://refund-test/folder/", "names no object"),
    ],
)
def test_weights_that_are_not_in_s3_are_named_with_the_way_out(
    weights: str, seen: str, s3_moto: S3Access, tmp_path: Path
) -> None:
    with pytest.raises(ModelArtefactError) as caught:
        weights_file(weights, tmp_path, s3=s3_moto)
    assert str(caught.value) == f"{weights} {seen.format(place=s3_moto.place)}; {REMEDY}"
    assert list(tmp_path.iterdir()) == []
