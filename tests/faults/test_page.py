"""The page of faults says what the tests do, and nothing else."""

from __future__ import annotations

from tests.faults.catalogue import faults
from tests.faults.page import PAGE, written


def test_the_page_is_written_from_the_tests() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == written(text), "run: python -m tests.faults.page"


def test_every_fault_is_told_once() -> None:
    told = [(fault.part, fault.what) for fault in faults()]
    assert len(told) == len(set(told)) > 0
