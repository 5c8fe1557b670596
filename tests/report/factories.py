"""Nights to report on, with overrides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

from refund.monitor.drift import DriftResult, compare_shares
from refund.records import OutcomeCounts, Reconciliation
from refund.report.figures import (
    CategoryRow,
    EvaluationRow,
    ModelRow,
    QualityRow,
    ReasonRow,
    ReportFigures,
    StageSeconds,
)

USUAL = {
    "clothing": 900,
    "shoes": 520,
    "electronics": 410,
    "kitchen_dining": 300,
    "bags_luggage": 210,
    "toys_games": 90,
}
HOSTILE = (
    "incoming/2026-11-21/<script>alert(1)</script>/a.jpg",
    'incoming/2026-11-21/"onload="x/{{ 7*7 }}.jpg',
    "incoming/2026-11-21/\u202egpj.exe\x00\ud800\n<img src=https://example.com/x>.jpg",
    '=HYPERLINK("https://example.com")',
)
TWO_MODELS = (  # a night during which the champion was rolled back
    ModelRow(
        model="mobilenet_v2@1.0.0-float32",
        photos=2000,
        summary="LiteRT float32",
        evaluation=EvaluationRow(set_name="returns.csv", photos=250, accuracy=0.912, low=0.876, high=0.944),
    ),
    ModelRow(model="mobilenet_v2@1.1.0-int8", photos=430, summary="LiteRT int8"),
)


def categories(photos: Mapping[str, int], usual: Mapping[str, int] | None = None) -> tuple[CategoryRow, ...]:
    total = sum(photos.values())
    usual_total = sum((usual or {}).values())
    return tuple(
        CategoryRow(
            category=name,
            photos=number,
            share=number / total,
            auto=number - number // 9,
            review=number // 9,
            mean_score=0.82,
            reference_share=usual.get(name, 0) / usual_total if usual else None,
        )
        for name, number in sorted(photos.items(), key=lambda item: -item[1])
    )


def drift(tonight: Mapping[str, int], reference: list[Mapping[str, int]]) -> tuple[DriftResult, ...]:
    return (compare_shares(tonight, reference, distance_floor=0.1, min_photos=100),)


def night(
    photos: Mapping[str, int] = USUAL,
    *,
    reference: int = 28,
    rejected: Mapping[str, int] | None = None,
    unchanged: int = 0,
    **overrides: Any,
) -> ReportFigures:
    """A normal night; ``photos`` by category, ``rejected`` by reason, ``unchanged`` listed beside them."""
    rejected = {"truncated": 21, "not_an_image": 9, "too_small": 2} if rejected is None else rejected
    classified, refused = sum(photos.values()), sum(rejected.values())
    listed = classified + refused + unchanged
    values: dict[str, Any] = {
        "run_id": "scheduled__2026-11-22T02:00:00+00:00",
        "run_date": date(2026, 11, 21),
        "generated_at": datetime(2026, 11, 22, 2, 4, 31, tzinfo=UTC),
        "model": "mobilenet_v2@1.0.0-float32",
        "model_summary": "LiteRT float32, 224×224, from Keras ImageNet weights",
        "taxonomy_version": "1",
        "code_version": "0.1.0",
        "counts": OutcomeCounts(photos=listed, classified=classified, rejected=refused, unchanged=unchanged),
        "night_photos": classified + refused,
        "categories": categories(photos, USUAL if reference else None),
        "rejections": tuple(
            ReasonRow(reason=reason, photos=number, example_keys=(f"incoming/2026-11-21/R-100{number}/img_1.jpg",))
            for reason, number in rejected.items()
        ),
        "review_queue_count": 312,
        "reconciliation": Reconciliation(
            manifest=listed,
            outcomes=listed,
            classified=classified,
            rejected=refused,
            unchanged=unchanged,
            decisions=classified,
            adds_up=True,
            packed=classified + refused,
            predicted=classified,
            overtaken=0,
        ),
        "drift": drift(photos, [USUAL] * reference),
        "quality": (QualityRow(label="blurry", photos=61), QualityRow(label="dark", photos=14)) if classified else (),
        "stage_seconds": (
            StageSeconds(stage="fetch", seconds=1.4),
            StageSeconds(stage="validate", seconds=9.3),
            StageSeconds(stage="classify", seconds=14.8),
            StageSeconds(stage="persist", seconds=0.9),
        ),
        "photos_per_second": 98.4 if classified else None,
        "late_photos": 12 if classified else 0,
        "size_bytes": 268_400_000 if classified else 0,
    }
    return ReportFigures(**values | overrides)


def empty_night(**overrides: Any) -> ReportFigures:
    return night({}, rejected={}, review_queue_count=overrides.pop("review_queue_count", 0), **overrides)


def overtaken_night() -> ReportFigures:
    """A night of which another run published some photos meanwhile."""
    figures = night(unchanged=1_000_000)
    return replace(figures, reconciliation=replace(figures.reconciliation, overtaken=999_999))


def hostile_night() -> ReportFigures:
    """A night in which every text that comes from outside tries to be more than text."""
    normal = night({"<b>$x_{1}$</b>&\u202e日本": 200, "clothing": 100}, rejected={})
    return replace(
        normal,
        night_photos=307,
        rejections=(
            ReasonRow(reason="corrupt", photos=4, example_keys=HOSTILE[:3]),
            ReasonRow(reason="<i>odd</i>", photos=3, example_keys=HOSTILE[3:]),
        ),
        run_id='manual__"><script>alert(2)</script>',
        model="<svg onload=alert(3)>@1",
        model_summary="</style><script>alert(4)</script>",
        notes=('</p><iframe src="https://example.com">',),
        models=tuple(
            ModelRow(
                model=f"<svg onload=alert(3)>@{number}",
                photos=150,
                summary="</style><script>alert(4)</script>",
                evaluation=EvaluationRow(set_name=name, photos=1, accuracy=1.0, low=1.0, high=1.0),
            )
            for number, name in enumerate(HOSTILE[:2], start=1)
        ),
    )
