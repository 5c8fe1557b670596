"""Loads made-up nights into the stores as the night itself writes them, and removes them without a trace."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refund import __version__, keys
from refund.errors import FatalRunError, SettingsError
from refund.lifecycle import demo_nights as made
from refund.lifecycle.demo_nights import DemoPhoto
from refund.lifecycle.demo_plan import LATE_DAYS, PREFIX, SHIFTED_CATEGORY, THRESHOLD, DemoPlan, run_id, start_of
from refund.monitor.latency import Latencies
from refund.monitor.stage_metrics import StageMetrics
from refund.night.alert_on_drift import raise_alerts
from refund.night.generate_report import write_report
from refund.night.services import NightRun, Services
from refund.params import NightParams
from refund.records import OutcomeCounts
from refund.store import demo as rows
from refund.store.drift import get_drift
from refund.store.publish import ShardTables, publish

if TYPE_CHECKING:
    from refund.store.database import Database

_KEY = re.compile(rf"{PREFIX}\d{{4}}-\d{{2}}-\d{{2}}/DEMO-\d{{8}}-\d+/\d+\.jpg")
_CHARGED_MS = {"validate": 9.0, "classify": 4.0}  # of one photo, about what was measured on two cores


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoNight:
    """One made-up night as it lies in the stores."""

    run_date: date
    counts: OutcomeCounts
    drift: Mapping[str, str]  # status by measure
    report: str  # URI of the page
    new: bool  # False: it was there


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoLoaded:
    """What a load left behind."""

    nights: tuple[DemoNight, ...]  # oldest first
    shifted: date | None  # the night whose mix really differs
    shifted_category: str
    reviews: int  # that were new

    @property
    def photos(self) -> int:
        """Photos that were classified or rejected, each once."""
        return sum(night.counts.classified + night.counts.rejected for night in self.nights)


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRemoved:
    """What a removal took away."""

    nights: int
    rows: Mapping[str, int]  # by table
    objects: int


def load_demo(
    plan: DemoPlan,
    services: Services,
    *,
    pictures: Sequence[bytes],
    by: str,
    tell: Callable[[str], None] = lambda _: None,
) -> DemoLoaded:
    """Make up the nights of ``plan`` and publish, measure and report each by the night's own code.

    Every row is marked ``synthetic``. A night that is there already is passed over; one that was left halfway is
    finished. ``pictures`` (JPEG) are put under the keys of the surest photos of the category that grows.

    Raises:
        NoModelError: there is no champion; the nights are said to be its.
        DemoError: made-up nights of another plan, model or taxonomy are there, or another load is at work.
        SettingsError: the last night is not over yet.
    """
    today = services.now().date()
    if plan.ending >= today:
        msg = f"--ending must be a night that is over, {today - timedelta(days=1)} (UTC) or before; got {plan.ending}"
        raise SettingsError(msg)
    model = services.registry.resolve("champion").model
    taxonomy_version = made_with()
    with rows.alone(services.database):
        known = {run.run_id: run for run in rows.demo_runs(services.database)}
        _refuse_others(plan, known.values(), model=model, taxonomy_version=taxonomy_version)
        loader = _Loader(plan, services, model=model, taxonomy_version=taxonomy_version, pictures=pictures)
        nights = []
        for day in plan.dates:
            found = known.get(run_id(day))
            if found is None or not found.finished:
                tell(f"{day}: {'publishing' if found is None else 'finishing'} a made-up night")
                loader.load(day)
            nights.append(loader.describe(day, new=found is None or not found.finished))
    if any(night.new for night in nights):
        rows.audit_demo(
            services.database,
            at=services.now(),
            actor=by,
            action="demo_load",
            subject=f"{plan.dates[0]}/{plan.dates[-1]}",
            details={"command": plan.command, "nights": len(nights), "model": model},
        )
    return DemoLoaded(
        nights=tuple(nights), shifted=plan.shifted, shifted_category=SHIFTED_CATEGORY, reviews=loader.reviews
    )


def made_with() -> str:
    """The version of the packaged taxonomy, which the made-up nights are sorted by."""
    from refund.model.labels import load_labels
    from refund.model.taxonomy import load_taxonomy

    return load_taxonomy(labels=load_labels()).version


def _refuse_others(plan: DemoPlan, known: Any, *, model: str, taxonomy_version: str) -> None:
    for run in known:
        other = next((note for note in run.notes if note != plan.note and note.startswith("made up")), None)
        if other is not None:
            found, wanted = other.partition(": ")[2], plan.command
        elif (run.model, run.taxonomy_version) != (model, taxonomy_version):
            found = f"model {run.model} and taxonomy {run.taxonomy_version}"
            wanted = f"model {model} and taxonomy {taxonomy_version}"
        else:
            continue
        msg = (
            f"made-up nights are there already, of: {found}; asked for: {wanted}. Two demos are never mixed: "
            f"remove the one that is there first, with: refund demo --remove"
        )
        raise rows.DemoError(msg)


class _Loader:
    """Loads one night after the other, oldest first; the days before it are drawn once and kept."""

    def __init__(
        self, plan: DemoPlan, services: Services, *, model: str, taxonomy_version: str, pictures: Sequence[bytes]
    ) -> None:
        self.plan = plan
        self.services = services
        self.model = model
        self.taxonomy_version = taxonomy_version
        self.pictures = pictures
        self.reviews = 0
        self._classes = made.classes_by_category()
        self._days: dict[date, tuple[DemoPhoto, ...]] = {}
        self._waiting: list[made.DemoReview] = []  # of nights that were seen, not yet written
        self._reviewed_to = plan.dates[0]  # the nights before this one were seen

    def load(self, day: date) -> None:
        """Publish the night of ``day`` and write its report, at the time when a real one would."""
        started = start_of(day)
        tonight, unchanged = self._photos(day), self._unchanged(day)
        params = NightParams(run_date=day.isoformat(), prefix=PREFIX, late_days=LATE_DAYS, review_threshold=THRESHOLD)
        run = NightRun(run_id=run_id(day), run_date=day, params=params)
        rows.begin_demo_run(
            self.services.database,
            run_id=run.run_id,
            run_date=day,
            model=self.model,
            taxonomy_version=self.taxonomy_version,
            code_version=__version__,
            params=asdict(params),
            note=self.plan.note,
            at=started,
        )
        self._review_until(day)
        rejected = sum(photo.reason is not None for photo in tonight)
        metrics = _stage_metrics(len(tonight), rejected=rejected, unchanged=len(unchanged), seed=day.toordinal())
        worked_s = sum(stage.seconds for stage in metrics.values())
        publish(
            self.services.database,
            run_id=run.run_id,
            shards=[self._tables(tonight)],
            unchanged=_table("manifest", made.manifest_rows(unchanged, self._bucket)),
            expected=OutcomeCounts(
                photos=len(tonight) + len(unchanged),
                classified=len(tonight) - rejected,
                rejected=rejected,
                unchanged=len(unchanged),
            ),
            audit_share=self.services.settings.audit_share,
            at=started + timedelta(seconds=worked_s),
        )
        self.services.repository.set_stage_metrics(run.run_id, metrics)
        then = replace(self.services, now=lambda: started + timedelta(seconds=worked_s + 5))
        write_report(run, then)
        raise_alerts(run, then, task_states={})  # without channels: nobody is told of what did not happen

    def describe(self, day: date, *, new: bool) -> DemoNight:
        """What lies in the stores of the night of ``day``.

        Raises:
            FatalRunError: it has no counts or no report.
        """
        counts = self.services.repository.require_run(run_id(day)).counts
        report = self.services.repository.get_report(run_id=run_id(day))
        if counts is None or report is None:
            msg = (
                f"the made-up night of {day} has no counts or no report; remove it and load it again: {self.plan.note}"
            )
            raise FatalRunError(msg)
        statuses = {row.measure: row.status for row in get_drift(self.services.database, run_id(day))}
        return DemoNight(run_date=day, counts=counts, drift=statuses, report=report.html_uri, new=new)

    @property
    def _bucket(self) -> str:
        return self.services.objects.bucket

    def _day(self, day: date) -> tuple[DemoPhoto, ...]:
        """All photos of a photo date; none before the first."""
        if day < self.plan.dates[0]:
            return ()
        if day not in self._days:
            photos = made.draw_day(self.plan, day, classes=self._classes)
            self._days[day] = self._with_pictures(photos) if day == self.plan.shifted else photos
            self._days.pop(day - timedelta(days=LATE_DAYS + 2), None)
        return self._days[day]

    def _photos(self, day: date) -> list[DemoPhoto]:
        """What the night finds first: its own photos but the late ones, and the late ones of the day before."""
        own, before = self._day(day), self._day(day - timedelta(days=1))
        return [photo for photo in own if not photo.late] + [photo for photo in before if photo.late]

    def _unchanged(self, day: date) -> list[DemoPhoto]:
        """What the nights before have dealt with and this one lists again."""
        dates = [day - timedelta(days=back) for back in range(LATE_DAYS, 0, -1)]
        return [photo for earlier in dates for photo in self._day(earlier) if photo.run_date < day]

    def _tables(self, photos: Sequence[DemoPhoto]) -> ShardTables:
        return ShardTables(
            manifest=_table("manifest", made.manifest_rows(photos, self._bucket)),
            photos=_table("photos", made.photo_rows(photos, self._bucket)),
            predictions=_table("predictions", made.prediction_rows(photos, self._bucket, self.model)),
        )

    def _review_until(self, day: date) -> None:
        """Write what people said between the night before and this one, so that its report finds the queue as it was.

        Of a load that goes on where it was killed, the nights before are looked at again.
        """
        while self._reviewed_to < day:
            photos = self._photos(self._reviewed_to)
            share = self.services.settings.audit_share
            self._waiting += made.reviews(photos, bucket=self._bucket, audit_share=share)
            self._reviewed_to += timedelta(days=1)
        due = [review for review in self._waiting if review.reviewed_at < start_of(day)]
        self._waiting = [review for review in self._waiting if review.reviewed_at >= start_of(day)]
        self.reviews += rows.add_reviews(
            self.services.database,
            [
                (review.photo_date, review.photo_id, review.category, review.reviewed_at, review.chosen_by)
                for review in due
            ],
        )

    def _with_pictures(self, photos: tuple[DemoPhoto, ...]) -> tuple[DemoPhoto, ...]:
        """Put pictures under the keys that the report shows; their ETag, size and hash become the photos'."""
        there: dict[str, DemoPhoto] = {}
        shown = made.surest(photos, SHIFTED_CATEGORY, len(self.pictures))
        for photo, body in zip(shown, self.pictures, strict=False):
            self.services.objects.put(photo.key, body, content_type="image/jpeg")
            found = self.services.objects.head(photo.key)
            if found is not None:
                there[photo.key] = replace(
                    photo, etag=found.etag, size_bytes=found.size_bytes, sha256=sha256(body).hexdigest()
                )
        return tuple(there.get(photo.key, photo) for photo in photos)


