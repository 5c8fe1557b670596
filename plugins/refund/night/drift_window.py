"""Measures tonight against its reference window: which nights are compared with which."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from refund.night.services import Services

if TYPE_CHECKING:
    from refund.monitor.drift import DriftResult
    from refund.store.records import NightFigures, RunRow


def measure_drift(row: RunRow, night: NightFigures, services: Services) -> tuple[DriftResult, ...]:
    """Compare the night with the nights before it, by every measure of `refund.monitor.drift.judge_night`.

    Only like with like: where two models sorted the night, the photos of the one that sorted most of them, and in
    either case only what that same model and the same taxonomy sorted on earlier nights. How many photos there were and
    what share was rejected has nothing to do with the model: that is measured on whole nights, or every rollback during
    a night would look like missing photos. Made-up nights are compared with made-up ones, real with real.
    """
    from refund.monitor.drift import REJECTION_RATE, VOLUME, DriftLimits, NightCounts, judge_night
    from refund.store.drift import reference_nights, whole_nights

    settings = services.settings
    model = next(iter(night.model_counts), row.model)
    tonight = NightCounts(
        run_date=row.run_date,
        categories=night.model_categories.get(model, {}),
        rejected=sum(night.night_rejections.values()),
    )
    window = reference_nights(
        services.database,
        run_date=row.run_date,
        model=model,
        count=settings.drift_reference_nights,
        taxonomy_version=row.taxonomy_version,
        synthetic=row.synthetic,
    )
    limits = DriftLimits(
        alpha=settings.drift_alpha,
        distance_floor=settings.drift_distance_floor,
        move_floor=settings.drift_move_floor,
        volume_floor=settings.drift_volume_floor,
        rejection_floor=settings.drift_rejection_floor,
        min_photos=settings.drift_min_photos,
    )
    results = judge_night(tonight, window, limits=limits)
    total: Counter[str] = Counter()
    for photos in night.model_categories.values():
        total.update(photos)
    all_of_it = replace(tonight, categories=dict(total))
    all_of_them = whole_nights(
        services.database, window, model=model, taxonomy_version=row.taxonomy_version, synthetic=row.synthetic
    )
    if (all_of_it, all_of_them) != (tonight, window):
        whole = {result.measure: result for result in judge_night(all_of_it, all_of_them, limits=limits)}
        results = tuple(
            whole[result.measure] if result.measure in (VOLUME, REJECTION_RATE) else result for result in results
        )
    if all_of_it.photos or row.run_date.weekday() in settings.delivery_weekdays:
        return results
    return tuple(_not_judged(result) if result.measure == VOLUME else result for result in results)


def _not_judged(result: DriftResult) -> DriftResult:
    """The result without a verdict: no photo is what is expected of a day without deliveries."""
    from refund.monitor.drift import DriftStatus

    if result.status == DriftStatus.NO_REFERENCE:
        return result
    return replace(result, status=DriftStatus.INSUFFICIENT_DATA, distance=None, threshold=None, p_value=None)
