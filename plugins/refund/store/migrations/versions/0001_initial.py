"""The data model of the first release; its SQL lies beside this file."""

from __future__ import annotations

from refund.store.migrations import run_sql_beside

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make schemas, tables, views, comments and rights."""
    run_sql_beside(__file__)


def downgrade() -> None:
    """Refuse: going back would drop every photo's history."""
    msg = "there is no way back from 0001 but to restore a backup; it would drop the history of every photo"
    raise NotImplementedError(msg)
