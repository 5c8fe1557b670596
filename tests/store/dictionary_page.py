"""Writes docs/data_dictionary.md from a migrated database's comments: ``python -m tests.store.dictionary_page``."""

from __future__ import annotations

import sys
from itertools import groupby
from typing import Any

from refund.settings import DatabaseAccess
from refund.store.database import Database
from tests.conftest import REPOSITORY

PAGE = REPOSITORY / "docs" / "data_dictionary.md"

SCHEMAS = """
SELECT nspname, obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname IN ('reporting', 'refund')
ORDER BY nspname = 'refund'
"""

# Partitions are their parents' rows; ordinary tables come before views only where a schema has both.
COLUMNS = """
SELECT n.nspname, c.relname, c.relkind::text, obj_description(c.oid, 'pg_class'), a.attname,
       format_type(a.atttypid, a.atttypmod), col_description(c.oid, a.attnum),
       a.attnotnull AND c.relkind <> 'v',
       (SELECT array_position(i.indkey::smallint[], a.attnum) FROM pg_index i
        WHERE i.indrelid = c.oid AND i.indisprimary)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE n.nspname IN ('reporting', 'refund') AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
ORDER BY n.nspname = 'refund', c.relname, a.attnum
"""

FUNCTIONS = """
SELECT format('refund.%s(%s)', p.proname, pg_get_function_identity_arguments(p.oid)),
       pg_get_function_result(p.oid), obj_description(p.oid, 'pg_proc')
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname IN ('reporting', 'refund') ORDER BY 1
"""

HEAD = """\
# Data dictionary

Every view, table and column, with the comment that Postgres keeps of it. Written from the database by
`python -m tests.store.dictionary_page`; a test holds it current. Analysts read the views of schema
[`reporting`](#schema-reporting) alone ([for analysts](analysts.md)); the tables of schema [`refund`](#schema-refund)
are the night's own.
"""


def page(access: DatabaseAccess) -> str:
    """The page of the database that ``access`` reaches; any role that may connect sees comments."""
    with Database(access).connect(readonly=True) as connection, connection.cursor() as cursor:

        def rows(statement: str) -> list[tuple[Any, ...]]:
            cursor.execute(statement)
            return list(cursor.fetchall())

        schemas, columns, functions = rows(SCHEMAS), rows(COLUMNS), rows(FUNCTIONS)
    lines = [HEAD]
    for schema, comment in schemas:
        lines += [f"## Schema {schema}", "", _cell(comment), ""]
        mine = [row[1:] for row in columns if row[0] == schema]
        for name, group in groupby(mine, key=lambda row: row[0]):
            lines += _relation(schema, name, list(group))
    lines += ["## Functions", "", "| function | returns | what |", "|---|---|---|"]
    lines += [f"| `{name}` | `{result}` | {_cell(comment)} |" for name, result, comment in functions]
    return "\n".join(lines) + "\n"


def _relation(schema: str, name: str, columns: list[tuple[Any, ...]]) -> list[str]:
    _, kind, comment, *_ = columns[0]
    is_view = kind == "v"
    partitioned = " Partitioned by month of `photo_date`." if kind == "p" else ""
    lines = [f"### {schema}.{name}", "", f"{_cell(comment)}{partitioned}", ""]
    lines += ["| column | type | what |" if is_view else "| column | type | null | what |"]
    lines += ["|---|---|---|" if is_view else "|---|---|---|---|"]
    for _, _, _, column, type_, what, not_null, key in columns:
        nullable = "" if is_view else f" {'no' if not_null else 'yes'} |"
        marked = f"`{column}`" + ("" if key is None else " (key)")
        lines.append(f"| {marked} | `{type_}` |{nullable} {_cell(what)} |")
    return [*lines, ""]


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|")


if __name__ == "__main__":
    from refund.store.migrate import migrate
    from tests.conftest import fresh_database
    from tests.postgres import cluster

    with cluster() as server, fresh_database(server.roles) as roles:
        migrate(roles.owner)
        PAGE.write_text(page(roles.owner), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE.name}\n")