def _table(kind: str, found: list[dict[str, Any]]) -> Any:
    import pyarrow as pa

    from refund import schemas

    return pa.Table.from_pylist(found, schema=getattr(schemas, f"{kind}_schema")())


def _stage_metrics(photos: int, *, rejected: int, unchanged: int, seed: int) -> dict[str, StageMetrics]:
    """What the stages of such a night report of themselves: latencies spread as those of real photos are."""
    import numpy as np

    random = np.random.default_rng(seed)
    stages = {
        "health_check": StageMetrics(seconds=0.4),
        "fetch": StageMetrics(seconds=0.3 + 5e-5 * (photos + unchanged), photos=photos + unchanged, failed=0),
    }
    for name, (worked_on, failed) in {"validate": (photos, rejected), "classify": (photos - rejected, 0)}.items():
        times = _CHARGED_MS[name] * random.lognormal(-0.08, 0.4, worked_on)
        stages[name] = StageMetrics(
            seconds=float(times.sum()) / 1000, photos=worked_on, failed=failed, latencies=Latencies.of(times)
        )
    stages["persist"] = StageMetrics(seconds=0.4 + 2e-4 * photos, photos=photos, failed=0)
    return stages


def remove_demo(services: Services, owner: Database, *, by: str) -> DemoRemoved:
    """Delete every made-up row, and every object that belongs to one; nothing else, and nothing where there is none.

    Objects first, by the rows that name them: killed between, it goes on when it is called again.

    Args:
        services: the stores.
        owner: the database as ``refund_owner``.
        by: who asked for it, for ``refund.audit``.
    """
    with rows.alone(services.database):
        runs = rows.demo_runs(services.database)
        if not runs:
            return DemoRemoved(nights=0, rows={}, objects=0)
        first, last = runs[0].run_date, runs[-1].run_date
        doomed = _objects(services, runs, named=rows.demo_keys(services.database, first=first, last=last))
        for key in doomed:
            services.objects.delete(key)
        for run in runs:
            if services.settings.report_dir:
                folder = keys.report_prefix(run_date=run.run_date, run_id=run.run_id).removeprefix("reports/")
                shutil.rmtree(Path(services.settings.report_dir) / folder, ignore_errors=True)
        deleted = rows.delete_demo_rows(owner, first=first, last=last)
        details = {"nights": len(runs), "rows": sum(deleted.values()), "objects": len(doomed)}
        rows.audit_demo(
            services.database,
            at=services.now(),
            actor=by,
            action="demo_remove",
            subject=f"{first}/{last}",
            details=details,
        )
    return DemoRemoved(nights=len(runs), rows=deleted, objects=len(doomed))


def _objects(services: Services, runs: Sequence[rows.DemoRun], *, named: set[str]) -> list[str]:
    """The keys below the made-up nights' own folders: pictures, whether or not a row names them yet, and reports."""
    found = []
    for run in runs:
        pictures = [item.key for item in services.objects.list(keys.date_prefix(PREFIX, run.run_date))]
        found += [key for key in pictures if key in named or _KEY.fullmatch(key)]
        reports = keys.report_prefix(run_date=run.run_date, run_id=run.run_id)
        found += [item.key for item in services.objects.list(reports)]
    return found
