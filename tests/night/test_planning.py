"""Planning a night: which dates are listed and what the shop declared; tests/properties has the rest."""

from __future__ import annotations

import csv
from datetime import date

import pytest

from refund.night.fetch import listed_dates, parse_declared


def test_a_night_looks_at_late_days_too() -> None:
    assert listed_dates(date(2026, 3, 1), late_days=2) == [date(2026, 2, 27), date(2026, 2, 28), date(2026, 3, 1)]
    assert listed_dates(date(2026, 3, 1), late_days=0) == [date(2026, 3, 1)]


def test_declarations_are_read_by_refund() -> None:
    body = "\ufeffdeclared_category,refund_id,extra\nshoes,R-1,x\n ,R-2,\nfurniture, R-3 ,\n".encode()
    assert parse_declared(body) == {"R-1": "shoes", "R-3": "furniture"}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"refund,category\nR-1,shoes\n", "it has the columns ['refund', 'category'], expected refund_id and"),
        (b"", "it has the columns none, expected refund_id and declared_category"),
        (b"refund_id,declared_category\nR-1,shoes\nR-1,toys\n", "refund 'R-1' is declared as 'shoes' and as 'toys'"),
        (b"\xff\xfe\x00", "can't decode"),
        (b'refund_id,declared_category\nR-1,"' + b"x" * 140_000, "field larger than field limit"),
    ],
)
def test_broken_declarations_say_what_is_wrong(body: bytes, text: str) -> None:
    with pytest.raises((ValueError, csv.Error)) as caught:
        parse_declared(body)
    assert text in str(caught.value)
