"""``refund model import``, ``promote``, ``rollback`` and what else changes or checks the registry."""
