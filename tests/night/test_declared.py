"""What customers declared: compared with the night's categories, and what it costs when it cannot be read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from refund.errors import ObjectStoreUnavailableError
from refund.night import fetch
from refund.night.fetch import fetch_manifest
from refund.night.services import ShardLayout
from refund.night.staged import manifest_photos, read_manifest
from refund.store.objects import ObjectStore
from tests.faults.s3_proxy import QUICK, Rule, S3Proxy, s3_proxy
from tests.night.conftest import DAY, World, fill

KEY = f"incoming/{DAY}/_refunds.csv"
DECLARED = b"refund_id,declared_category\nR-0,shoes\n"
OTHER = b"refund_id,declared_category\nR-0,furniture\n"


def test_declared_categories_are_compared(world: World) -> None:
    fill(world, 4)
    world.services.objects.put(
        f"incoming/{DAY}/_refunds.csv",
        b"refund_id,declared_category\nR-0,religious_ceremonial\nR-1,no_such_bin\n",
        content_type="text/csv",
    )
    world.night("r1", review_threshold=0.0)
    mismatched = world.rows(
        "SELECT refund_id FROM reporting.review_queue WHERE 'declared_mismatch' = ANY (review_reasons)"
    )
    assert mismatched == [("R-0",), ("R-0",)]
    assert world.rows("SELECT matches_declared FROM reporting.refunds WHERE refund_id = 'R-0'") == [(False,)]
    ((notes,),) = world.rows("SELECT notes FROM reporting.runs")
    assert "declares departments that the taxonomy does not have, ignored: 'no_such_bin'" in notes[0]


def test_broken_declarations_are_noted_and_cost_nothing_else(world: World) -> None:
    fill(world, 2)
    world.services.objects.put(f"incoming/{DAY}/_refunds.csv", b"what,ever\n1,2\n", content_type="text/csv")
    assert world.night("r1")["classified"] == 2
    ((notes,),) = world.rows("SELECT notes FROM reporting.runs")
    assert "_refunds.csv was ignored: it has the columns ['what', 'ever']" in notes[0]


# --- what cannot be read at the moment ------------------------------------------------------------------------------


def declared(world: World, shards: Iterable[str]) -> set[str | None]:
    """The declared categories in the manifests that fetch left."""
    found: set[str | None] = set()
    for shard in shards:
        with world.services.staging.readable_folder(ShardLayout(shard).manifest) as folder:
            found |= {photo.declared_category for photo in manifest_photos(read_manifest(folder))}
    return found


def notes(world: World, run_id: str) -> list[str]:
    return [note for (note,) in world.rows(f"SELECT unnest(notes) FROM refund.run WHERE run_id = '{run_id}'")]


@contextmanager
def behind_proxy(world: World, *rules: Rule) -> Iterator[tuple[World, S3Proxy]]:
    with s3_proxy(world.s3, *rules) as proxy:
        store = ObjectStore(proxy.access, patience=QUICK)
        yield replace(world, services=replace(world.services, objects=store)), proxy


class Shop(ObjectStore):
    """The real bucket, where the shop does something each time before its file is read."""

    def __init__(self, objects: ObjectStore, *steps: bytes | None) -> None:
        super().__init__(objects.access)
        self.steps = list(steps)

    def get(self, key: str, *, etag: str | None = None, size_bytes: int | None = None) -> bytes:
        if key == KEY and self.steps:
            body = self.steps.pop(0)
            self.delete(KEY) if body is None else self.put(KEY, body)
        return super().get(key, etag=etag, size_bytes=size_bytes)


def shop(world: World, *steps: bytes | None) -> World:
    return replace(world, services=replace(world.services, objects=Shop(world.services.objects, *steps)))


def test_declarations_that_s3_does_not_give_out_fail_the_task_for_another_try(world: World) -> None:
    fill(world, 2)
    world.services.objects.put(KEY, DECLARED)
    faults = {
        "unreadable: bucket .*InvalidObjectState": Rule(do="status", key=KEY, status=403, code="InvalidObjectState"),
        "body_mismatch: the bucket answers, but this object could not be read in two": Rule(do="shorter", key=KEY),
    }
    with behind_proxy(world) as (behind, proxy):
        run = behind.start("r1")
        for seen, rule in faults.items():
            text = (
                rf"^S3 at http://127\.0\.0\.1:\d+ lists '{KEY}' with 38 bytes, but did not give it out: {seen}.*\. "
                r"Expected what customers declared, .*\. The task retries; if it goes on, make the object readable or "
                r"upload it again, or delete it to go on without the comparison$"
            )
            proxy.rules[:] = [rule]
            with pytest.raises(ObjectStoreUnavailableError, match=text):
                fetch_manifest(run, behind.services)
            assert proxy.broke() > 0
        proxy.rules.clear()
        assert declared(behind, fetch_manifest(run, behind.services)) == {"shoes"}
    assert notes(world, "r1") == []


def test_declarations_that_the_shop_changes_after_the_listing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(world, 2)

    def fetched(run_id: str, *steps: bytes | None) -> tuple[set[str | None], list[str]]:
        world.services.objects.put(KEY, DECLARED)
        busy = shop(world, *steps)
        found = declared(busy, fetch_manifest(busy.start(run_id), busy.services))
        return found, notes(world, run_id)

    assert fetched("replaced", OTHER) == ({"furniture"}, [])
    gone = f"{KEY} was deleted after it had been listed: no photo is compared with it"
    assert fetched("deleted", None) == ({None}, [gone])
    with pytest.raises(ObjectStoreUnavailableError, match="did not give it out: changed: it was listed with ETag"):
        fetched("replaced again and again", OTHER, DECLARED)
    assert fetched("replaced again and again") == ({"shoes"}, [])
    monkeypatch.setattr(fetch, "_MAX_DECLARED_BYTES", len(DECLARED))
    larger = OTHER + b"R-1,furniture\n"
    assert fetched("too large", larger) == ({None}, [f"{KEY} has 56 bytes, at most 38 are read: ignored"])
