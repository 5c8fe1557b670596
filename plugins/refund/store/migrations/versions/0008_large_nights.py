"""Large nights: indexes from which a night is counted without a look at its rows."""

from __future__ import annotations

from refund.store.migrations import run_sql_beside

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL that lies beside this file."""
    run_sql_beside(__file__)


def downgrade() -> None:
    """Refuse: earlier releases work with these indexes too, only a backup brings the old ones back."""
    msg = "there is no way back from 0008 but to restore a backup; earlier releases work with its indexes as they are"
    raise NotImplementedError(msg)
