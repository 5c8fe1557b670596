"""Nights to report on, with overrides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from refund.monitor.drift import CategoryMove, DriftResult, DriftStatus
from refund.records import OutcomeCounts, Reconciliation
from refund.report.figures import ReportFigures
from refund.report.rows import (
    AlertRow,
    CategoryRow,
    ContradictionRow,
    DepartmentRow,
    EarlierRow,
    EvaluationRow,
    ExampleRow,
    ModelRow,
    QualityRow,
    ReasonRow,
    StageRow,
)

if TYPE_CHECKING:
    from refund.report.thumbnails import Thumbnail

MEASURES = ("category_shares", "largest_move", "volume", "rejection_rate")
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


def drift(
    tonight: Mapping[str, int], usual: Mapping[str, int], *, nights: int, rejected: int
) -> tuple[DriftResult, ...]:
    """The four measures as a night's comparison gives them, by simple rules instead of statistics."""
    photos, usual_photos = sum(tonight.values()), sum(usual.values())
    values: dict[str, Any] = {
        "tonight_photos": photos,
        "reference_photos": usual_photos * nights,
        "reference_nights": nights,
    }
    if not nights or photos < 100:
        status = DriftStatus.INSUFFICIENT_DATA if nights else DriftStatus.NO_REFERENCE
        nothing = {"status": status, "distance": None, "threshold": None, "p_value": None}
        return tuple(DriftResult(measure=measure, **nothing, **values) for measure in MEASURES)
    moves = tuple(
        sorted(
            (
                CategoryMove(
                    category=name,
                    tonight_share=tonight.get(name, 0) / photos,
                    reference_share=usual.get(name, 0) / usual_photos,
                )
                for name in sorted({*tonight, *usual})
            ),
            key=lambda move: -abs(move.change),
        )
    )
    rejected_share, usual_rejected = rejected / (photos + rejected), 0.013
    distances = (
        sum(abs(move.change) for move in moves) / 2,
        abs(moves[0].change),
        1 - min(photos, usual_photos) / max(photos, usual_photos),
        abs(rejected_share - usual_rejected),
    )
    seen: tuple[dict[str, Any], ...] = (
        {"moves": moves, "total_variation": distances[0]},
        {
            "moves": moves[:1],
            "tonight_value": moves[0].tonight_share,
            "reference_value": moves[0].reference_share,
        },
        {"tonight_value": float(photos + rejected), "reference_value": float(usual_photos + 31)},
        {"tonight_value": rejected_share, "reference_value": usual_rejected},
    )
    return tuple(
        DriftResult(
            measure=measure,
            status=DriftStatus.DRIFT if distance > 1.2 * floor else DriftStatus.OK,
            distance=distance,
            threshold=1.2 * floor,
            p_value=0.0001 if distance > 1.2 * floor else 0.4,
            floor=floor,
            alpha=0.01,
            overdispersion=0.004,
            chance=1.2 * floor,
            alpha_part=0.0025,
            nights=tuple(f"2026-10-{day:02}" for day in range(1, 4)),
            basis="all_nights",
            **values,
            **more,
        )
        for measure, distance, floor, more in zip(MEASURES, distances, (0.1, 0.03, 0.3, 0.02), seen, strict=True)
    )


def earlier(nights: int, *, before: date = date(2026, 11, 21)) -> tuple[EarlierRow, ...]:
    return tuple(
        EarlierRow(
            run_date=before - timedelta(days=nights - n),
            photos=2400 + 17 * (n % 5),
            auto_share=0.86 + 0.01 * (n % 4),
            rejected_share=0.011 + 0.002 * (n % 3),
        )
        for n in range(nights)
    )


