"""Every router of the desk."""

from __future__ import annotations

from refund.desk import (
    alerts,
    api_page,
    classify,
    frame,
    history,
    history_page,
    nights,
    photo,
    picture_routes,
    report_pages,
    review,
    review_page,
    status,
    tonight,
    try_page,
)

ROUTERS = (
    frame.router,
    tonight.router,
    alerts.router,
    report_pages.router,
    classify.router,
    try_page.router,
    picture_routes.router,
    status.router,
    nights.router,
    history.router,
    review.router,
    review_page.router,
    api_page.router,
    history_page.router,
    photo.router,
)
