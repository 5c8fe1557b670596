"""Arrow to COPY text: any value comes back from Postgres as it went in."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

import psycopg2
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from refund.errors import FatalRunError
from refund.store import copy_text as copy_module
from refund.store.copy_text import copy_rows, copy_text
from tests.conftest import Roles

SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("labels", pa.list_(pa.string())),
        ("day", pa.date32()),
        ("count", pa.int64()),
        ("ratio", pa.float32()),
    ]
)
ANY_TEXT = st.text(max_size=12) | st.text(
    st.sampled_from("\\N\n\r\t\b\f\v\0.,\"'{} é\u2028\u202e\U0010ffff"), max_size=8
)
ROW = st.fixed_dictionaries(
    {
        "name": st.none() | ANY_TEXT,
        "labels": st.none() | st.lists(st.none() | ANY_TEXT, max_size=3),
        "day": st.none() | st.dates(),
        "count": st.none() | st.integers(-(2**63), 2**63 - 1),
        "ratio": st.none() | st.floats(width=32, allow_nan=False),
    }
)
EMPTY: dict[str, Any] = dict.fromkeys(SCHEMA.names)


@pytest.fixture(scope="module")
def cursor(postgres: Roles) -> Iterator[Any]:
    admin = postgres.admin
    connection = psycopg2.connect(
        host=admin.host, port=admin.port, user=admin.user, password=admin.password, dbname=admin.database
    )
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TEMP TABLE t (place serial, name text, labels text[], day date, count bigint, ratio real)"
        )
        yield cursor
    connection.close()


def text_of(table: pa.Table) -> str:
    text: bytes = copy_text(table, table.schema.names).to_pybytes()
    return text.decode()


def stored(value: Any) -> Any:
    """The value as Postgres can hold it: without NUL."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, list):
        return [stored(item) for item in value]
    return {name: stored(item) for name, item in value.items()} if isinstance(value, dict) else value


@given(rows=st.lists(ROW, max_size=6), start=st.integers(0, 2))
@example(rows=[{**EMPTY, "name": "a\n\\.\nb"}, {**EMPTY, "name": "\\N"}, {**EMPTY, "name": ""}], start=0)
@example(rows=[{**EMPTY, "name": "\0\\0\\", "labels": ["\0", "\\\0", "{\t}"]}, {**EMPTY, "name": "\\."}], start=0)
@example(rows=[{**EMPTY, "labels": []}, {**EMPTY, "labels": [None, "NULL", ""]}, {**EMPTY, "labels": ['"\\']}], start=1)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_every_value_comes_back_as_it_went_in(cursor: Any, rows: list[dict[str, Any]], start: int) -> None:
    table = pa.Table.from_pylist(rows, schema=SCHEMA).slice(start)  # slices keep their parent's buffers
    cursor.execute("TRUNCATE t")
    copy_rows(cursor, "t", table, SCHEMA.names)
    cursor.execute("SELECT name, labels, day, count, ratio::float8 FROM t ORDER BY place")
    found = [dict(zip(SCHEMA.names, row, strict=True)) for row in cursor.fetchall()]
    assert found == [stored(row) for row in rows[start:]]


def test_what_the_text_looks_like() -> None:
    row = {"name": "a\tb\\c\nd", "labels": ["dark", 'say "hi"'], "day": date(2026, 1, 2), "count": -5, "ratio": 0.25}
    text = text_of(pa.Table.from_pylist([row, EMPTY], schema=SCHEMA))
    quoted = r'{"dark","say \\"hi\\""}'  # the array's own backslashes are escaped once more
    assert text == f"a\\tb\\\\c\\nd\t{quoted}\t2026-01-02\t-5\t0.25\n" + "\t".join(["\\N"] * 5) + "\n"


def test_nul_which_postgres_cannot_store_becomes_the_replacement_character() -> None:
    assert text_of(pa.table({"name": ["a\0b"]})) == "a\ufffdb\n"


def test_a_lone_surrogate_never_gets_this_far() -> None:
    """Arrow holds UTF-8: what is no text is refused when the staged file is written."""
    with pytest.raises(UnicodeEncodeError, match="surrogates not allowed"):
        pa.table({"name": ["a\ud800b"]})


def test_no_rows_are_no_text() -> None:
    assert text_of(SCHEMA.empty_table()) == ""


def test_what_is_copied_is_utf8_whatever_the_connection_speaks(cursor: Any) -> None:
    cursor.execute("TRUNCATE t")
    cursor.execute("SET LOCAL client_encoding = 'LATIN1'")
    copy_rows(cursor, "t", pa.table({"name": ["crêpe"]}), ["name"])
    cursor.execute("RESET client_encoding; SELECT name FROM t")
    assert cursor.fetchall() == [("crêpe",)]


def test_a_large_table_is_copied_whole_and_in_order(cursor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy_module, "_ROWS_AT_ONCE", 3)
    monkeypatch.setattr(copy_module, "_READ_BYTES", 7)
    cursor.execute("TRUNCATE t")
    copy_rows(cursor, "t", pa.table({"count": range(10), "name": [f"ü{row}" for row in range(10)]}), ["name", "count"])
    cursor.execute("SELECT name, count FROM t ORDER BY place")
    assert cursor.fetchall() == [(f"ü{row}", row) for row in range(10)]


def test_a_row_without_text_is_an_error_and_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """No value that is known makes one; here the column's text is taken from it as a fault of pyarrow would."""
    field = copy_module._field
    monkeypatch.setattr(
        copy_module, "_field", lambda values: values if pa.types.is_large_string(values.type) else field(values)
    )
    table = pa.table({"name": pa.array(["a", None], pa.large_string()), "count": [1, 2]})
    text = "1 of 2 rows have no text for COPY, because of name; nothing was written. Report it with the versions of "
    with pytest.raises(FatalRunError, match=text):
        copy_text(table, ["name", "count"])
