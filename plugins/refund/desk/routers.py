"""Every router of the desk."""

from __future__ import annotations

from refund.desk import classify, frame, picture_routes, try_page

ROUTERS = (
    frame.router,
    classify.router,
    try_page.router,
    picture_routes.router,
)
