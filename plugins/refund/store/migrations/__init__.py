"""The refund database's migrations: each is a SQL file, and a script beside it that names its place in the order."""

from __future__ import annotations

from pathlib import Path


def run_sql_beside(script: str) -> None:
    """Run the SQL file of the same name as a migration's script."""
    from alembic import op

    sql = Path(script).with_suffix(".sql").read_text(encoding="utf-8")
    # no_parameters: the SQL has percent signs of its own (format('%I')), which the driver would take for its own
    op.get_bind().exec_driver_sql(sql, execution_options={"no_parameters": True})
