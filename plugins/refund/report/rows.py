"""The rows that the morning report's figures consist of: plain values, one record per table of the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryRow:
    """One category of the night: the photos whose decision stands."""

    category: str
    photos: int
    share: float  # of the night's classified photos, 0 to 1
    auto: int
    review: int
    mean_score: float  # 0 to 1
    reference_share: float | None = None  # share in the drift reference; None without one

    def __post_init__(self) -> None:
        if self.auto + self.review != self.photos:
            msg = f"{self.category!r}: {self.photos} photos but {self.auto} auto + {self.review} review"
            raise ValueError(msg)
        for name in ("share", "mean_score"):
            if not 0.0 <= getattr(self, name) <= 1.0:  # also refuses NaN
                msg = f"{self.category!r}: {name} must lie in 0..1, got {getattr(self, name)!r}"
                raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonRow:
    """One reason code and the photos it cost."""

    reason: str  # a `refund.errors.ReasonCode`
    photos: int
    example_keys: tuple[str, ...] = ()  # S3 keys, hostile text


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityRow:
    """How many of the night's photos carry a quality label."""

    label: str
    photos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DepartmentRow:
    """The night's refunds of one department, each counted where most of its photos belong."""

    department: str | None  # None: refunds none of whose photos could be used
    refunds: int
    photos: int
    auto: int  # refunds all of whose photos were sorted by the machine alone
    contradicting: int  # refunds whose photos disagree with one another or with what was declared

    @property
    def auto_share(self) -> float | None:
        """``auto`` over the department's refunds, 0 to 1."""
        return self.auto / self.refunds if self.refunds else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContradictionRow:
    """A refund whose photos disagree with one another or with what was declared; its texts are hostile."""

    refund_id: str
    photos: int
    categories: Mapping[str, int]  # photos by category, of those that could be used
    declared: str | None
    disagree: bool  # its photos with one another
    undeclared: bool  # a photo with what was declared
    keys: tuple[str, ...] = ()  # S3 keys of some photos


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierRow:
    """What an earlier night's report said; shares are ratios of its photos, 0 to 1, None without photos."""

    run_date: date
    photos: int
    auto_share: float | None
    rejected_share: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRow:
    """An alert of the night that nobody had acknowledged when the report was written."""

    rule: str
    severity: str  # info, warning or critical
    message: str  # may quote hostile text
    seen_count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleRow:
    """A photo of a category that moved, to look at; the page alone has the picture."""

    category: str
    key: str  # S3 key, hostile text
    score: float  # of the category, 0 to 1
    missing: str = ""  # why there is no picture of it; empty: there is one


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRow:
    """How one stage of the run went, over all its shards; what was not measured is None."""

    stage: str
    seconds: float | None = None  # of work
    photos: int | None = None  # that it worked on
    failed: int | None = None  # of these
    p50_ms: float | None = None  # time for one photo that half of them took at most; 95 and 99 of 100 likewise
    p95_ms: float | None = None
    p99_ms: float | None = None

    @property
    def error_share(self) -> float | None:
        """``failed`` over ``photos``, 0 to 1."""
        return self.failed / self.photos if self.photos and self.failed is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRow:
    """What a model scored on the labelled set that it was evaluated on last."""

    set_name: str
    photos: int
    accuracy: float  # share of right categories, 0 to 1
    low: float  # of its 95 % interval
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """One model and what stands of the night by its decisions."""

    model: str  # name@version
    photos: int
    summary: str  # one line from the model card
    evaluation: EvaluationRow | None = None  # None: never evaluated under this taxonomy
