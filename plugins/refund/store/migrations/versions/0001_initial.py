"""The data model of the first release; its SQL lies beside this file."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make schemas, tables, views, comments and rights."""
    sql = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    # no_parameters: the script has percent signs of its own (format('%I')), which the driver would take for its own
    op.get_bind().exec_driver_sql(sql, execution_options={"no_parameters": True})


def downgrade() -> None:
    """Refuse: going back would drop every photo's history."""
    msg = "there is no way back from 0001 but to restore a backup; it would drop the history of every photo"
    raise NotImplementedError(msg)
