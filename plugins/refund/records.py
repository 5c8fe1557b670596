"""The nouns of the refund night, as plain values that check themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from uuid import UUID

from refund.errors import ReasonCode


class Outcome(StrEnum):
    """What one run made of one photo."""

    CLASSIFIED = "classified"
    REJECTED = "rejected"
    UNCHANGED = "unchanged"  # an earlier run's outcome still stands


class DecisionKind(StrEnum):
    """Who sorts the photo: the machine alone, or a person."""

    AUTO = "auto"
    REVIEW = "review"


class ReviewReason(StrEnum):
    """Why a person is to look at a classified photo."""

    LOW_SCORE = "low_score"  # the best category scores below the threshold
    NOT_A_PRODUCT = "not_a_product"  # the best category is not_a_product
    DECLARED_MISMATCH = "declared_mismatch"  # the customer declared another category


class QualityLabel(StrEnum):
    """What is poor about a photo that could be classified all the same."""

    DARK = "dark"
    BRIGHT = "bright"
    BLURRY = "blurry"
    LOW_INFORMATION = "low_information"
    ODD_ASPECT = "odd_aspect"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """What an image may measure before it is rejected; sides are compared after EXIF orientation."""

    max_bytes: int = 16 * 1024 * 1024
    min_side_px: int = 32
    max_side_px: int = 4096

    def __post_init__(self) -> None:
        if not (self.max_bytes > 0 and 0 < self.min_side_px <= self.max_side_px):
            msg = f"limits need max_bytes > 0 and 0 < min_side_px <= max_side_px, got {self!r}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoObject:
    """One version of one photo in the bucket, as the listing gave it: the unit of the manifest."""

    photo_id: UUID  # from bucket, key and ETag, see `refund.keys.photo_id`
    photo_date: date  # the folder it lies in; 1970-01-01 for keys without one
    bucket: str
    key: str
    etag: str  # without quotes
    size_bytes: int
    refund_id: str | None
    declared_category: str | None  # what the customer said it is, a department of the taxonomy


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Measures of the decoded ``(H, W, 3) uint8`` image that a label is given by; see `refund.imaging.quality`."""

    brightness_ratio: float  # mean luminance, 0 black to 1 white
    contrast_ratio: float  # standard deviation of the luminance, 0 to 0.5
    sharpness: float  # variance of the Laplacian of the 8-bit luminance, 0 upwards
    entropy_bits: float  # of the luminance histogram, 0 to 8
    labels: tuple[QualityLabel, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoFacts:
    """What decoding found out about one photo: either a reason why it is rejected, or all that a pack keeps of it.

    ``slot`` is the photo's row in the pack. On success ``reason`` is None and everything else is set; on rejection
    what was known before it failed (format, sides, SHA-256) is kept.
    """

    slot: int
    reason: ReasonCode | None = None
    detail: str | None = None  # what was seen and what was expected, for the clerk
    image_format: str | None = None  # JPEG, PNG, GIF, BMP, WEBP
    width_px: int | None = None  # as stored, after EXIF orientation
    height_px: int | None = None
    sha256: str | None = None  # hex, of the body
    perceptual_hash: int | None = None  # 64 bits, as a signed integer so that it fits a Postgres bigint
    quality: Quality | None = None
    # of the try that gave these facts; None where nothing was decoded. No fact of the photo: it differs every time
    decode_ms: float | None = field(default=None, compare=False)

    @property
    def ok(self) -> bool:
        """Whether pixels were written to the photo's slot."""
        return self.reason is None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScore:
    """One of the network's classes and its softmax probability."""

    class_id: str  # WordNet id, for example n03793489
    class_name: str
    confidence: float  # ratio, 0 to 1

    def __post_init__(self) -> None:
        if not 0.0 <= self.confidence <= 1.0:  # also refuses NaN
            msg = f"confidence of {self.class_id!r} must lie in 0..1, got {self.confidence!r}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryScore:
    """How much of the model's belief falls into one refund category.

    ``score`` is the sum of the softmax probabilities of the classes that the taxonomy files under ``category``; over
    all categories of one photo, ``not_a_product`` included, scores add up to 1.
    """

    category: str
    score: float  # ratio, 0 to 1

    def __post_init__(self) -> None:
        if not 0.0 <= self.score <= 1.0:  # also refuses NaN
            msg = f"score of {self.category!r} must lie in 0..1, got {self.score!r}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What becomes of one photo: its category and whether a person must look."""

    category: str
    score: float  # ratio, 0 to 1: the category's score
    kind: DecisionKind
    reasons: tuple[ReviewReason, ...]  # empty for auto


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeCounts:
    """How many photos a run listed and what became of them.

    Raises:
        ValueError: the outcomes do not add up to the photos.
    """

    photos: int
    classified: int
    rejected: int
    unchanged: int

    def __post_init__(self) -> None:
        if self.classified + self.rejected + self.unchanged != self.photos:
            msg = (
                f"{self.photos} photos but {self.classified} classified + {self.rejected} rejected + "
                f"{self.unchanged} unchanged"
            )
            raise ValueError(msg)

    @classmethod
    def if_known(
        cls, *, photos: int | None, classified: int | None, rejected: int | None, unchanged: int | None
    ) -> OutcomeCounts | None:
        """The counts of a run's row; None while one of them is, until the run was published or ended as a dry run."""
        if photos is None or classified is None or rejected is None or unchanged is None:
            return None
        return cls(photos=photos, classified=classified, rejected=rejected, unchanged=unchanged)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """Whether every photo of a run's manifest has one outcome: the columns of ``reporting.reconciliation``."""

    manifest: int
    outcomes: int
    classified: int
    rejected: int
    unchanged: int
    decisions: int
    adds_up: bool
    packed: int | None = None  # photos in packs and prediction files; None in reports of earlier releases
    predicted: int | None = None
    overtaken: int | None = None  # of the unchanged: published by another run while this one was at work