def departments(photos: Mapping[str, int]) -> tuple[DepartmentRow, ...]:
    return tuple(
        DepartmentRow(department=name, refunds=(n + 1) // 2, photos=n, auto=n // 2 - n // 12, contradicting=n // 60)
        for name, n in sorted(photos.items(), key=lambda item: -item[1])
    )


CONTRADICTIONS = (
    ContradictionRow(
        refund_id="R-10024",
        photos=3,
        categories={"shoes": 2, "clothing": 1},
        declared="shoes",
        disagree=True,
        undeclared=True,
        keys=("incoming/2026-11-21/R-10024/img_1.jpg", "incoming/2026-11-21/R-10024/img_3.jpg"),
    ),
    ContradictionRow(
        refund_id="R-10311",
        photos=1,
        categories={"toys_games": 1},
        declared="electronics",
        disagree=False,
        undeclared=True,
        keys=("incoming/2026-11-21/R-10311/front.png",),
    ),
)


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
        "drift": drift(photos, USUAL, nights=reference, rejected=refused),
        "quality": (QualityRow(label="blurry", photos=61), QualityRow(label="dark", photos=14)) if classified else (),
        "stages": (
            StageRow(stage="fetch", seconds=1.4, photos=listed, failed=0),
            StageRow(
                stage="validate", seconds=9.3, photos=listed, failed=refused, p50_ms=3.1, p95_ms=14.2, p99_ms=61.0
            ),
            StageRow(stage="classify", seconds=14.8, photos=classified, failed=0, p50_ms=5.8, p95_ms=7.4, p99_ms=12.9),
            StageRow(stage="persist", seconds=0.9, photos=listed, failed=0),
        ),
        "departments": departments(photos),
        "refunds_disagree": sum(n // 60 for n in photos.values()) // 2,
        "refunds_undeclared": sum(n // 60 for n in photos.values()) - sum(n // 60 for n in photos.values()) // 2,
        "contradictions": CONTRADICTIONS if sum(n // 60 for n in photos.values()) > 1 else (),
        "earlier": earlier(reference),
        "photos_per_second": 98.4 if classified else None,
        "late_photos": 12 if classified else 0,
        "size_bytes": 268_400_000 if classified else 0,
    }
    return ReportFigures(**values | overrides)


def empty_night(**overrides: Any) -> ReportFigures:
    return night({}, rejected={}, review_queue_count=overrides.pop("review_queue_count", 0), **overrides)


def shifted_night(**overrides: Any) -> ReportFigures:
    """A night with a fifth more toys than usual, and pictures of what moved."""
    photos = {**USUAL, "toys_games": 620, "clothing": 640, "electronics": 300}
    examples = tuple(
        ExampleRow(category=category, key=f"incoming/2026-11-21/R-{seed}/{category}.jpg", score=0.99 - seed / 100)
        for category in ("toys_games", "clothing")
        for seed in range(4)
    )
    alert = AlertRow(
        rule="rejection_spike", severity="warning", message="9.1% of the photos were rejected, usually 1.3%."
    )
    return night(photos, **{"examples": examples, "alerts": (alert,), **overrides})


def thumbnails(figures: ReportFigures) -> dict[str, Thumbnail]:
    """Made-up pictures of a report's examples, by key."""
    import numpy as np

    from refund.report.thumbnails import make_thumbnail

    random = np.random.default_rng(5)
    made = {}
    for example in figures.examples:
        down, across = np.mgrid[0:320, 0:320]
        colour = random.integers(40, 230, size=3)
        disc = ((down - 160) ** 2 + (across - 160) ** 2 < random.integers(60, 140) ** 2)[..., None]
        pixels = np.where(disc, colour, 235 - (down[..., None] // 4)).astype(np.uint8)
        made[example.key] = make_thumbnail(pixels, width_px=1200, height_px=int(random.integers(700, 1700)))
    return made


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
        contradictions=tuple(
            ContradictionRow(
                refund_id=f"</th><script>alert({number})</script>",
                photos=1,
                categories={"<b>x</b>": 1},
                declared="<u>y</u>",
                disagree=True,
                undeclared=False,
                keys=(name,),
            )
            for number, name in enumerate(HOSTILE)
        ),
        alerts=(AlertRow(rule="<i>r</i>", severity="critical", message="</p><script>alert(5)</script>"),),
        examples=tuple(ExampleRow(category="clothing", key=name, score=0.9) for name in HOSTILE),
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
