"""Quick reports: what waits for a person is found without a look at what was reviewed long ago."""

from __future__ import annotations

from refund.store.migrations import run_sql_beside

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL that lies beside this file."""
    run_sql_beside(__file__)


def downgrade() -> None:
    """Refuse: earlier releases work with the mark too, only a backup takes it away."""
    msg = "there is no way back from 0009 but to restore a backup; earlier releases work with its columns as they are"
    raise NotImplementedError(msg)
