"""Alerts that reach somebody: what was sent where, and who took it."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL that lies beside this file."""
    sql = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().exec_driver_sql(sql, execution_options={"no_parameters": True})


def downgrade() -> None:
    """Refuse: it would forget who was told of what."""
    msg = "there is no way back from 0005 but to restore a backup; it would forget who was told of what"
    raise NotImplementedError(msg)
