"""What analysts read: made-up nights told apart, drift with its floor and false-alarm rate, exports."""

from __future__ import annotations

from refund.store.migrations import run_sql_beside

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL that lies beside this file."""
    run_sql_beside(__file__)


def downgrade() -> None:
    """Refuse: it would mix made-up nights with real ones."""
    msg = "there is no way back from 0004 but to restore a backup; it would mix made-up nights with real ones"
    raise NotImplementedError(msg)
