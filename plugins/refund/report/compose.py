"""Puts together what the report shows from what the database counts; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

from refund.errors import FatalRunError
from refund.report import rows
from refund.report.figures import ReportFigures

if TYPE_CHECKING:
    from refund.monitor.drift import DriftResult
    from refund.store.records import NightFigures, RunRow

_STAGES = ("health_check", "fetch", "validate", "classify", "persist", "generate_report")
_PER_PHOTO_STAGES = ("validate", "classify")


def report_figures(
    row: RunRow,
    night: NightFigures,
    drift: Sequence[DriftResult],
    *,
    model_summaries: Mapping[str, str],
    at: datetime,
    examples: Sequence[rows.ExampleRow] = (),
) -> ReportFigures:
    """Put together what the report shows; pure. ``model_summaries`` has the run's model and all of the night's."""
    counts, sums = row.counts, night.reconciliation
    if counts is None or sums is None:
        msg = f"run {row.run_id!r} is published without counts; look at reporting.reconciliation"
        raise FatalRunError(msg)
    reference = {move.category: move.reference_share for result in drift for move in result.moves}
    classified = sum(category.photos for category in night.categories)
    work_seconds = sum(night.stage_seconds.get(stage, 0.0) for stage in _PER_PHOTO_STAGES)
    handled = counts.classified + counts.rejected
    rejected_examples, refunds = night.example_rejections, night.refunds
    return ReportFigures(
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
            rows.CategoryRow(
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
            rows.ReasonRow(
                reason=reason,
                photos=photos,
                example_keys=tuple(example.key for example in rejected_examples if example.reason == reason),
            )
            for reason, photos in night.night_rejections.items()
        ),
        review_queue_count=night.review_queue,
        reconciliation=sums,
        drift=tuple(drift),
        quality=tuple(rows.QualityRow(label=label, photos=photos) for label, photos in night.quality_labels.items()),
        stages=_stages(night),
        photos_per_second=handled / work_seconds if handled and work_seconds else None,
        late_photos=night.late_photos,
        size_bytes=night.size_bytes,
        notes=row.notes,
        synthetic=row.synthetic,
        models=tuple(
            rows.ModelRow(
                model=model,
                photos=photos,
                summary=model_summaries[model],
                evaluation=rows.EvaluationRow(**asdict(night.evaluations[model]))
                if model in night.evaluations
                else None,
            )
            for model, photos in night.model_counts.items()
        ),
        audits=night.audits,
        departments=None
        if refunds is None
        else tuple(rows.DepartmentRow(**asdict(row)) for row in refunds.departments),
        refunds_disagree=refunds.disagree if refunds else 0,
        refunds_undeclared=refunds.undeclared if refunds else 0,
        contradictions=tuple(rows.ContradictionRow(**asdict(row)) for row in refunds.examples) if refunds else (),
        earlier=tuple(rows.EarlierRow(**asdict(row)) for row in night.earlier),
        alerts=tuple(rows.AlertRow(**asdict(row)) for row in night.open_alerts),
        examples=tuple(examples),
    )


def _stages(night: NightFigures) -> tuple[rows.StageRow, ...]:
    """Seconds and, where the run measured more, photos, failures and latencies; in the order of the stages."""
    known = ("photos", "failed", "p50_ms", "p95_ms", "p99_ms")
    names = [*_STAGES, *sorted({*night.stage_seconds, *night.stage_metrics} - set(_STAGES))]
    return tuple(
        rows.StageRow(
            stage=stage,
            seconds=night.stage_seconds.get(stage),
            **{name: night.stage_metrics.get(stage, {}).get(name) for name in known},
        )
        for stage in names
        if stage in night.stage_seconds or stage in night.stage_metrics
    )
