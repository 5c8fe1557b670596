"""Keys say date, refund and identity; tests/properties/test_keys.py holds it for any key."""

from __future__ import annotations

import re
from datetime import date

import pytest

from refund import keys

PREFIX = "incoming/"


@pytest.mark.parametrize(
    ("key", "day", "refund"),
    [
        ("incoming/2026-11-21/R-1001/front.jpg", date(2026, 11, 21), "R-1001"),
        ("incoming/2026-11-21/R-1001/more/side view.jpg", date(2026, 11, 21), "R-1001"),
        ("incoming/2026-11-21/front.jpg", date(2026, 11, 21), None),
        ("incoming/2026-11-21//front.jpg", date(2026, 11, 21), None),
        ("incoming/2026-02-30/R-1/front.jpg", keys.UNDATED, None),
        ("incoming/front.jpg", keys.UNDATED, None),
        ("incoming/2026-11-21", keys.UNDATED, None),
        ("incoming/20261121/R-1/front.jpg", keys.UNDATED, None),
        ("elsewhere/2026-11-21/R-1/front.jpg", keys.UNDATED, None),
        ("incoming/2026-11-21/../2026-11-20/x.jpg", date(2026, 11, 21), ".."),
    ],
)
def test_date_and_refund_are_read_from_the_folders(key: str, day: date, refund: str | None) -> None:
    assert keys.photo_date(key, prefix=PREFIX) == day
    assert keys.refund_id(key, prefix=PREFIX) == refund


def test_identity_is_of_bucket_key_and_etag() -> None:
    first = keys.photo_id(bucket="b", key="k", etag="1")
    assert first == keys.photo_id(bucket="b", key="k", etag="1")
    others = {
        keys.photo_id(bucket="b", key="k", etag="2"),
        keys.photo_id(bucket="b", key="k1", etag=""),
        keys.photo_id(bucket="bk", key="", etag="1"),
    }
    assert first not in others
    assert len(others) == 3


def test_identity_never_changes() -> None:
    """Stored ids must be found again by later versions of this code."""
    assert str(keys.photo_id(bucket="refunds", key="incoming/2026-11-21/R-1/a.jpg", etag="abc")) == (
        "5c25c354-6d8f-d220-7bb0-f35696a49f08"
    )


@pytest.mark.parametrize(
    ("name", "copied"),
    [
        ("R-1/a.jpg", "R-1/a~a7937b64.jpg"),
        ("R-1/a.b.jpg", "R-1/a.b~a7937b64.jpg"),
        ("R.1/a", "R.1/a~a7937b64"),
        ("R-1/.hidden", "R-1/.hidden~a7937b64"),
        ("R-1/a.", "R-1/a.~a7937b64"),
        ("R-1/a.b~1", "R-1/a.b~1~a7937b64"),
        ("R-1/100%.jpg", "R-1/100%~a7937b64.jpg"),
        ("R-1/" + "a" * 187 + ".jpg", "R-1/" + "a" * 187 + "~a7937b64.jpg"),  # a file name of 200 bytes
        ("R-1/" + "a" * 188 + ".jpg", None),
        ("R-1/" + "a/" * 500 + "b.jpg", None),
    ],
)
def test_a_copy_in_quarantine_is_named_after_its_key_and_its_version(name: str, copied: str | None) -> None:
    folder = "quarantine/2026-11-21/corrupt/"
    target, other = (
        keys.quarantine_key(f"incoming/{name}", etag=etag, run_date=date(2026, 11, 21), reason="corrupt")
        for etag in ("first", "second")
    )
    if copied is None:
        assert re.fullmatch(rf"{folder}sha256-[0-9a-f]{{64}}", target)
    else:
        assert target == f"{folder}incoming/{copied}"
    assert other != target


def test_markers_and_declarations_are_no_photos() -> None:
    assert not keys.is_photo("incoming/2026-11-21/")
    assert not keys.is_photo("incoming/2026-11-21/_refunds.csv")
    assert keys.is_photo("incoming/2026-11-21/R-1/notes.txt")  # it will be rejected, not overlooked


def test_a_run_id_that_looks_like_a_made_path_gets_a_path_of_its_own() -> None:
    made = keys.path_safe("manual__2026-11-22T02:00:00+00:00")
    assert made[:-12] == "manual__2026-11-22T02_00_00_00_00-"
    assert keys.path_safe(made).startswith(made + "-")
    assert keys.path_safe("night-2") == "night-2"
