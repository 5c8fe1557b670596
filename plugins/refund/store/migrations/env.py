"""Alembic's entry point: runs the migrations on the connection that `refund.store.migrate` opened.

It sets up no logging and reads no file: a migration runs inside `refund migrate`, a test or a task, which own both.
"""

from __future__ import annotations

from typing import Any

from alembic import context


def _remember(ctx: Any, step: Any, heads: Any, run_args: Any) -> None:
    context.config.attributes["applied"].extend(step.up_revision_ids)


context.configure(
    connection=context.config.attributes["connection"],
    version_table_schema="refund",
    on_version_apply=_remember,
)
with context.begin_transaction():
    context.run_migrations()
