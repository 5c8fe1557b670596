"""Accuracy over time: every Monday, what a week's reviews say of all decisions; an alert where it is too little."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import CronTriggerTimetable, Param, dag, task

from refund.airflow_glue import quality_task


@dag(
    schedule=CronTriggerTimetable("0 6 * * 1", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    params={
        "week_ending": Param(
            None,
            type=["null", "string"],
            format="date",
            description="Last run date of the window, YYYY-MM-DD. Empty: the day before the run.",
        )
    },
    default_args={
        "owner": "refund",
        "retries": 3,
        "retry_delay": timedelta(seconds=30),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=10),
        "execution_timeout": timedelta(minutes=20),
    },
    tags=["refund"],
    doc_md=__doc__,
)
def refund_quality() -> None:
    """Estimate accuracy and macro-F1, store them, alert."""

    @task(multiple_outputs=False)
    def measure_quality() -> dict[str, str]:
        """Store one row per model that decided in the window; return their statuses."""
        from refund.airflow_channels import open_channels
        from refund.lifecycle.quality import record_quality
        from refund.night.notify import send_pending

        with quality_task() as week:
            statuses = record_quality(week.ending, week.services, run_id=week.run_id, at=week.at)
            send_pending(week.services, open_channels(week.services.settings))
            return statuses

    measure_quality()


refund_quality()
