"""Alerts that reach somebody: what was sent where, and who took it."""

from __future__ import annotations

from refund.store.migrations import run_sql_beside

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL that lies beside this file."""
    run_sql_beside(__file__)


def downgrade() -> None:
    """Refuse: it would forget who was told of what."""
    msg = "there is no way back from 0005 but to restore a backup; it would forget who was told of what"
    raise NotImplementedError(msg)
