"""The environment that the local Airflow runs in: every setting of it, in one place."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from refund.local.credentials import AIRFLOW_USERS, StackCredentials
from refund.local.observability import observability_environ
from refund.local.paths import StackPaths
from refund.local.ports import HOST, Ports
from refund.local.preload import preload_environ
from refund.local.processes import MARK
from refund.local.s3 import BUCKET, REGION

# What services take over from the shell that they were started in. A list of what must not leak in would never be
# complete: shells hold tokens of all sorts, and the environment of tasks is a file on disk.
_KEPT = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR",
     "REQUESTS_CA_BUNDLE"}
)  # fmt: skip
# Where alerts go; at the deadline Airflow lets its callback read connections from here alone (docs/alerts.md).
_CHANNELS = frozenset({"AIRFLOW_CONN_REFUND_SMTP", "AIRFLOW_CONN_REFUND_SLACK", "AIRFLOW_CONN_REFUND_APPRISE"})


def airflow_environ(
    *,
    paths: StackPaths,
    ports: Ports,
    credentials: StackCredentials,
    dags_folder: Path,
    base: Mapping[str, str],
    cores: int | None = None,
) -> dict[str, str]:
    """Build the environment of Airflow's processes and, through them, of every task.

    Args:
        paths: The stack's folders.
        ports: Its ports.
        credentials: Its passwords and keys; they stand in the result in clear.
        dags_folder: Where the DAG files lie.
        base: The caller's environment, of which paths, language, proxies, certificates and an operator's ``REFUND_*``
            settings pass, and nothing else.
        cores: How many tasks may run side by side at least; None asks the system.

    Raises:
        SettingsError: ``REFUND_METRICS`` or ``REFUND_LINEAGE`` is none of its forms.
    """
    cores = cores or os.cpu_count() or 1
    login = f"airflow:{credentials.postgres_airflow}@{HOST}:{ports.postgres}/airflow"
    address = f"http://{HOST}:{ports.airflow}"
    kept = {name: value for name, value in base.items() if _passes(name)}
    kept |= observability_environ(base, home=paths.home)
    return kept | {
        MARK: paths.stack_id,
        "NO_PROXY": f"{HOST},localhost",  # a company proxy must not be asked for loopback
        "no_proxy": f"{HOST},localhost",
        "AIRFLOW_HOME": str(paths.airflow),
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": str(max(4, 2 * cores)),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags_folder),
        # The package is installed and registers its plugin by entry point; a plugins folder would register it twice.
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(paths.airflow / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
        "AIRFLOW__CORE__DEFAULT_TIMEZONE": "utc",
        "AIRFLOW__CORE__FERNET_KEY": credentials.airflow_fernet_key,
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{address}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{name}:{role}" for name, role in AIRFLOW_USERS.items()),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(paths.run / "airflow_passwords.json"),
        # SQLAlchemy 2.1 reads a bare postgresql:// as psycopg 3
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{login}",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": f"postgresql+asyncpg://{login}",
        "AIRFLOW__API__BASE_URL": address,
        "AIRFLOW__API__HOST": HOST,
        "AIRFLOW__API__PORT": str(ports.airflow),
        "AIRFLOW__API__SECRET_KEY": credentials.airflow_secret_key,
        "AIRFLOW__API_AUTH__JWT_SECRET": credentials.airflow_jwt_secret,
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(paths.airflow / "logs"),
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",  # 0.18 s instead of 1.0 s between two tasks
        # A task asks an API server that does not answer for about 140 s instead of 9, by when one that was killed or
        # restarted is back. Between two questions lie 1 to 5 s, at random.
        "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "50",
        "AIRFLOW__WORKERS__EXECUTION_API_RETRY_WAIT_MAX": "5",
        # The first request that a new API server answers took 54 s at a load of ten a core; each given up after
        # 5 s only adds to its work.
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "30",
        **preload_environ(sys.platform),
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "AIRFLOW_CONN_REFUND_S3": json.dumps(
            {
                "conn_type": "aws",
                "login": credentials.s3_access_key,
                "password": credentials.s3_secret_key,
                "extra": {
                    "endpoint_url": f"http://{HOST}:{ports.s3}",
                    "region_name": REGION,
                    "service_config": {"s3": {"bucket_name": BUCKET}},
                },
            }
        ),
        "AIRFLOW_CONN_REFUND_DB": json.dumps(
            {
                "conn_type": "postgres",
                "host": HOST,
                "port": ports.postgres,
                "schema": "refund",
                "login": "refund_app",
                "password": credentials.postgres_app,
                "extra": {"sslmode": "prefer"},
            }
        ),
        "REFUND_HOME": str(paths.home),
        "REFUND_STAGING_ROOT": paths.staging.as_uri(),
        "REFUND_CACHE_DIR": str(paths.cache),
        "REFUND_REPORT_DIR": str(paths.reports),
    }


def _passes(name: str) -> bool:
    if name.startswith("REFUND_"):
        return not name.startswith("REFUND_PORT_")
    return name in _KEPT or name in _CHANNELS or name.startswith("LC_") or name.lower().endswith("_proxy")
