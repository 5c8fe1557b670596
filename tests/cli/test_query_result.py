"""The answers of refund sql in consoles of every width: no name or value is crushed."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from refund.cli.query_result import QueryResult

NAMES = [f"a_rather_long_column_{number}" for number in range(20)]
VALUES = [f"value {number}" for number in range(20)]


def printed(result: QueryResult, *, width: int, terminal: bool) -> list[str]:
    """As the command line's console prints it."""
    file = io.StringIO()
    console = Console(
        file=file, width=width, force_terminal=terminal, color_system=None, soft_wrap=True, markup=False,
        emoji=False, highlight=False,
    )  # fmt: skip
    console.print(result)
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue()).splitlines()]


def test_a_table_that_fits_stays_a_table() -> None:
    lines = printed(QueryResult(columns=["category", "photos"], rows=[["shoes", 7]]), width=80, terminal=True)
    assert lines == ["category  photos", "shoes     7"]


def test_a_table_too_wide_for_the_terminal_becomes_one_record_below_the_other() -> None:
    lines = printed(QueryResult(columns=NAMES, rows=[VALUES, VALUES]), width=60, terminal=True)
    assert lines == [
        line
        for number in (1, 2)
        for line in (f"─ {number} ─", *(f"{n:23}  {v}" for n, v in zip(NAMES, VALUES, strict=True)))
    ]


def test_a_long_value_is_folded_beside_its_name() -> None:
    lines = printed(QueryResult(columns=["key", "n"], rows=[["x" * 100, None]]), width=40, terminal=True)
    assert lines == ["─ 1 ─", f"key  {'x' * 35}", f"     {'x' * 35}", f"     {'x' * 30}", "n"]


@pytest.mark.parametrize("rows", [[], [VALUES]])
def test_into_a_pipe_a_row_is_a_line_of_any_length(rows: list[list[str]]) -> None:
    lines = printed(QueryResult(columns=NAMES, rows=rows), width=200, terminal=False)
    assert [re.split(r"  +", line) for line in lines] == [NAMES, *rows]


def test_without_rows_a_narrow_terminal_shows_every_name_whole() -> None:
    lines = printed(QueryResult(columns=NAMES, rows=[]), width=60, terminal=True)
    assert lines == [*NAMES, "(0 rows)"]
