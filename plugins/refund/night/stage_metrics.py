"""Adds up what the tasks of the shards measured of themselves, of a night that succeeded or of what is there of it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from refund.errors import RefundError
from refund.monitor.latency import Latencies
from refund.monitor.stage_metrics import StageMetrics
from refund.night.services import RunLayout, Services, ShardLayout
from refund.night.staged import STAGE_FILE, read_stage

log = logging.getLogger(__name__)

Stage = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardStages:
    """What is known of one shard: its size, and what its tasks wrote of themselves; None where one never succeeded."""

    photos: int
    validated: Stage | None
    classified: Stage | None


def shard_metrics(shards: Iterable[ShardStages]) -> dict[str, StageMetrics]:
    """The figures of ``validate`` and ``classify``; pure.

    A task overwrites what its earlier tries wrote, so each counts once. Photos of a shard whose task never succeeded
    count as failed by that task.
    """
    known = list(shards)
    validated = [shard.validated for shard in known if shard.validated is not None]
    classified = [shard.classified for shard in known if shard.classified is not None]
    accepted = [shard.photos - shard.validated["rejected"] for shard in known if shard.validated is not None]
    rejected = sum(stage["rejected"] for stage in validated)
    return {
        "validate": StageMetrics(
            seconds=sum(stage["seconds"] for stage in validated),
            photos=sum(shard.photos for shard in known),
            failed=rejected + sum(shard.photos for shard in known if shard.validated is None),
            latencies=_latencies(validated),
        ),
        "classify": StageMetrics(
            seconds=sum(stage["seconds"] for stage in classified),
            photos=sum(accepted),
            failed=sum(accepted) - sum(stage["classified"] for stage in classified),
            latencies=_latencies(classified),
        ),
    }


def save_unfinished(run_id: str, services: Services) -> None:
    """Keep the figures of a night that failed before it could publish, from whatever its shards left.

    That they cannot be had must not hide the failure itself: it is only logged.
    """
    layout = RunLayout(staging=services.staging, run_id=run_id)
    try:
        if not services.staging.exists(layout.plan):  # it failed before there were shards, or after they were published
            return
        plan = read_stage(services.staging.read_file(layout.plan), uri=layout.plan, numbers=("shards",))
        shards = [ShardLayout(layout.shard(number)) for number in range(plan["shards"])]
        found = [
            ShardStages(
                photos=photos,
                validated=_stage(services, f"{shard.pack}/{STAGE_FILE}", "rejected", "seconds"),
                classified=_stage(services, f"{shard.predictions}/{STAGE_FILE}", "classified", "seconds"),
            )
            for shard, photos in zip(shards, plan["shard_photos"], strict=True)
        ]
        services.repository.set_stage_metrics(run_id, shard_metrics(found))
    except (RefundError, OSError, KeyError, TypeError, ValueError) as exc:
        log.warning("No figures of the stages of %s: %s", run_id, exc)


def _stage(services: Services, uri: str, *numbers: str) -> Stage | None:
    if not services.staging.exists(uri):
        return None
    return read_stage(services.staging.read_file(uri), uri=uri, numbers=numbers)


def _latencies(stages: Iterable[Stage]) -> Latencies:
    """Of all photos of the stages; one that kept none, or none that can be read, costs the night nothing else."""
    parts = []
    for stage in stages:
        try:
            parts.append(Latencies.from_json(stage.get("latencies")))
        except ValueError as exc:
            log.warning("The latencies of a shard are left out: %s", exc)
    return Latencies.merged(parts)
