"""Models as a product: immutable versions, promotions and rollbacks, evaluations, audit marks, weekly quality."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL that lies beside this file."""
    sql = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    op.get_bind().exec_driver_sql(sql, execution_options={"no_parameters": True})


def downgrade() -> None:
    """Refuse: going back would drop evaluations and the marks of audited decisions."""
    msg = "there is no way back from 0002 but to restore a backup; it would drop every evaluation and audit mark"
    raise NotImplementedError(msg)
