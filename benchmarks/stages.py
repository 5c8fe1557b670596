"""Our stages as the tasks call them, fetch to persist, measured one by one."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace

from benchmarks.arena import DAY, LONE_PREFIX, PREFIX, Arena
from benchmarks.measure import Contender, Measurement, measure, tree_cpu_s
from benchmarks.photographs import PhotoSet
from refund.night.classify import classify_shard
from refund.night.fetch import fetch_manifest
from refund.night.health_check import check_health
from refund.night.persist import persist_run
from refund.night.services import NightRun
from refund.night.validate import validate_shard
from refund.params import NightParams

STAGES = ("fetch", "validate", "classify", "persist")
NAME = "our stages"
SERVERS = "servers meanwhile"
ONE = "our stages, one photo"
FURTHER = "our stages, per further photo"


@dataclass(frozen=True, slots=True, kw_only=True)
class StagesRun:
    """What a night's four stages cost, and what came out."""

    run_id: str
    stages: dict[str, Measurement]  # by name, in order
    counts: dict[str, int]  # as persist returns them

    @property
    def whole(self) -> Measurement:
        """All stages together, one after the other."""
        return added(self.stages.values())


def run_stages(arena: Arena, prefix: str = PREFIX, *, shard_size: int | None = None) -> StagesRun:
    """A first night over the photos below ``prefix``: fetch, validate, classify and persist, shard after shard.

    The tables are emptied and the health check is done before anything is measured; report and Airflow are left out.
    """
    services = arena.services
    arena.forget_outcomes()
    params = NightParams(prefix=prefix, late_days=0)
    if shard_size is not None:
        params = replace(params, shard_size=shard_size)
    run = NightRun(run_id=f"bench-{secrets.token_hex(6)}", run_date=DAY, params=params)
    check_health(run, services, plugin_errors={})
    shards: list[str] = []
    counts: dict[str, int] = {}
    stages = {
        "fetch": measure(1, lambda: shards.extend(fetch_manifest(run, services))),
        "validate": measure(1, lambda: [validate_shard(uri, run=run, services=services) for uri in shards]),
        "classify": measure(1, lambda: [classify_shard(uri, run=run, services=services) for uri in shards]),
        "persist": measure(1, lambda: counts.update(persist_run(run, services))),
    }
    stages = {name: replace(stage, photos=counts["photos"]) for name, stage in stages.items()}
    return StagesRun(run_id=run.run_id, stages=stages, counts=counts)


def our_stages(arena: Arena, photos: PhotoSet) -> Contender:
    """All four stages over a set; the servers' CPU, which no other figure counts, is a measurement of its own.

    A night that classified another number of photos than are good is no measurement, but an error.
    """

    def run() -> dict[str, Measurement]:
        servers_s = sum(map(tree_cpu_s, arena.server_pids))
        night = run_stages(arena, photos.prefix)
        servers_s = sum(map(tree_cpu_s, arena.server_pids)) - servers_s
        if (night.counts["photos"], night.counts["classified"]) != (len(photos.keys), photos.good_count):
            msg = f"of {len(photos.keys)} photos, {photos.good_count} of them good, the night made {night.counts}"
            raise RuntimeError(msg)
        whole = replace(night.whole, classified=night.counts["classified"])
        return {
            NAME: whole,
            **{f"{NAME}: {name}": stage for name, stage in night.stages.items()},
            SERVERS: replace(whole, cpu_s=servers_s),
        }

    return Contender(name=NAME, run=run)


def one_photo(arena: Arena) -> Contender:
    """A night of one photo: what a shard costs however few its photos are."""
    return Contender(name=ONE, run=lambda: {ONE: run_stages(arena, LONE_PREFIX).whole})


def added(parts: Iterable[Measurement]) -> Measurement:
    """Measurements of the same photos, one after the other."""
    parts = list(parts)
    return replace(parts[0], wall_s=sum(one.wall_s for one in parts), cpu_s=sum(one.cpu_s for one in parts))
