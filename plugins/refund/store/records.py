"""What `refund.store` hands out: rows of the database as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from refund.records import OutcomeCounts, Reconciliation


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """One row of ``refund.run``; counts are None until it is published or dry-run."""

    run_id: str
    run_date: date
    state: str  # running, published, failed, dry_run
    model: str  # name@version that it began with
    models: tuple[str, ...]  # that classified its photos, once known; two after a rollback during the night
    taxonomy_version: str
    code_version: str
    params: dict[str, Any]
    photos: int | None
    classified: int | None
    rejected: int | None
    unchanged: int | None
    stage_seconds: dict[str, float]
    notes: tuple[str, ...]
    synthetic: bool
    started_at: datetime
    published_at: datetime | None
    finished_at: datetime | None

    @property
    def counts(self) -> OutcomeCounts | None:
        """What became of its photos, once known."""
        return OutcomeCounts.if_known(
            photos=self.photos, classified=self.classified, rejected=self.rejected, unchanged=self.unchanged
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRow:
    """One row of ``refund.report``."""

    run_id: str
    run_date: date
    body: dict[str, Any]
    html_uri: str
    csv_uri: str
    created_at: datetime
    export_uri: str | None = None  # one row per refund; None before it is written, and for earlier releases


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftRow:
    """One row of ``refund.drift``."""

    run_id: str
    measure: str
    run_date: date
    status: str
    distance: float | None
    threshold: float | None
    p_value: float | None
    tonight_photos: int
    reference_photos: int
    reference_nights: int
    floor: float | None  # these three are None for nights of earlier releases
    alpha: float | None
    overdispersion: float | None
    details: dict[str, Any]
    computed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryFigures:
    """One category's live decisions of the night."""

    category: str
    photos: int
    auto: int
    review: int
    mean_score: float  # ratio, 0 to 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectionExample:
    """One rejected photo, to look at."""

    reason: str
    key: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationFigures:
    """What a model scored on the labelled set that it was evaluated on last."""

    set_name: str
    photos: int  # of the set, those that could be classified
    accuracy: float  # share of right categories, 0 to 1
    low: float  # of its 95 % interval
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DepartmentFigures:
    """The night's refunds of one department, each counted where most of its photos belong."""

    department: str | None  # None: refunds none of whose photos could be used
    refunds: int
    photos: int
    auto: int  # refunds all of whose photos were sorted by the machine alone
    contradicting: int  # refunds whose photos disagree with one another or with what was declared


@dataclass(frozen=True, slots=True, kw_only=True)
class ContradictingRefund:
    """A refund whose photos belong to several categories, or to another than was declared; texts are hostile."""

    refund_id: str
    photos: int
    categories: dict[str, int]  # photos by final category, of those that could be used
    declared: str | None
    disagree: bool  # its photos with one another
    undeclared: bool  # a photo with what was declared
    keys: tuple[str, ...]  # of some photos


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundFigures:
    """The night's refunds: as ``reporting.refunds`` sums them up, but of this night's photos alone."""

    disagree: int  # refunds whose photos belong to several categories
    undeclared: int  # refunds with a photo of another category than was declared
    departments: tuple[DepartmentFigures, ...]  # most refunds first
    examples: tuple[ContradictingRefund, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierNight:
    """What the report of an earlier night said; shares are ratios of its photos, 0 to 1, None without photos."""

    run_date: date
    photos: int
    auto_share: float | None
    rejected_share: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAlert:
    """An alert of the night that nobody has acknowledged."""

    rule: str
    severity: str  # info, warning or critical
    message: str
    seen_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NightFigures:
    """What the database counts for one run and its night; outcome counts are in the run's row itself."""

    run_date: date
    categories: tuple[CategoryFigures, ...]  # of the night, most photos first
    night_rejections: dict[str, int]  # of the night, by reason code
    example_rejections: tuple[RejectionExample, ...]  # of the night
    quality_labels: dict[str, int]  # of the night's classified photos
    review_queue: int  # photos that wait for a person, of all nights
    size_bytes: int  # of the night's photos
    late_photos: int  # of the run's that were not unchanged, those whose photo date lies before the run date
    audits: int  # of the night's automatic decisions, those marked for people to check
    model_categories: dict[str, dict[str, int]]  # of the night, photos by category for each model that decided
    evaluations: dict[str, EvaluationFigures]  # of these models, where evaluated under the run's taxonomy
    reconciliation: Reconciliation | None  # None before the run is published
    stage_seconds: dict[str, float]
    stage_metrics: dict[str, dict[str, Any]] = field(default_factory=dict)  # by stage; empty for earlier releases
    refunds: RefundFigures | None = None
    earlier: tuple[EarlierNight, ...] = ()  # nights before that have a report, oldest first
    open_alerts: tuple[OpenAlert, ...] = ()  # of the night, gravest first

    @property
    def model_counts(self) -> dict[str, int]:
        """Photos of the night by the model that decided, most photos first."""
        counts = {model: sum(photos.values()) for model, photos in self.model_categories.items()}
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """Something somebody should know; the same ``dedupe_key`` seen again is the same alert."""

    rule: str  # what raised it, for example failed_night or drift:category_shares
    dedupe_key: str
    severity: str  # info, warning or critical
    run_id: str  # that it is about
    run_date: date
    message: str  # what was seen, what was expected, what to do
    details: Mapping[str, Any] = field(default_factory=dict)  # JSON values: figures, example_keys, sql
