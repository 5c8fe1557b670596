"""After the shards: reconcile what they staged, publish all of it in one transaction, then clear the staging."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from refund.errors import FatalRunError, ReconciliationError, StagingCorruptError, StagingMissingError
from refund.monitor.stage_metrics import StageMetrics
from refund.night.services import NightRun, RunLayout, Services, ShardLayout, Stopwatch
from refund.night.stage_metrics import ShardStages, shard_metrics
from refund.night.staged import STAGE_FILE, read_manifest, read_predictions, read_stage
from refund.records import OutcomeCounts
from refund.store.publish import ShardTables, publish

log = logging.getLogger(__name__)


def persist_run(run: NightRun, services: Services) -> dict[str, int]:
    """Publish the night, or nothing of it; returns its counts.

    A run that is published already keeps its rows. Staged files are removed only after the commit.

    Raises:
        ReconciliationError: manifests, packs, predictions and tables do not count the same.
        StagingMissingError: a staged file is gone.
        StagingCorruptError: a staged file cannot be read, or a shard's files are of two models.
    """
    layout = RunLayout(staging=services.staging, run_id=run.run_id)
    if (counts := _closed_counts(run, layout, services)) is not None:
        return asdict(counts)
    try:
        return asdict(_publish_staged(run, layout, services))
    except FatalRunError:
        # A try that Airflow no longer sees may have published, and removed what this one was reading.
        if (counts := _closed_counts(run, layout, services)) is None:
            raise
        return asdict(counts)


def _closed_counts(run: NightRun, layout: RunLayout, services: Services) -> OutcomeCounts | None:
    """The counts of a run that is published, or was a dry run, and is only cleared up; None for any other."""
    row = services.repository.require_run(run.run_id)
    if row.counts is None or row.state not in {"published", "dry_run"}:
        return None
    _keep_what_was_measured(run, layout, services)  # in case a commit was not followed by this
    services.staging.remove(layout.root)
    log.info("This run is %s already; its rows stay as they are", row.state.replace("_", " "))
    return row.counts


def _publish_staged(run: NightRun, layout: RunLayout, services: Services) -> OutcomeCounts:
    watch = Stopwatch()
    if not services.staging.exists(layout.plan):
        raise StagingMissingError(uri=layout.plan)
    plan = _read(services, layout.plan, "photos", "shards", "unchanged")
    shards, stages = _shard_stages(layout, services, count=plan["shards"])
    for shard, (validated, classified) in zip(shards, stages, strict=True):
        _check_model(shard, validated, classified)
    try:
        expected = OutcomeCounts(
            photos=plan["photos"],
            classified=sum(classified["classified"] for _, classified in stages),
            rejected=sum(validated["rejected"] for validated, _ in stages),
            unchanged=plan["unchanged"],
        )
    except ValueError as exc:
        msg = f"nothing was published: the tasks report {exc}; clear the run from the task fetch on"
        raise ReconciliationError(msg) from exc
    with services.staging.readable_folder(layout.unchanged) as folder:
        unchanged = read_manifest(folder)
    counts = publish(
        services.database,
        run_id=run.run_id,
        shards=_tables(services, shards),
        unchanged=unchanged,
        expected=expected,
        audit_share=services.settings.audit_share,
        at=services.database.now(),  # one clock for all workers: nights are told apart by when they were published
        dry_run=run.params.dry_run,
    )
    metrics = _shard_metrics(stages)
    metrics["persist"] = StageMetrics(seconds=watch.seconds, photos=counts.photos, failed=0)
    services.repository.set_stage_metrics(run.run_id, metrics)  # not before: another attempt may hold the run's row
    services.staging.remove(layout.root)
    log.info(
        "%s %s photos: %s classified, %s rejected, %s unchanged",
        "Dry run, published nothing of" if run.params.dry_run else "Published",
        counts.photos,
        counts.classified,
        counts.rejected,
        counts.unchanged,
    )
    return counts


def _shard_stages(
    layout: RunLayout, services: Services, *, count: int
) -> tuple[list[ShardLayout], list[tuple[dict[str, Any], dict[str, Any]]]]:
    """The run's shards, and what the two tasks of each noted when they ended."""
    shards = [ShardLayout(layout.shard(number)) for number in range(count)]
    stages = [
        (
            _read(services, f"{shard.pack}/{STAGE_FILE}", "photos", "rejected", "seconds"),
            _read(services, f"{shard.predictions}/{STAGE_FILE}", "classified", "seconds"),
        )
        for shard in shards
    ]
    return shards, stages


def _keep_what_was_measured(run: NightRun, layout: RunLayout, services: Services) -> None:
    """Note the figures of the shards of a run that is published, where its staged files are still there."""
    try:
        if not services.staging.exists(layout.plan):
            return
        plan = _read(services, layout.plan, "shards")
        _, stages = _shard_stages(layout, services, count=plan["shards"])
    except FatalRunError as exc:  # half removed: the night is published, figures alone are lost
        log.warning("The figures of the shards are left out: %s", exc)
        return
    services.repository.set_stage_metrics(run.run_id, _shard_metrics(stages))


def _shard_metrics(stages: Iterable[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, StageMetrics]:
    """The figures of the shards; the night is published by now, so figures that cannot be are left out."""
    try:
        return shard_metrics(
            ShardStages(photos=validated["photos"], validated=validated, classified=classified)
            for validated, classified in stages
        )
    except ValueError as exc:
        log.warning("The figures of the shards are left out: %s", exc)
        return {}


def _tables(services: Services, shards: list[ShardLayout]) -> Iterator[ShardTables]:
    from refund.imaging.pack import PHOTOS_FILE, read_photos

    for shard in shards:
        with (
            services.staging.readable_folder(shard.manifest) as manifest,
            services.staging.readable_folder(shard.pack, names=[PHOTOS_FILE]) as pack,  # not the pixels
            services.staging.readable_folder(shard.predictions) as predictions,
        ):
            yield ShardTables(
                manifest=read_manifest(manifest),
                photos=read_photos(pack / PHOTOS_FILE),
                predictions=read_predictions(predictions),
            )


def _check_model(shard: ShardLayout, validated: dict[str, Any], classified: dict[str, Any]) -> None:
    """Refuse a shard whose validation was cleared alone after a rollback: what decided it is not what it was made for.

    Raises:
        StagingCorruptError: pack and predictions name two models.
    """
    made_for, made_by = validated.get("model"), classified.get("model")
    if made_for != made_by:
        msg = (
            f"nothing was published: {shard.pack} was made for {made_for}, {shard.predictions} was made by {made_by}; "
            f"clear the shard's task classify, so that both are of one model"
        )
        raise StagingCorruptError(msg)


def _read(services: Services, uri: str, *numbers: str) -> dict[str, Any]:
    return read_stage(services.staging.read_file(uri), uri=uri, numbers=numbers)
