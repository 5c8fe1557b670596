"""Airflow's own API as far as the page Tonight asks it; the real one is asked on the live stack."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

# As Airflow 3.3.2 shows a plugin's page; its frame has these rights and no others.
FRAMED = '<iframe src="/refund/tonight" sandbox="allow-scripts allow-same-origin allow-forms allow-downloads"></iframe>'
TASKS = (
    *("health_check", "fetch", "shards.validate", "shards.classify"),
    *("persist", "generate_report", "alert_on_drift"),
)


@dataclass(kw_only=True)
class Airflow:
    """An Airflow with the DAG ``refund_nightly``; a test turns its runs by hand."""

    is_paused: bool = False
    refuses: tuple[int, Any] | None = None  # status and detail of what it says to a new run
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    states: dict[str, list[str | None]] = field(default_factory=dict)  # of task instances, by task
    asked: list[dict[str, Any]] = field(default_factory=list)  # bodies of new runs

    def begin(self, run_id: str, *, state: str, run_date: str) -> None:
        """A run that somebody else started."""
        self.runs[run_id] = {"dag_run_id": run_id, "state": state, "conf": {}, "partition_key": run_date}

    @property
    def app(self) -> Any:
        """To be passed to `tests.desk.serving.serve`."""
        from fastapi import Body, FastAPI
        from fastapi.responses import HTMLResponse, JSONResponse

        app = FastAPI(openapi_url=None)
        dag = "/api/v2/dags/refund_nightly"

        @app.get(dag)
        def show_dag() -> Any:
            return {"dag_id": "refund_nightly", "is_paused": self.is_paused}

        @app.get(f"{dag}/dagRuns")
        def list_runs() -> Any:
            going = [run for run in self.runs.values() if run["state"] in ("queued", "running")]
            return {"dag_runs": going, "total_entries": len(going)}

        @app.post(f"{dag}/dagRuns")
        def start(body: dict[str, Any] = Body()) -> Any:  # noqa: B008 -- FastAPI's own form
            if self.refuses is not None:
                status, detail = self.refuses
                return JSONResponse({"detail": detail}, status_code=status)
            self.asked.append(body)
            run_id = f"manual__{len(self.asked)}"
            self.runs[run_id] = {"dag_run_id": run_id, "state": "queued", "conf": body["conf"], "partition_key": None}
            return self.runs[run_id]

        @app.get(f"{dag}/dagRuns/{{run_id}}")
        def show_run(run_id: str) -> Any:
            return self.runs[run_id]

        @app.get(f"{dag}/dagRuns/{{run_id}}/taskInstances")
        def tasks(run_id: str) -> Any:
            rows = [{"task_id": task, "state": state} for task in TASKS for state in self.states.get(task, [None])]
            return {"task_instances": rows, "total_entries": len(rows)}

        @app.get("/framed")
        def framed() -> HTMLResponse:
            return HTMLResponse(FRAMED)

        @app.get("/dags/refund_nightly/runs/{run_id}")
        def run_page(run_id: str) -> HTMLResponse:
            return HTMLResponse("a run")

        return app
