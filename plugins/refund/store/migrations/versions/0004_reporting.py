"""What analysts read: made-up nights told apart, drift with its floor and false-alarm rate, exports."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL that lies beside this file."""
    sql = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().exec_driver_sql(sql, execution_options={"no_parameters": True})


def downgrade() -> None:
    """Refuse: it would mix made-up nights with real ones."""
    msg = "there is no way back from 0004 but to restore a backup; it would mix made-up nights with real ones"
    raise NotImplementedError(msg)
