"""The model: build, import, evaluate, promote, roll back, retire and verify, by hand; the history keeps who and why.

The same as the commands `refund model …`. A promotion takes effect with the next run of `refund_nightly`, a rollback
with the next shard. A run without changes to the form verifies every registered model.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import dag, task

from refund.airflow_glue import model_task, trigger_form
from refund.model_params import ModelParams


@dag(
    schedule=None,
    is_paused_upon_creation=False,  # it runs only when asked, and a paused one would leave whoever asks waiting
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    params=trigger_form(ModelParams),
    default_args={
        "owner": "refund",
        "retries": 0,  # what was refused once is refused again; who asked reads why and clears it
        "execution_timeout": timedelta(hours=2),
    },
    tags=["refund"],
    doc_md=__doc__,
)
def refund_model() -> None:
    """Do the one thing that the form's action names."""

    @task(multiple_outputs=False)
    def act() -> dict[str, Any]:
        """Do it as the user who triggered the run."""
        from refund.lifecycle.actions import run_action

        with model_task() as given:
            return run_action(given.params, given.services, by=given.by, request=given.request)

    act()


refund_model()
