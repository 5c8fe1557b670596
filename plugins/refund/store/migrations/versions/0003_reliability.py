"""Exactly one verdict: the order of runs without a clock, counts of every stage, rejections put back."""

from __future__ import annotations

from refund.store.migrations import run_sql_beside

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL that lies beside this file."""
    run_sql_beside(__file__)


def downgrade() -> None:
    """Refuse: going back would forget which rejections were put back."""
    msg = "there is no way back from 0003 but to restore a backup; it would forget which rejections were requeued"
    raise NotImplementedError(msg)
