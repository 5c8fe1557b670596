"""How fast and how faulty each stage of a run was."""

from __future__ import annotations

from refund.store.migrations import run_sql_beside

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL that lies beside this file."""
    run_sql_beside(__file__)


def downgrade() -> None:
    """Refuse: it would drop the measurements of every night."""
    msg = "there is no way back from 0006 but to restore a backup; it would drop the measurements of every night"
    raise NotImplementedError(msg)
