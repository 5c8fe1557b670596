"""Every figure of the morning report in one record: what page, table and terminal show, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import Any, Self

from refund.monitor.drift import DriftResult
from refund.records import OutcomeCounts, Reconciliation
from refund.report.labels import visible
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

SCHEMA_VERSION = 2  # 1: without refunds, earlier nights, alerts, examples; stages with seconds alone


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFigures:
    """Everything the report says about one night.

    Two sets of counts, never mixed: ``counts`` is what *this run* made of its manifest; ``night_photos``,
    ``categories`` and ``rejections`` are what *stands for the night* (its run date), whichever of its runs decided it.

    Raises:
        ValueError: categories and rejections do not add up to ``night_photos``, or ``generated_at`` has no time zone.
    """

    run_id: str
    run_date: date
    generated_at: datetime  # aware
    model: str  # name@version that the run began with
    model_summary: str  # one line from the model card
    taxonomy_version: str
    code_version: str
    counts: OutcomeCounts
    night_photos: int  # photos with a standing outcome of this night, classified or rejected
    categories: tuple[CategoryRow, ...]  # most photos first
    rejections: tuple[ReasonRow, ...]  # most photos first
    review_queue_count: int  # everything that waits for a person, earlier nights included
    reconciliation: Reconciliation
    drift: tuple[DriftResult, ...]  # category shares first
    quality: tuple[QualityRow, ...] = ()
    stages: tuple[StageRow, ...] = ()  # in their order
    photos_per_second: float | None = None
    late_photos: int = 0  # of this run's, those whose photo date lies before the run date
    size_bytes: int = 0  # of the night's photos
    notes: tuple[str, ...] = ()  # what was odd but did not stop the night
    synthetic: bool = False  # a made-up night of the demo
    models: tuple[ModelRow, ...] = ()  # most photos first; more than one where the champion was rolled back meanwhile
    audits: int = 0  # of the night's automatic decisions, those marked for people to check
    departments: tuple[DepartmentRow, ...] | None = None  # most refunds first; None: not counted, as in version 1
    refunds_disagree: int = 0  # refunds whose photos belong to several categories
    refunds_undeclared: int = 0  # refunds with a photo of another category than was declared
    contradictions: tuple[ContradictionRow, ...] = ()  # some of both
    earlier: tuple[EarlierRow, ...] = ()  # nights before this one, oldest first
    alerts: tuple[AlertRow, ...] = ()  # open when the report was written, gravest first
    examples: tuple[ExampleRow, ...] = ()  # of the categories that moved most, where the mix of goods differs

    def __post_init__(self) -> None:
        if self.generated_at.tzinfo is None:
            msg = f"generated_at must be an aware time, got {self.generated_at!r}"
            raise ValueError(msg)
        if self.classified + self.rejected != self.night_photos:
            msg = (
                f"the night has {self.night_photos} photos but {self.classified} in categories + "
                f"{self.rejected} rejected"
            )
            raise ValueError(msg)

    @property
    def mix(self) -> DriftResult:
        """The verdict on the shares of the categories."""
        return self.drift[0]

    @property
    def classified(self) -> int:
        """Photos of the night that have a category."""
        return sum(row.photos for row in self.categories)

    @property
    def rejected(self) -> int:
        """Photos of the night that were rejected."""
        return sum(row.photos for row in self.rejections)

    @property
    def auto(self) -> int:
        """Photos of the night that the machine sorted alone."""
        return sum(row.auto for row in self.categories)

    @property
    def review(self) -> int:
        """Photos of the night that were sent to a person."""
        return sum(row.review for row in self.categories)

    @property
    def refunds(self) -> int:
        """Refunds of the night, 0 where they were not counted."""
        return sum(row.refunds for row in self.departments or ())

    @property
    def contradicting(self) -> int:
        """Refunds whose photos disagree with one another or with what was declared."""
        return sum(row.contradicting for row in self.departments or ())

    @property
    def auto_share(self) -> float | None:
        """``auto`` over all photos of the night, 0 to 1; None for a night without photos."""
        return self.auto / self.night_photos if self.night_photos else None

    @property
    def rejected_share(self) -> float | None:
        """``rejected`` over all photos of the night, 0 to 1; None for a night without photos."""
        return self.rejected / self.night_photos if self.night_photos else None

    def to_dict(self) -> dict[str, Any]:
        """JSON values only; texts are freed of what Postgres' jsonb refuses (NUL, lone surrogates)."""
        figures = {"schema_version": SCHEMA_VERSION, **asdict(self)}
        figures["auto_share"] = self.auto_share
        figures["rejected_share"] = self.rejected_share
        plain = _plain(figures)
        assert isinstance(plain, dict)  # noqa: S101 - narrows the type
        return plain

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Self:
        """Read back what `to_dict` gave, for example from ``refund.report.body``.

        Raises:
            ValueError: the body was written by a newer version of the report.
        """
        version = body.get("schema_version")
        if version not in range(1, SCHEMA_VERSION + 1):
            msg = f"the report has schema version {version!r}, this code reads 1 to {SCHEMA_VERSION}; upgrade the code"
            raise ValueError(msg)
        values = {name: value for name, value in body.items() if name in cls.__dataclass_fields__}
        drift, departments = body["drift"], body.get("departments")
        return cls(
            **values
            | {
                "run_date": date.fromisoformat(body["run_date"]),
                "generated_at": datetime.fromisoformat(body["generated_at"]),
                "counts": OutcomeCounts(**body["counts"]),
                "categories": tuple(CategoryRow(**row) for row in body["categories"]),
                "rejections": tuple(
                    ReasonRow(**row | {"example_keys": tuple(row["example_keys"])}) for row in body["rejections"]
                ),
                "quality": tuple(QualityRow(**row) for row in body["quality"]),
                "stages": tuple(StageRow(**row) for row in body["stage_seconds" if version == 1 else "stages"]),
                "reconciliation": Reconciliation(**body["reconciliation"]),
                "drift": tuple(
                    DriftResult.from_dict(result)
                    for result in (drift if isinstance(drift, list) else [drift])  # one record in reports of 0.1
                ),
                "notes": tuple(body["notes"]),
                "models": tuple(  # absent in reports of 0.1
                    ModelRow(**row | {"evaluation": row["evaluation"] and EvaluationRow(**row["evaluation"])})
                    for row in body.get("models", ())
                ),
                "departments": None if departments is None else tuple(DepartmentRow(**row) for row in departments),
                "contradictions": tuple(
                    ContradictionRow(**row | {"keys": tuple(row["keys"])}) for row in body.get("contradictions", ())
                ),
                "earlier": tuple(
                    EarlierRow(**row | {"run_date": date.fromisoformat(row["run_date"])})
                    for row in body.get("earlier", ())
                ),
                "alerts": tuple(AlertRow(**row) for row in body.get("alerts", ())),
                "examples": tuple(ExampleRow(**row) for row in body.get("examples", ())),
            }
        )


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value, limit=10_000)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no such number
    if isinstance(value, Mapping):
        return {_plain(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(inner) for inner in value]
    return value
