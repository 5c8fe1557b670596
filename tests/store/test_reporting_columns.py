"""What analysts rely on: names and order of the columns of schema reporting, comments on everything, the dictionary."""

from __future__ import annotations

from itertools import groupby

from tests.conftest import REPOSITORY, Roles
from tests.store.dictionary_page import PAGE, page
from tests.store.factories import rows

PINNED = REPOSITORY / "tests" / "store" / "reporting_columns.txt"

COLUMNS = """
SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relnamespace = 'reporting'::regnamespace AND a.attnum > 0 ORDER BY c.relname, a.attnum
"""

UNCOMMENTED = """
SELECT 'schema', nspname FROM pg_namespace
WHERE nspname IN ('refund', 'reporting') AND obj_description(oid, 'pg_namespace') IS NULL
UNION ALL
SELECT 'table or view', relname FROM pg_class
WHERE relnamespace IN ('refund'::regnamespace, 'reporting'::regnamespace) AND relkind IN ('r', 'p', 'v', 'm', 'f')
  AND NOT relispartition AND COALESCE(obj_description(oid, 'pg_class'), '') = ''
UNION ALL
SELECT 'column', c.relname || '.' || a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relnamespace IN ('refund'::regnamespace, 'reporting'::regnamespace) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped
  AND COALESCE(col_description(c.oid, a.attnum), '') = ''
UNION ALL
SELECT 'function', proname FROM pg_proc
WHERE pronamespace IN ('refund'::regnamespace, 'reporting'::regnamespace) AND obj_description(oid, 'pg_proc') IS NULL
"""


def pinned() -> dict[str, list[str]]:
    """The columns of every view as they were released: `view: column column …`, one view a paragraph."""
    paragraphs = PINNED.read_text(encoding="utf-8").split("\n\n")
    named = (paragraph.split(":", maxsplit=1) for paragraph in paragraphs)
    return {view.strip(): columns.split() for view, columns in named}


def test_columns_that_analysts_know_stay_where_they_are_and_new_ones_come_at_the_end(database: Roles) -> None:
    found = {
        view: [column for _, column in group]
        for view, group in groupby(rows(database.owner, COLUMNS), key=lambda row: row[0])
    }
    known = pinned()
    assert {view: found.get(view, [])[: len(columns)] for view, columns in known.items()} == known, (
        "a view or column was renamed, moved or taken away"
    )
    added = {view: columns[len(known.get(view, [])) :] for view, columns in found.items()}
    assert {view: columns for view, columns in added.items() if columns} == {}, f"append these to {PINNED.name}"


def test_everything_has_a_comment(database: Roles) -> None:
    assert rows(database.owner, UNCOMMENTED) == []


def test_the_data_dictionary_is_written_from_the_database(database: Roles) -> None:
    text = page(database.owner)
    assert PAGE.read_text(encoding="utf-8") == text, "run: python -m tests.store.dictionary_page"
    for view, columns in pinned().items():
        section = text.split(f"### reporting.{view}\n")[1].split("\n### ")[0]
        assert [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")] == columns


def test_views_of_nights_say_whether_the_night_is_made_up() -> None:
    """What people work through, and what is counted of people's work, leaves made-up nights out instead."""
    without = {view for view, columns in pinned().items() if "synthetic" not in columns}
    assert without == {
        "audit_queue", "evaluations", "last_complete_night", "model_accuracy", "model_quality", "review_queue",
        "trials",
    }  # fmt: skip
