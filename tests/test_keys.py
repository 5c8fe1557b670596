"""Keys say date, refund and identity; no key is refused."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@given(st.text(max_size=200))
def test_every_text_is_a_key(key: str) -> None:
    assert isinstance(keys.photo_date(key, prefix=PREFIX), date)
    keys.refund_id(key, prefix=PREFIX)
    keys.photo_id(bucket="b", key=key, etag="e")


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


@given(st.text(max_size=300), st.text(max_size=300))
def test_path_safe_names_are_short_safe_and_distinct(one: str, other: str) -> None:
    names = keys.path_safe(one), keys.path_safe(other)
    for name in names:
        assert 1 <= len(name) <= 100
        assert not set(name) & set("/\\ \n\0")
        assert name not in {".", ".."}
    assert (names[0] == names[1]) == (one == other)


def test_markers_and_declarations_are_no_photos() -> None:
    assert not keys.is_photo("incoming/2026-11-21/")
    assert not keys.is_photo("incoming/2026-11-21/_refunds.csv")
    assert keys.is_photo("incoming/2026-11-21/R-1/notes.txt")  # it will be rejected, not overlooked


@given(st.text(min_size=1, max_size=700))
def test_quarantine_keys_fit_into_s3(key: str) -> None:
    target = keys.quarantine_key(key, run_date=date(2026, 11, 21), reason="unsupported_format")
    assert target.startswith("quarantine/2026-11-21/unsupported_format/")
    assert len(target.encode("utf-8", "surrogatepass")) <= 1024
