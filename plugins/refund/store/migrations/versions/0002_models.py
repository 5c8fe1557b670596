"""Models as a product: immutable versions, promotions and rollbacks, evaluations, audit marks, weekly quality."""

from __future__ import annotations

from refund.store.migrations import run_sql_beside

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL that lies beside this file."""
    run_sql_beside(__file__)


def downgrade() -> None:
    """Refuse: going back would drop evaluations and the marks of audited decisions."""
    msg = "there is no way back from 0002 but to restore a backup; it would drop every evaluation and audit mark"
    raise NotImplementedError(msg)
