"""Every router of the desk."""

from __future__ import annotations

from refund.desk import frame

ROUTERS = (frame.router,)
