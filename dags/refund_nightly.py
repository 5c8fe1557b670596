"""The refund night: photos of returned goods from S3, sorted by MobileNetV2, into Postgres by morning."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import (
    Asset,
    CronPartitionTimetable,
    DeadlineAlert,
    DeadlineReference,
    SyncCallback,
    dag,
    task,
    task_group,
)

from refund.airflow_glue import night_task, plugin_errors, published_only, task_states, trigger_form


@dag(
    schedule=CronPartitionTimetable("0 2 * * *", timezone="UTC", run_offset=-1, key_format="%Y-%m-%d"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    params=trigger_form(),
    default_args={
        "owner": "refund",
        "retries": 3,
        "retry_delay": timedelta(seconds=30),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=10),
        "execution_timeout": timedelta(minutes=20),
        "weight_rule": "upstream",  # a validated shard is classified before the next one is validated
    },
    deadline=DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        # Seconds: with a timedelta Airflow 3.3.2 cannot clear a run before its deadline (apache/airflow#70368).
        interval=timedelta(hours=4).total_seconds(),
        callback=SyncCallback("refund.airflow_glue.on_deadline_missed"),
    ),
    tags=["refund"],
    doc_md=__doc__,
)
def refund_nightly() -> None:
    """Check, list, validate and classify shard by shard, publish at once, report, alert."""

    @task(multiple_outputs=False)
    def health_check() -> dict[str, str]:
        """Check every part the night needs; fail with a list of all that is wrong."""
        from refund.night.health_check import check_health

        with night_task() as night:
            return check_health(night.run, night.services, plugin_errors=plugin_errors()).as_xcom()

    @task
    def fetch() -> list[str]:
        """List the photos and plan the shards."""
        from refund.night.fetch import fetch_manifest

        with night_task() as night:
            return fetch_manifest(night.run, night.services)

    @task(
        multiple_outputs=False,
        pool="refund_inference",
        execution_timeout=timedelta(hours=2),
        map_index_template="{{ task.op_kwargs['shard_uri'].rpartition('/')[2] }}",
    )
    def validate(shard_uri: str) -> dict[str, str | int]:
        """Download and decode one shard in isolation; quarantine what is rejected."""
        from refund.night.validate import validate_shard

        with night_task() as night:
            return validate_shard(shard_uri, run=night.run, services=night.services).as_xcom()

    @task(multiple_outputs=False, pool="refund_inference", execution_timeout=timedelta(hours=2))
    def classify(validated: dict[str, str | int]) -> dict[str, str | int]:
        """Run the model over one shard's pack."""
        from refund.night.classify import classify_shard

        with night_task() as night:
            return classify_shard(str(validated["shard_uri"]), run=night.run, services=night.services).as_xcom()

    @task_group
    def shards(shard_uri: str) -> None:
        classify(validate(shard_uri=shard_uri))  # by name: map_index_template looks into op_kwargs

    @task(multiple_outputs=False, trigger_rule="none_failed", outlets=[Asset("refund://decisions")])
    def persist() -> dict[str, int]:
        """Publish the whole night in one transaction, or nothing."""
        from refund.night.persist import persist_run

        with night_task() as night:
            return published_only(night.run, persist_run(night.run, night.services))

    @task(multiple_outputs=False, outlets=[Asset("refund://export")])
    def generate_report() -> dict[str, str]:
        """Measure drift, then write the report and the export."""
        from refund.night.generate_report import write_report

        with night_task() as night:
            return write_report(night.run, night.services)

    @task(multiple_outputs=False, trigger_rule="all_done")
    def alert_on_drift() -> dict[str, int]:
        """Raise and send alerts for drift and for whatever failed; fails itself if anything before it failed."""
        from refund.airflow_channels import open_channels
        from refund.night.alert_on_drift import raise_alerts

        with night_task() as night:
            channels = open_channels(night.services.settings)
            return raise_alerts(night.run, night.services, task_states=task_states(), channels=channels)

    listed = fetch()
    health_check() >> listed
    shards.expand(shard_uri=listed) >> persist() >> generate_report() >> alert_on_drift()


refund_nightly()
