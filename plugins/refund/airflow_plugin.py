"""The one file that Airflow loads as a plugin; everything else of the package is reached through imports."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin


class RefundPlugin(AirflowPlugin):
    """Registers the package with Airflow, so that its version and origin show under Admin > Plugins.

    The desk adds its app and its navigation entries here.
    """

    name = "refund"
