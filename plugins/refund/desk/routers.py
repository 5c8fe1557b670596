"""Every router of the desk."""

from __future__ import annotations

from refund.desk import alerts, classify, frame, picture_routes, report_pages, tonight, try_page

ROUTERS = (
    frame.router,
    tonight.router,
    alerts.router,
    report_pages.router,
    classify.router,
    try_page.router,
    picture_routes.router,
)
