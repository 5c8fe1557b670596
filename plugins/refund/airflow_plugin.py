"""The one file that Airflow loads as a plugin; everything else of the package is reached through imports."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin


class RefundPlugin(AirflowPlugin):
    """Registers the package with Airflow: the desk below /refund, its entry in the navigation, its tab on the DAG."""

    name = "refund"
    external_views = [  # noqa: RUF012 -- Airflow's own form
        {
            "name": "Refund desk",
            "href": "/refund/tonight",
            "destination": "nav",
            "url_route": "refund-desk",
            "nav_top_level": True,
        },
    ]

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The desk; Airflow's API server alone asks for it, so nothing else imports it."""
        from refund.desk.app import PREFIX, create_app

        return [{"name": "refund desk", "app": create_app(), "url_prefix": PREFIX}]
