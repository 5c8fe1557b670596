"""Second task: list the night's photos and plan the shards. Nothing is downloaded yet but the shop's declarations."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING
from uuid import UUID

from refund import keys
from refund.errors import ObjectStoreUnavailableError, ReasonCode, RejectedPhotoError
from refund.monitor.stage_metrics import StageMetrics
from refund.night.health_check import check_disk
from refund.night.services import NightRun, RunLayout, Services, ShardLayout, Stopwatch, begun_params, dump
from refund.night.shard_model import model_in_force, pixel_bytes
from refund.night.staged import write_manifest
from refund.records import PhotoObject
from refund.store.alerts import raise_alert
from refund.store.records import Alert

if TYPE_CHECKING:
    from refund.store.objects import ListedObject

log = logging.getLogger(__name__)

_MAX_DECLARED_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which photos the run will look at, and which keep their outcome."""

    shards: tuple[tuple[PhotoObject, ...], ...]
    unchanged: tuple[PhotoObject, ...]

    @property
    def to_do_count(self) -> int:
        """Photos that will be validated and classified."""
        return sum(len(shard) for shard in self.shards)

    @property
    def photo_count(self) -> int:
        """Photos in the run's manifest."""
        return self.to_do_count + len(self.unchanged)


def plan_shards(photos: Sequence[PhotoObject], *, standing: set[UUID], shard_size: int) -> Plan:
    """Split the photos without a standing outcome into shards of at most ``shard_size``, in the order given.

    The shards are of equal size to within one photo, so that no worker waits for one long last shard.
    """
    unchanged = tuple(photo for photo in photos if photo.photo_id in standing)
    to_do = [photo for photo in photos if photo.photo_id not in standing]
    count = -(-len(to_do) // shard_size)
    bounds = [round(number * len(to_do) / count) for number in range(count + 1)] if count else [0]
    shards = tuple(tuple(to_do[start:stop]) for start, stop in pairwise(bounds))
    return Plan(shards=shards, unchanged=unchanged)


def fetch_manifest(run: NightRun, services: Services) -> list[str]:
    """List the run date's photos, the late ones before it and the undated ones; write a manifest per shard.

    Returns:
        The URI of each shard; empty where there is nothing to do.

    Raises:
        DiskSpaceError: the staging disk cannot hold the packs.
        RetriableRunError: S3 does not answer, or does not give out what customers declared.
    """
    watch = Stopwatch()
    row = services.repository.require_run(run.run_id)
    layout = RunLayout(staging=services.staging, run_id=run.run_id)
    if row.state == "published":
        log.info("This run is published already: nothing to do. To classify again, trigger a new run with force=true")
        return []
    services.staging.remove(layout.root)  # what an earlier attempt of this run left

    notes: list[str] = []
    services.repository.begin_listing(run.run_id)
    photos = list(_list_photos(run, services, notes))
    _tell_overlooked(run, services, notes, at=row.started_at)
    model = model_in_force(row, services)
    standing: set[UUID] = set()
    if not run.params.force:
        standing = services.repository.standing_outcomes(
            sorted({photo.photo_date for photo in photos}),
            model=model.model,
            taxonomy_version=row.taxonomy_version,
            threshold=begun_params(row).review_threshold,
            exclude_run_id=run.run_id,
        )
    plan = plan_shards(photos, standing=standing, shard_size=run.params.shard_size)
    check_disk(services, photos=plan.to_do_count, photo_bytes=pixel_bytes(model.card))

    shard_uris = [layout.shard(number) for number in range(len(plan.shards))]
    for uri, shard in zip(shard_uris, plan.shards, strict=True):
        with services.staging.writable_folder(ShardLayout(uri).manifest) as folder:
            write_manifest(folder, shard)
    with services.staging.writable_folder(layout.unchanged) as folder:
        write_manifest(folder, plan.unchanged)
    services.repository.add_notes(run.run_id, notes)
    services.staging.write_file(
        layout.plan,
        dump(
            {
                "shards": len(plan.shards),
                "shard_photos": [len(shard) for shard in plan.shards],
                "photos": plan.photo_count,
                "unchanged": len(plan.unchanged),
            }
        ),
    )
    metrics = StageMetrics(seconds=watch.seconds, photos=plan.photo_count, failed=0)
    services.repository.set_stage_metrics(run.run_id, {"fetch": metrics})
    log.info(
        "Listed %s photos: %s to classify in %s shards, %s unchanged",
        plan.photo_count,
        plan.to_do_count,
        len(plan.shards),
        len(plan.unchanged),
    )
    return shard_uris


def _list_photos(run: NightRun, services: Services, notes: list[str]) -> Iterator[PhotoObject]:
    prefix = run.params.prefix
    under_way = services.repository.nights_under_way(exclude_run_id=run.run_id, at=services.now())
    for day in listed_dates(run.run_date, late_days=run.params.late_days):
        if day in under_way and day != run.run_date:  # a backfill runs nights side by side; each photo to its own night
            notes.append(f"late photos of {day} were left to the night of {day}, which was under way")
            continue
        folder = keys.date_prefix(prefix, day)
        listed = list(services.objects.list(folder))
        declared = _declared_categories(listed, folder, services, notes)
        yield from (_photo(item, prefix, services, declared) for item in listed if keys.is_photo(item.key))
    for item in _list_undated(prefix, services):
        yield _photo(item, prefix, services, {})


def _list_undated(prefix: str, services: Services) -> Iterator[ListedObject]:
    """Photos below the prefix that lie in no date folder: dropped in the wrong place, but never overlooked."""
    folders, items = services.objects.list_level(prefix)
    yield from (item for item in items if keys.is_photo(item.key))
    for folder in folders:
        if keys.photo_date(f"{folder}x", prefix=prefix) == keys.UNDATED:
            yield from (item for item in services.objects.list(folder) if keys.is_photo(item.key))


def _tell_overlooked(run: NightRun, services: Services, notes: list[str], *, at: datetime) -> None:
    """Note and alert date folders that lie before tonight's window and that no published night has looked at.

    After an outage longer than ``late_days`` the schedule goes on with last night, and nothing else would say so.
    """
    folders, _ = services.objects.list_level(run.params.prefix)
    dates = {keys.photo_date(f"{folder}x", prefix=run.params.prefix) for folder in folders} - {keys.UNDATED}
    for day in overlooked_dates(dates, run=run, looked_at=services.repository.looked_at_dates()):
        text = f"photos of {day} lie in the bucket and no night has looked at them; run: refund night --date {day}"
        notes.append(text)
        alert = Alert(
            rule="overlooked_photos",
            dedupe_key=f"overlooked_photos/{day}",
            severity="warning",
            run_id=run.run_id,
            run_date=run.run_date,
            message=text,
            details={
                "seen": f"Photos of {day} lie in the bucket and no night has looked at them",
                "against": f"Tonight looks at the {run.params.late_days} dates before {run.run_date} and at that date",
                "action": f"Run that night: refund night --date {day}",
                "sql": (
                    "SELECT run_date, run_id, state, params ->> 'late_days' AS late_days, published_at "  # noqa: S608 -- a date
                    f"FROM reporting.runs WHERE run_date >= DATE '{day}' AND NOT synthetic ORDER BY run_date LIMIT 20"
                ),
            },
        )
        raise_alert(services.database, alert, at=at)


def overlooked_dates(dates: Iterable[date], *, run: NightRun, looked_at: Sequence[tuple[date, int]]) -> list[date]:
    """The photo dates before the run's window that none of the published nights covers, oldest first.

    Args:
        dates: photo dates that have a folder.
        run: tonight, whose own window counts as covered.
        looked_at: run date and ``late_days`` of every published night.
    """
    first = run.run_date - timedelta(days=run.params.late_days)
    windows = [(night - timedelta(days=late), night) for night, late in looked_at]
    return sorted(day for day in dates if day < first and not any(start <= day <= stop for start, stop in windows))


def _photo(item: ListedObject, prefix: str, services: Services, declared: Mapping[str, str]) -> PhotoObject:
    refund_id = keys.refund_id(item.key, prefix=prefix)
    return PhotoObject(
        photo_id=keys.photo_id(bucket=services.objects.bucket, key=item.key, etag=item.etag),
        photo_date=keys.photo_date(item.key, prefix=prefix),
        bucket=services.objects.bucket,
        key=item.key,
        etag=item.etag,
        size_bytes=item.size_bytes,
        refund_id=refund_id,
        declared_category=declared.get(refund_id) if refund_id else None,
    )


def _declared_categories(
    listed: Sequence[ListedObject], folder: str, services: Services, notes: list[str]
) -> dict[str, str]:
    """Read the date's ``_refunds.csv``. A broken one costs the comparison with it, never the night.

    Raises:
        RetriableRunError: it is there, but S3 does not give it out at the moment.
    """
    key = f"{folder}{keys.DECLARED_FILE}"
    found = next((item for item in listed if item.key == key), None)
    body = None if found is None else _declared_body(found, services, notes)
    if body is None:
        return {}
    try:
        declared = parse_declared(body)
    except (ValueError, csv.Error) as exc:
        notes.append(f"{key} was ignored: {exc}")
        return {}
    return known_departments(declared, key=key, categories=_categories(), notes=notes)


def _declared_body(found: ListedObject, services: Services, notes: list[str]) -> bytes | None:
    """The file as listed or, if the shop has replaced it since, as it lies there now; None with a note: without it."""
    key, now = found.key, found
    for _ in range(2):
        if now.size_bytes > _MAX_DECLARED_BYTES:
            notes.append(f"{key} has {now.size_bytes:,} bytes, at most {_MAX_DECLARED_BYTES:,} are read: ignored")
            return None
        try:
            return services.objects.get(key, etag=now.etag, size_bytes=now.size_bytes)
        except RejectedPhotoError as exc:
            fault = exc
        there = services.objects.head(key) if fault.reason is ReasonCode.CHANGED else None
        if fault.reason is ReasonCode.VANISHED or (fault.reason is ReasonCode.CHANGED and there is None):
            notes.append(f"{key} was deleted after it had been listed: no photo is compared with it")
            return None
        if there is None:
            break
        now = there
    # it may hold the night's declarations, and a night without them looks like any other
    msg = (
        f"S3 at {services.objects.access.place} lists {key!r} with {now.size_bytes:,} bytes, but did not give it out: "
        f"{fault}. Expected what customers declared, which photos are compared with. The task retries; if it goes on, "
        f"make the object readable or upload it again, or delete it to go on without the comparison"
    )
    raise ObjectStoreUnavailableError(msg) from fault


def parse_declared(body: bytes) -> dict[str, str]:
    """Read ``refund_id,declared_category`` lines (UTF-8, with a header) into a mapping.

    Raises:
        ValueError: it is no UTF-8, a column is missing, or a refund is declared as two categories.
    """
    reader = csv.DictReader(io.StringIO(body.decode("utf-8-sig")))
    missing = {"refund_id", "declared_category"} - set(reader.fieldnames or ())
    if missing:
        msg = f"it has the columns {reader.fieldnames or 'none'}, expected refund_id and declared_category"
        raise ValueError(msg)
    declared: dict[str, str] = {}
    for row in reader:
        refund_id, category = (row["refund_id"] or "").strip(), (row["declared_category"] or "").strip()
        if refund_id and category and declared.setdefault(refund_id, category) != category:
            msg = f"refund {refund_id!r} is declared as {declared[refund_id]!r} and as {category!r}"
            raise ValueError(msg)
    return declared


def known_departments(
    declared: Mapping[str, str], *, key: str, categories: Collection[str], notes: list[str]
) -> dict[str, str]:
    """Leave out declarations of departments that the taxonomy does not have, with a note that names them."""
    unknown = sorted(set(declared.values()) - set(categories))
    if unknown:
        shown = ", ".join(repr(name) for name in unknown[:5]) + (" and more" if len(unknown) > 5 else "")
        notes.append(f"{key} declares departments that the taxonomy does not have, ignored: {shown}")
    return {refund_id: name for refund_id, name in declared.items() if name in categories}


def _categories() -> Collection[str]:
    from refund.model.labels import load_labels
    from refund.model.taxonomy import load_taxonomy

    return load_taxonomy(labels=load_labels()).categories


def listed_dates(run_date: date, *, late_days: int) -> list[date]:
    """The photo dates that a night looks at, oldest first."""
    return [run_date - timedelta(days=late) for late in range(late_days, -1, -1)]
