"""The answers of the routes that classify, as OpenAPI describes them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from refund.errors import ReasonCode
from refund.records import DecisionKind, QualityLabel, ReviewReason


class Prediction(BaseModel):
    """One of the network's classes."""

    class_id: str = Field(description="WordNet id.")
    class_name: str
    confidence: float = Field(ge=0, le=1)
    confidence_percentage: float = Field(ge=0, le=100)
    category: str = Field(description="The refund category that the taxonomy files the class under.")


class ScoredCategory(BaseModel):
    """A refund category and the sum of its classes' probabilities."""

    category: str
    score: float = Field(ge=0, le=1)


class Image(BaseModel):
    """What was sent."""

    format: Literal["JPEG", "PNG", "GIF", "BMP", "WEBP"]
    width_px: int = Field(description="After EXIF orientation.")
    height_px: int
    size_bytes: int
    sha256: str


class Timing(BaseModel):
    """Milliseconds, from the end of the upload."""

    decode_ms: float | None
    predict_ms: float | None
    total_ms: float


class Recorded(BaseModel):
    """What was kept of a photo."""

    trial_id: int | None = Field(description="Its number in the history; null where it could not be written.")
    kept_key: str | None = Field(description="S3 key of the upload where the sender asked to keep it.")
    note: str | None = Field(default=None, description="What could not be written or kept.")


class Classified(Recorded):
    """The verdict on one photo."""

    status: Literal["success"]
    filename: str
    predictions: list[Prediction] = Field(description="The most probable classes, best first.")
    category: str
    category_score: float = Field(ge=0, le=1)
    category_scores: list[ScoredCategory] = Field(description="Every category, best first.")
    decision: DecisionKind = Field(description="What a night would make of it.")
    review_reasons: list[ReviewReason]
    model: str = Field(description="name@version")
    taxonomy_version: str
    image: Image
    quality_labels: list[QualityLabel]
    timing: Timing


class ClassifyAnswer(Classified):
    """The verdict on the photo of a request."""

    request_id: str


class Failed(BaseModel):
    """A photo of a batch that could not be classified."""

    status: Literal["error"]
    filename: str
    error: str = Field(description=f"Often one of {', '.join(ReasonCode)}.")
    message: str
    what_to_do: str
    trial_id: int | None = None
    kept_key: str | None = None
    note: str | None = None


class Invalid(BaseModel):
    """A photo of a batch that could not be classified, in short."""

    filename: str
    error: str
    message: str


class BatchTiming(BaseModel):
    """Milliseconds, from the end of the upload."""

    total_ms: float


class BatchAnswer(BaseModel):
    """The verdicts on the photos of a request."""

    status: Literal["success", "partial", "error"]
    results: list[Classified | Failed] = Field(description="One for each photo, in the order they were sent in.")
    valid: list[str] = Field(description="Names of the files that were classified.")
    invalid: list[Invalid]
    timing: BatchTiming
    request_id: str
