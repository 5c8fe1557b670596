"""The one file that Airflow loads as a plugin; everything else of the package is reached through imports."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin

log = logging.getLogger(__name__)


class RefundPlugin(AirflowPlugin):
    """Registers the package with Airflow: the desk below /refund, its entry in the navigation, its tab on the DAG."""

    name = "refund"
    # Addresses have no slash in front: Airflow's page resolves them against its own root, which may lie below a path
    # ([api] base_url). Each `url_route` makes Airflow show the page in an iframe of its own.
    external_views = [  # noqa: RUF012 -- Airflow's own form
        {
            "name": "Refund desk",
            "href": "refund/tonight",
            "destination": "nav",
            "url_route": "refund-desk",
            "icon": "refund/static/icon.svg",
            "nav_top_level": True,
        },
        {  # Airflow has no way to say "of this DAG alone": the tab stands on every DAG, and the page tells them apart
            "name": "Refund desk",
            "href": "refund/dag/{DAG_ID}",
            "destination": "dag",
            "url_route": "refund-night",
            "icon": "refund/static/icon.svg",
        },
    ]

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The desk; Airflow's API server alone asks for it, so nothing else imports it."""
        try:
            from refund.desk.app import PREFIX, create_app

            return [{"name": "refund desk", "app": create_app(), "url_prefix": PREFIX}]
        except Exception:  # or Airflow's own server would not start, and no night could run
            log.exception("The refund desk cannot be made; Airflow goes on without it")
            return []
