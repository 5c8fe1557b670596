"""How fast and how faulty each stage of a run was."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL that lies beside this file."""
    sql = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().exec_driver_sql(sql, execution_options={"no_parameters": True})


def downgrade() -> None:
    """Refuse: it would drop the measurements of every night."""
    msg = "there is no way back from 0006 but to restore a backup; it would drop the measurements of every night"
    raise NotImplementedError(msg)
