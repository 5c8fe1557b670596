r"""Turns Arrow tables into the text that Postgres's COPY reads, column by column.

The text format, not CSV: CSV ends the data at a line ``\.`` on servers before 18, even inside quotes, and keys may hold
anything. In the text format a backslash, tab or line break is escaped and NULL is ``\N``, so no value can look like
the frame around it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from refund.errors import FatalRunError

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS_AT_ONCE = 10_000  # 20 MB of predictions
_READ_BYTES = 1 << 20  # that the driver asks for at once; by default it makes do with 8 kB, five rows
# the order matters: the backslash first, or the others' escapes would be escaped again
_ESCAPES = (("\\", "\\\\"), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t"))


def copy_rows(cursor: Any, target: str, table: pa.Table, columns: Sequence[str]) -> None:
    """Append the rows of ``table`` to the table ``target``, ``columns`` in that order, by COPY.

    No row becomes a Python object, and of a large table no more than `_ROWS_AT_ONCE` rows are text at a time. Names of
    table and columns are ours, never a caller's text.
    """
    import pyarrow as pa

    statement = f"COPY {target} ({', '.join(columns)}) FROM STDIN (ENCODING 'UTF8')"
    for start in range(0, table.num_rows, _ROWS_AT_ONCE):
        text = copy_text(table.slice(start, _ROWS_AT_ONCE), columns)
        cursor.copy_expert(statement, pa.BufferReader(text), size=_READ_BYTES)


def copy_text(table: pa.Table, columns: Sequence[str]) -> pa.Buffer:
    """The rows of ``table`` as COPY text in UTF-8, a line each, with ``columns`` in that order.

    Texts, numbers, dates and lists of texts (as Postgres arrays) are understood. A NUL character, which Postgres cannot
    store, becomes U+FFFD.

    Raises:
        FatalRunError: a row has no text; COPY would pass over it without a word.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if table.num_rows == 0:
        return pa.py_buffer(b"")
    *fields, last = texts = [_field(table.column(name).combine_chunks()) for name in columns]
    ended = pc.binary_join_element_wise(last, pa.scalar("\n", pa.large_string()), pa.scalar("", pa.large_string()))
    lines = pc.binary_join_element_wise(*fields, ended, pa.scalar("\t", pa.large_string()))
    if lines.null_count:
        nulls = [name for name, field in zip(columns, texts, strict=True) if field.null_count]
        msg = (
            f"{lines.null_count} of {table.num_rows} rows have no text for COPY, because of {', '.join(nulls)}; "
            f"nothing was written. Report it with the versions of pyarrow and of this package"
        )
        raise FatalRunError(msg)
    # an Arrow column of texts is one text and the places where each ends: the lines are joined already
    _, ends, text = lines.buffers()
    first, beyond = (
        int.from_bytes(ends[8 * at : 8 * at + 8], sys.byteorder) for at in (lines.offset, lines.offset + len(lines))
    )
    return text.slice(first, beyond - first)


def _field(values: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_list(values.type):
        values = _array_literal(values)
    texts = pc.cast(values, pa.large_string())
    if pa.types.is_large_string(values.type) or pa.types.is_string(values.type):
        texts = pc.replace_substring(texts, "\0", "\ufffd")
        for character, escape in _ESCAPES:
            texts = pc.replace_substring(texts, character, escape)
    return pc.fill_null(texts, "\\N")


def _array_literal(lists: pa.ListArray) -> pa.Array:
    """``["a", null]`` as ``{"a",NULL}``; a null list stays null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    items = pc.cast(lists.flatten(), pa.large_string())  # flatten, unlike .values, honours slices and null lists
    for character, escape in (("\\", "\\\\"), ('"', '\\"')):
        items = pc.replace_substring(items, character, escape)
    quote = pa.scalar('"', pa.large_string())
    items = pc.fill_null(pc.binary_join_element_wise(quote, items, quote, pa.scalar("", pa.large_string())), "NULL")
    lengths = pc.fill_null(pc.list_value_length(lists), 0)
    offsets = pa.concat_arrays([pa.array([0], pa.int64()), pc.cast(pc.cumulative_sum(lengths), pa.int64())])
    joined = pc.binary_join(pa.LargeListArray.from_arrays(offsets, items), pa.scalar(",", pa.large_string()))
    empty = pa.scalar("", pa.large_string())
    braced = pc.binary_join_element_wise(
        pa.scalar("{", pa.large_string()), joined, pa.scalar("}", pa.large_string()), empty
    )
    return pc.if_else(pc.is_valid(lists), braced, pa.scalar(None, pa.large_string()))
