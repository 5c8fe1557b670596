"""The refund desk: photos tried by hand, and who looks at which photo of the review queue."""

from __future__ import annotations

from refund.store.migrations import run_sql_beside

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL that lies beside this file."""
    run_sql_beside(__file__)


def downgrade() -> None:
    """Refuse: it would drop what people tried."""
    msg = "there is no way back from 0007 but to restore a backup; it would drop what people tried"
    raise NotImplementedError(msg)
