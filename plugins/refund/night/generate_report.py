"""After persist: measure drift and commit it, then write the morning report to Postgres and S3."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from refund import keys
from refund.errors import FatalRunError, ReconciliationError
from refund.night.services import NightRun, Services, Stopwatch

if TYPE_CHECKING:
    from refund.monitor.drift import DriftResult
    from refund.report.figures import ReportFigures
    from refund.store.records import NightFigures, RunRow

log = logging.getLogger(__name__)

_STAGES = ("health_check", "fetch", "validate", "classify", "persist", "generate_report")
_PER_PHOTO_STAGES = ("validate", "classify")
HTML_FILE = "report.html"
CSV_FILE = "report.csv"


def write_report(run: NightRun, services: Services) -> dict[str, str]:
    """Measure drift, then render page and table; run again, they are made again from what the tables say then.

    Returns:
        The URIs of page and table, or an empty dict after a dry run, which publishes nothing to report.
    """
    from refund.report.csv_table import render_csv
    from refund.report.page import render_html

    watch = Stopwatch()
    row = services.repository.require_run(run.run_id)
    if row.state != "published":
        log.info("This run is a %s: there is nothing to report", row.state.replace("_", " "))
        return {}
    night = services.repository.night_figures(run.run_id)
    drift = measure_drift(row, night, services)
    services.repository.save_drift(run.run_id, row.run_date, drift, at=services.now())
    decided_by = dict.fromkeys([row.model, *night.model_counts])
    summaries = {model: services.registry.resolve(model).card.summary for model in decided_by}
    figures = report_figures(row, night, drift, model_summaries=summaries, at=services.now())
    page, table = render_html(figures), render_csv(figures)
    folder = keys.report_prefix(run_date=row.run_date, run_id=row.run_id)
    services.objects.put(folder + HTML_FILE, page.encode(), content_type="text/html; charset=utf-8")
    services.objects.put(folder + CSV_FILE, table.encode(), content_type="text/csv; charset=utf-8")
    uris = {"html": services.objects.uri(folder + HTML_FILE), "csv": services.objects.uri(folder + CSV_FILE)}
    services.repository.save_report(
        run_id=row.run_id,
        run_date=row.run_date,
        body=figures.to_dict(),
        html_uri=uris["html"],
        csv_uri=uris["csv"],
        at=services.now(),
    )
    if services.settings.report_dir:
        _copy_to(Path(services.settings.report_dir) / folder.removeprefix("reports/"), page, table)
    services.repository.set_stage_seconds(run.run_id, {"generate_report": watch.seconds})
    if not figures.reconciliation.adds_up:
        msg = (
            f"the tables of run {row.run_id!r} do not add up: {figures.reconciliation}; the report is written and "
            f"says so. Compare reporting.reconciliation with the run's manifest before anybody relies on this night"
        )
        raise ReconciliationError(msg)
    return uris


def report_figures(
    row: RunRow, night: NightFigures, drift: DriftResult, *, model_summaries: Mapping[str, str], at: datetime
) -> ReportFigures:
    """Put together what the report shows; pure. ``model_summaries`` has the run's model and all of the night's."""
    from refund.report import figures

    counts, sums = row.counts, night.reconciliation
    if counts is None or sums is None:
        msg = f"run {row.run_id!r} is published without counts; look at reporting.reconciliation"
        raise FatalRunError(msg)
    reference = {move.category: move.reference_share for move in drift.moves}
    classified = sum(category.photos for category in night.categories)
    work_seconds = sum(night.stage_seconds.get(stage, 0.0) for stage in _PER_PHOTO_STAGES)
    handled = counts.classified + counts.rejected
    examples = night.example_rejections
    return figures.ReportFigures(
        run_id=row.run_id,
        run_date=row.run_date,
        generated_at=at,
        model=row.model,
        model_summary=model_summaries[row.model],
        taxonomy_version=row.taxonomy_version,
        code_version=row.code_version,
        counts=counts,
        night_photos=classified + sum(night.night_rejections.values()),
        categories=tuple(
            figures.CategoryRow(
                category=category.category,
                photos=category.photos,
                share=category.photos / classified,
                auto=category.auto,
                review=category.review,
                mean_score=category.mean_score,
                reference_share=reference.get(category.category),
            )
            for category in night.categories
        ),
        rejections=tuple(
            figures.ReasonRow(
                reason=reason,
                photos=photos,
                example_keys=tuple(example.key for example in examples if example.reason == reason),
            )
            for reason, photos in night.night_rejections.items()
        ),
        review_queue_count=night.review_queue,
        reconciliation=sums,
        drift=drift,
        quality=tuple(figures.QualityRow(label=label, photos=photos) for label, photos in night.quality_labels.items()),
        stage_seconds=tuple(
            figures.StageSeconds(stage=stage, seconds=night.stage_seconds[stage])
            for stage in _STAGES
            if stage in night.stage_seconds
        ),
        photos_per_second=handled / work_seconds if handled and work_seconds else None,
        late_photos=night.late_photos,
        size_bytes=night.size_bytes,
        notes=row.notes,
        synthetic=row.synthetic,
        models=tuple(
            figures.ModelRow(
                model=model,
                photos=photos,
                summary=model_summaries[model],
                evaluation=figures.EvaluationRow(**asdict(night.evaluations[model]))
                if model in night.evaluations
                else None,
            )
            for model, photos in night.model_counts.items()
        ),
        audits=night.audits,
    )


def measure_drift(row: RunRow, night: NightFigures, services: Services) -> DriftResult:
    """Compare category shares of the night with those of the nights before it.

    Only like with like: where two models sorted the night, the photos of the one that sorted most of them, and in
    either case only what that same model and the same taxonomy sorted on earlier nights.
    """
    from refund.monitor.drift import compare_shares

    settings = services.settings
    model = next(iter(night.model_counts), row.model)
    reference = services.repository.reference_shares(
        row.run_date, model, settings.drift_reference_nights, taxonomy_version=row.taxonomy_version
    )
    return compare_shares(
        night.model_categories.get(model, {}),
        reference,
        distance_floor=settings.drift_distance_floor,
        min_photos=settings.drift_min_photos,
    )


def _copy_to(folder: Path, page: str, table: str) -> None:
    """Keep a copy on disk for people without S3; a full disk must not cost the night its report."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in ((HTML_FILE, page), (CSV_FILE, table)):
            temporary = folder / f".{name}.tmp"
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(folder / name)
    except OSError as exc:
        log.warning("No copy of the report in %s: %s", folder, exc)
