"""Airflow's four processes on a laptop: database migration, programs, health, the inference pool."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from refund.errors import StackError
from refund.local.credentials import StackCredentials, write_private
from refund.local.paths import StackPaths
from refund.local.ports import HOST
from refund.local.supervisor import Program
from refund.night.room import HEAVY_TASKS_AT_ONCE

INFERENCE_POOL = "refund_inference"
# One task uses all cores while it works, but none while it starts, waits for S3 or writes: two fill each other's gaps.
INFERENCE_SLOTS = HEAVY_TASKS_AT_ONCE
POOL_DESCRIPTION = "Validate and classify: two at once, so that no core idles while one of them starts or waits."
_EARLIER_POOL = {"slots": 1, "description": "Tasks that keep all cores busy."}  # as earlier versions made it
SERVICES = {  # our name: what follows `airflow`
    "api-server": ("api-server", "--host", HOST, "--workers", "1", "--port", "{port}"),
    "scheduler": ("scheduler", "--skip-serve-logs"),  # its log server would listen on every address
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}
_MIGRATION_TIMEOUT_S = 600.0  # it takes ten seconds
_HEALTH_NAMES = {"scheduler": "scheduler", "dag-processor": "dag_processor", "triggerer": "triggerer"}


def airflow_version() -> str:
    """The installed version, without importing Airflow (2 s)."""
    from importlib.metadata import version

    return version("apache-airflow")


def write_passwords(paths: StackPaths, credentials: StackCredentials) -> None:
    """Write the login file that Airflow's simple auth manager reads."""
    write_private(paths.run / "airflow_passwords.json", json.dumps(credentials.airflow_passwords) + "\n")


def programs(paths: StackPaths, *, port: int, environ: Mapping[str, str]) -> list[Program]:
    """Describe the four services; their environment, secrets in it, goes through a file of mode 0600."""
    environment_file = _environment_file(paths)
    write_private(environment_file, json.dumps(dict(environ)))
    launcher = Path(__file__).with_name("launch.py")
    start = [sys.executable, "-I", str(launcher), str(environment_file), sys.executable, "-m", "airflow"]
    return [
        Program(
            name=name,
            command=[*start, *(argument.format(port=port) for argument in arguments)],
            folder=paths.airflow,
        )
        for name, arguments in SERVICES.items()
    ]


def forget_environment(paths: StackPaths) -> None:
    """Remove the file with the services' environment; the next start writes it anew."""
    _environment_file(paths).unlink(missing_ok=True)


def _environment_file(paths: StackPaths) -> Path:
    return paths.run / "airflow_environment.json"


def migrate_database(paths: StackPaths, *, environ: Mapping[str, str]) -> None:
    """Bring Airflow's own database to the installed version; safe to repeat.

    Raises:
        StackError: the migration failed or took too long; the text has its last lines.
    """
    log = paths.log("airflow-db-migrate")
    try:
        with log.open("wb") as output:
            outcome = subprocess.run(
                [sys.executable, "-m", "airflow", "db", "migrate"],
                # the connection that holds the migrations' lock says nothing while another one migrates
                env=dict(environ) | {"PGOPTIONS": "-c idle_in_transaction_session_timeout=0"},
                cwd=paths.airflow,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
                timeout=_MIGRATION_TIMEOUT_S,
            )
    except subprocess.TimeoutExpired as exc:
        msg = (
            f"airflow db migrate did not end within {_MIGRATION_TIMEOUT_S:.0f} s; run refund down and refund up again; "
            f"last lines of {log}:\n{last_lines(log)}"
        )
        raise StackError(msg) from exc
    if outcome.returncode != 0:
        msg = f"airflow db migrate failed with exit code {outcome.returncode}; last lines of {log}:\n{last_lines(log)}"
        raise StackError(msg)


def unhealthy(*, port: int, since: datetime | None) -> dict[str, str]:
    """Ask Airflow for its health; what is not well, by service, with why.

    Args:
        port: Of the API server.
        since: Heartbeats before this moment do not count: after a crash the database remembers those of the dead.
            None: any heartbeat that Airflow itself still calls healthy counts.
    """
    try:
        status, answer = _call("GET", "/api/v2/monitor/health", port=port)
    except (OSError, http.client.HTTPException) as exc:
        return {"api-server": f"does not answer on {HOST}:{port} ({exc})"}
    if status != http.client.OK or not isinstance(answer, dict):
        return {"api-server": f"answers {status} to the health request"}
    ill = {}
    for service, name in _HEALTH_NAMES.items():
        found = answer.get(name) or {}
        beat = found.get(f"latest_{name}_heartbeat")
        if found.get("status") != "healthy":
            ill[service] = f"reports {found.get('status') or 'nothing yet'}"
        elif since is not None and (beat is None or datetime.fromisoformat(beat) < since):
            ill[service] = "has not reported since it was started"
    return ill


def ensure_pool(*, port: int, credentials: StackCredentials) -> None:
    """Make the pool that inference tasks take slots from.

    One that is there keeps its size, but for one exactly as earlier versions made it, with a single slot: that one is
    given as many as a new one. Its description changes too, so whoever then sets it back to one slot is not overruled.

    Raises:
        StackError: Airflow refuses.
    """
    try:
        status, answer = _ensure_pool(port=port, credentials=credentials)
    except (OSError, http.client.HTTPException) as exc:
        status, answer = 0, str(exc)
    if status not in (http.client.OK, http.client.CREATED):
        msg = f"Airflow did not make the pool {INFERENCE_POOL}: answer {status} {str(answer)[:300]}"
        raise StackError(msg)


def _ensure_pool(*, port: int, credentials: StackCredentials) -> tuple[int, Any]:
    """Airflow's last answer: 200 or 201 if the pool is as it should be."""
    login = {"username": "admin", "password": credentials.airflow_passwords["admin"]}
    status, answer = _call("POST", "/auth/token", port=port, body=login)
    if status not in (http.client.OK, http.client.CREATED):
        return status, answer
    token, wanted = answer["access_token"], {"slots": INFERENCE_SLOTS, "description": POOL_DESCRIPTION}
    status, answer = _call("POST", "/api/v2/pools", port=port, body={"name": INFERENCE_POOL, **wanted}, token=token)
    if status != http.client.CONFLICT:
        return status, answer
    address = f"/api/v2/pools/{INFERENCE_POOL}"
    status, answer = _call("GET", address, port=port, token=token)
    if status != http.client.OK or any(answer.get(name) != value for name, value in _EARLIER_POOL.items()):
        return status, answer
    mask = "&".join(f"update_mask={name}" for name in wanted)
    return _call("PATCH", f"{address}?{mask}", port=port, body={"pool": INFERENCE_POOL, **wanted}, token=token)


def last_lines(path: Path, *, count: int = 15) -> str:
    """The end of a log file, for an error message."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16_384))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return "  (no log)"
    return "\n".join(f"  {line}" for line in text.splitlines()[-count:]) or "  (the log is empty)"


def _call(
    method: str, path: str, *, port: int, body: dict[str, Any] | None = None, token: str | None = None
) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(HOST, port, timeout=10)  # never through a proxy
    try:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        connection.request(method, path, body=None if body is None else json.dumps(body), headers=headers)
        response = connection.getresponse()
        content = response.read()
        try:
            return response.status, json.loads(content)
        except ValueError:
            return response.status, content.decode("utf-8", "replace")
    finally:
        connection.close()
