"""Exactly one verdict: the order of runs without a clock, counts of every stage, rejections put back."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL that lies beside this file."""
    sql = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().exec_driver_sql(sql, execution_options={"no_parameters": True})


def downgrade() -> None:
    """Refuse: going back would forget which rejections were put back."""
    msg = "there is no way back from 0003 but to restore a backup; it would forget which rejections were requeued"
    raise NotImplementedError(msg)
