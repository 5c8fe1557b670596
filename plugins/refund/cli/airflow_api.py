"""Airflow's public REST API, as far as ``refund night`` needs it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Self

from refund.errors import AccessDeniedError, RetriableRunError, StackError

if TYPE_CHECKING:
    import httpx

_PATIENCE_S = 300.0  # for the dag-processor to find the DAG, the scheduler to make a run, a busy server to answer


class AirflowUnavailableError(RetriableRunError):
    """Airflow's API server could not be reached or answered with a server error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """One task instance."""

    task_id: str
    map_index: int  # -1: not mapped
    state: str | None
    try_number: int
    started_at: datetime | None
    ended_at: datetime | None

    def seconds(self, now: datetime) -> float:
        """How long it has run."""
        return ((self.ended_at or now) - self.started_at).total_seconds() if self.started_at else 0.0


class AirflowApi:
    """A logged-in session with Airflow's API server.

    A question that it does not answer within ``timeout_s`` is asked again, for ``patience_s``: it may be busy, and who
    waits for a night waits for minutes. What changes something is sent once.
    """

    def __init__(
        self, url: str, *, user: str, password: str, timeout_s: float = 30.0, patience_s: float = _PATIENCE_S
    ) -> None:
        import httpx

        self._url = url
        self._patience_s = patience_s
        self._client = httpx.Client(base_url=url, timeout=timeout_s, trust_env=False)
        answer = self._send("POST", "/auth/token", json={"username": user, "password": password})
        self._client.headers["Authorization"] = f"Bearer {answer['access_token']}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def start_night(self, dag_id: str, *, run_date: date, conf: dict[str, Any], now: Callable[[], datetime]) -> str:
        """Start a run for a date and return its id.

        A paused DAG starts nothing, so it is unpaused first. Airflow then at once creates the scheduled run of the last
        night; where that is the very run asked for, it is taken instead of a second one beside it.
        """
        dag = self._await_dag(dag_id)
        if dag["is_paused"]:
            due = _time(dag["next_dagrun_run_after"])
            self._send(
                "PATCH", f"/api/v2/dags/{dag_id}", params={"update_mask": "is_paused"}, json={"is_paused": False}
            )
            if due is not None and due <= now():
                run_id = self._await_scheduled(dag_id, run_date, due=due)
                if run_id is not None and not conf:
                    return run_id
        body = {"logical_date": None, "partition_key": run_date.isoformat(), "conf": conf}
        return str(self._send("POST", f"/api/v2/dags/{dag_id}/dagRuns", json=body)["dag_run_id"])

    def _await_dag(self, dag_id: str) -> dict[str, Any]:
        """The DAG; a fresh Airflow takes some seconds to find it."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return self._send("GET", f"/api/v2/dags/{dag_id}")
            except StackError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.2)

    def _await_scheduled(self, dag_id: str, run_date: date, *, due: datetime) -> str | None:
        """The scheduled run of ``due`` that unpausing brings, once it is there; None where it is of another date."""
        deadline = time.monotonic() + _PATIENCE_S
        wanted = {"run_type": "scheduled", "order_by": "-run_after", "limit": 1}
        while time.monotonic() < deadline:
            for run in self._send("GET", f"/api/v2/dags/{dag_id}/dagRuns", params=wanted)["dag_runs"]:
                if _time(run["run_after"]) == due:
                    return str(run["dag_run_id"]) if run["partition_key"] == run_date.isoformat() else None
            time.sleep(0.2)
        return None

    def run_state(self, dag_id: str, run_id: str) -> str:
        """queued, running, success or failed."""
        return str(self._send("GET", f"/api/v2/dags/{dag_id}/dagRuns/{_quote(run_id)}")["state"])

    def is_any_running(self, dag_id: str) -> bool:
        """Whether a run of the DAG is going; a queued one is not."""
        found = self._send("GET", f"/api/v2/dags/{dag_id}/dagRuns", params={"state": "running", "limit": 1})
        return bool(found["dag_runs"])

    def task_rows(self, dag_id: str, run_id: str) -> list[TaskRow]:
        """Every task instance of a run."""
        rows: list[TaskRow] = []
        while True:
            page = self._send(
                "GET",
                f"/api/v2/dags/{dag_id}/dagRuns/{_quote(run_id)}/taskInstances",
                params={"limit": 100, "offset": len(rows)},
            )
            rows += [
                TaskRow(
                    task_id=row["task_id"],
                    map_index=row["map_index"],
                    state=row["state"],
                    try_number=row["try_number"],
                    started_at=_time(row["start_date"]),
                    ended_at=_time(row["end_date"]),
                )
                for row in page["task_instances"]
            ]
            if not page["task_instances"] or len(rows) >= page["total_entries"]:
                return rows

    def last_error(self, dag_id: str, run_id: str, row: TaskRow) -> str | None:
        """The last error line in a task's log, or None."""
        answer = self._send(
            "GET",
            f"/api/v2/dags/{dag_id}/dagRuns/{_quote(run_id)}/taskInstances/{row.task_id}/logs/{row.try_number}",
            params={"map_index": row.map_index},
            headers={"Accept": "application/json"},
        )
        for line in reversed(answer.get("content", [])):
            if isinstance(line, dict) and line.get("level") == "error":
                details = line.get("error_detail") or [{}]
                return f"{row.task_id}: {details[0].get('exc_value') or line.get('event')}"
        return None

    def _send(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        import httpx

        try:
            answer = self._request(method, path, **options)
        except httpx.TransportError as exc:
            msg = f"Airflow at {self._url} cannot be reached ({exc}); start it with: refund up"
            raise AirflowUnavailableError(msg) from exc
        if answer.status_code in {401, 403}:
            msg = f"Airflow at {self._url} refused {method} {path}: {answer.status_code}; restart the stack: refund up"
            raise AccessDeniedError(msg)
        if answer.status_code == 404 and path.startswith("/api/v2/dags/"):
            wanted = path.removeprefix("/api/v2/dags/")
            msg = f"Airflow knows no {wanted}; look for import errors in its UI at {self._url}"
            raise StackError(msg)
        if answer.status_code >= 500:
            msg = f"Airflow answered {method} {path} with {answer.status_code}; look into its api-server log"
            raise AirflowUnavailableError(msg)
        if answer.is_error:
            msg = f"Airflow refused {method} {path} with {answer.status_code}: {_detail(answer)}"
            raise StackError(msg)
        return dict(answer.json()) if answer.content else {}

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        import httpx

        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                return self._client.request(method, path, **options)
            except httpx.TimeoutException:
                if method != "GET" or time.monotonic() > deadline:
                    raise


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json().get("detail"))
    except ValueError:
        return answer.text[:200]


def _quote(run_id: str) -> str:
    from urllib.parse import quote

    return quote(run_id, safe="")


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
