"""Draws the photos of one made-up day, what the machine says of them and what people do; pure, by seed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from refund import keys
from refund.lifecycle import demo_plan as world
from refund.lifecycle.demo_plan import DemoPlan
from refund.records import DecisionKind, ReviewReason

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NOT_A_PRODUCT = "not_a_product"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPhoto:
    """One made-up photo with its outcome, what it really shows, and who looked at it."""

    day: date  # photo date
    late: bool  # it came after its day's night: the next night finds it
    key: str
    etag: str
    size_bytes: int
    refund_id: str
    declared: str | None
    reason: str | None  # of a rejection; then there is no prediction
    width_px: int
    height_px: int
    sha256: str
    perceptual_hash: int
    brightness_ratio: float
    contrast_ratio: float
    sharpness: float
    entropy_bits: float
    quality_labels: tuple[str, ...]
    truth: str  # category that a person says
    category: str
    score: float  # ratio, 0 to 1
    runner_up: str
    class_id: str
    class_name: str
    confidence: float  # ratio, 0 to 1
    review_after_s: float | None  # seconds after its night began, if it waits for a person; None: nobody gets to it

    @property
    def run_date(self) -> date:
        """The night that finds it first."""
        return self.day + timedelta(days=1) if self.late else self.day

    @property
    def review_reasons(self) -> tuple[ReviewReason, ...]:
        """Why a person must look, by the rules of `refund.model.decide`."""
        reasons = (
            (ReviewReason.LOW_SCORE, self.score < world.THRESHOLD),
            (ReviewReason.NOT_A_PRODUCT, self.category == NOT_A_PRODUCT),
            (ReviewReason.DECLARED_MISMATCH, self.declared is not None and self.declared != self.category),
        )
        return tuple(reason for reason, applies in reasons if applies)

    @property
    def kind(self) -> DecisionKind:
        """Who sorts it."""
        return DecisionKind.REVIEW if self.review_reasons else DecisionKind.AUTO

    def photo_id(self, bucket: str) -> str:
        """Its identity, as a real photo's."""
        return str(keys.photo_id(bucket=bucket, key=self.key, etag=self.etag))


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoReview:
    """What a person said of a made-up photo."""

    photo_date: date
    photo_id: str
    category: str
    reviewed_at: datetime
    chosen_by: str  # queue or audit


def draw_day(plan: DemoPlan, day: date, *, classes: Mapping[str, Sequence[tuple[str, str]]]) -> tuple[DemoPhoto, ...]:
    """The photos of one photo date, in key order.

    Args:
        plan: what was asked for; a day is drawn from its seed and the date alone, whatever the number of nights.
        day: the photo date.
        classes: for each category of the taxonomy the network's classes that show it, as (class id, name).
    """
    import numpy as np

    random = np.random.default_rng([plan.seed, day.toordinal()])
    categories = sorted(classes)
    shares = random.dirichlet(world.CONCENTRATION * _usual_shares(categories, day))
    if day == plan.shifted and world.SHIFTED_CATEGORY in categories:
        shares = _shifted(shares, categories.index(world.SHIFTED_CATEGORY))
    volume = world.WEEKDAY_VOLUMES[day.weekday()] * random.lognormal(0.0, world.VOLUME_SPREAD)
    wanted = max(1, round(plan.photos * volume))
    return tuple(
        DemoPhoto(day=day, **photo)
        for photo in _photos(random, day, wanted, categories=categories, shares=shares, classes=classes)
    )


def _usual_shares(categories: Sequence[str], day: date) -> NDArray[np.float64]:
    import numpy as np

    tilt = world.WEEKEND_TILT if day.weekday() >= 5 else {}
    shares = np.array([world.SHARES.get(name, world.RARE_SHARE) * tilt.get(name, 1.0) for name in categories])
    usual: NDArray[np.float64] = shares / shares.sum()
    return usual


def _shifted(shares: NDArray[np.float64], index: int) -> NDArray[np.float64]:
    """``SHIFT_RATIO`` more of one category, the others less in proportion."""
    target = shares[index] + world.SHIFT_RATIO
    moved: NDArray[np.float64] = shares * (1.0 - target) / (1.0 - shares[index])
    moved[index] = target
    return moved


def _photos(
    random: np.random.Generator,
    day: date,
    wanted: int,
    *,
    categories: Sequence[str],
    shares: NDArray[np.float64],
    classes: Mapping[str, Sequence[tuple[str, str]]],
) -> Iterator[dict[str, Any]]:
    """The fields of each photo, drawn column by column: the photos of a refund show the same goods."""
    import numpy as np

    # refunds: as many as there are photos is more than enough
    sizes = random.choice([1, 2, 3, 4], size=wanted, p=[0.7, 0.22, 0.06, 0.02])
    truths = random.choice(len(categories), size=wanted, p=shares)
    declares = random.random(wanted) < 0.8
    said = np.where(random.random(wanted) < 0.96, truths, random.integers(len(categories), size=wanted))
    late = random.random(wanted) < 0.02
    refunds = np.repeat(np.arange(wanted), sizes)[:wanted]
    places = np.concatenate([np.arange(1, size + 1) for size in sizes])[:wanted]
    # photos
    right = random.random(wanted) < 0.93
    seen = np.where(right, truths[refunds], random.choice(len(categories), size=wanted, p=shares))
    scores = np.where(right, random.beta(9.0, 1.3, wanted), random.beta(3.0, 2.5, wanted))
    runners_up = random.integers(len(categories), size=wanted)
    class_ranks = random.geometric(0.5, size=wanted) - 1
    confidences = scores * random.uniform(0.6, 1.0, wanted)
    rejected = random.random(wanted) < random.beta(*world.REJECTED_NIGHT)
    reasons = random.choice(list(world.REJECTION_REASONS), size=wanted, p=list(world.REJECTION_REASONS.values()))
    sides = random.choice([(3000, 4000), (4000, 3000), (1600, 1200), (1080, 1920)], size=wanted)
    bytes_ = random.lognormal(12.9, 0.5, wanted)
    brightness, sharpness = random.beta(7.0, 6.0, wanted), random.lognormal(6.0, 0.9, wanted)
    contrast, entropy = random.uniform(0.08, 0.3, wanted), random.uniform(5.5, 7.8, wanted)
    hashes = random.integers(-(2**63), 2**63 - 1, size=wanted)
    waits = 6 * 3_600 + random.exponential(1.2 * 86_400, wanted)  # from eight in the morning on
    looked_at = random.random(wanted) < 0.9
    digests = random.bytes(48 * wanted).hex()
    for row in range(wanted):
        refund = int(refunds[row])
        refund_id = f"DEMO-{day:%Y%m%d}-{refund + 1:05d}"
        truth, category = categories[truths[refund]], categories[seen[row]]
        known = classes[category]
        class_id, class_name = known[min(int(class_ranks[row]), len(known) - 1)]
        reason = str(reasons[row]) if rejected[row] else None
        digest = digests[96 * row : 96 * (row + 1)]
        yield {
            "late": bool(late[refund]),
            "key": f"{world.PREFIX}{day}/{refund_id}/{places[row]}.jpg",
            "etag": digest[:32],
            "size_bytes": 0 if reason == "empty_file" else int(bytes_[row]),
            "refund_id": refund_id,
            "declared": categories[said[refund]] if declares[refund] and truth != NOT_A_PRODUCT else None,
            "reason": reason,
            "width_px": int(sides[row][0]),
            "height_px": int(sides[row][1]),
            "sha256": digest[32:],
            "perceptual_hash": int(hashes[row]),
            "brightness_ratio": float(brightness[row]),
            "contrast_ratio": float(contrast[row]),
            "sharpness": float(sharpness[row]),
            "entropy_bits": float(entropy[row]),
            "quality_labels": _quality_labels(float(brightness[row]), float(sharpness[row])),
            "truth": truth,
            "category": category,
            "score": float(scores[row]),
            "runner_up": categories[runners_up[row]],
            "class_id": class_id,
            "class_name": class_name,
            "confidence": float(confidences[row]),
            "review_after_s": float(waits[row]) if looked_at[row] else None,
        }


def _quality_labels(brightness: float, sharpness: float) -> tuple[str, ...]:
    from refund.imaging.quality import (
        BLURRY_BELOW_SHARPNESS,
        BRIGHT_ABOVE_BRIGHTNESS_RATIO,
        DARK_BELOW_BRIGHTNESS_RATIO,
    )

    found = {
        "dark": brightness < DARK_BELOW_BRIGHTNESS_RATIO,
        "bright": brightness > BRIGHT_ABOVE_BRIGHTNESS_RATIO,
        "blurry": sharpness < BLURRY_BELOW_SHARPNESS,
    }
    return tuple(label for label, applies in found.items() if applies)


def surest(photos: Sequence[DemoPhoto], category: str, count: int) -> list[DemoPhoto]:
    """The photos that the report shows of a category: classified in their day's own night, surest first."""
    shown = [photo for photo in photos if photo.reason is None and not photo.late and photo.category == category]
    return sorted(shown, key=lambda photo: -photo.score)[:count]


def manifest_rows(photos: Sequence[DemoPhoto], bucket: str) -> list[dict[str, Any]]:
    """Rows of `refund.schemas.manifest_schema`."""
    return [
        {
            "photo_id": photo.photo_id(bucket),
            "photo_date": photo.day,
            "bucket": bucket,
            "key": photo.key,
            "etag": photo.etag,
            "size_bytes": photo.size_bytes,
            "refund_id": photo.refund_id,
            "declared_category": photo.declared,
        }
        for photo in photos
    ]


def photo_rows(photos: Sequence[DemoPhoto], bucket: str) -> list[dict[str, Any]]:
    """Rows of `refund.schemas.photos_schema`; of a rejected photo nothing is known but its hash."""
    measures = ("width_px", "height_px", "perceptual_hash", "brightness_ratio", "contrast_ratio", "sharpness",
                "entropy_bits")  # fmt: skip
    rows: list[dict[str, Any]] = []
    for photo in photos:
        row: dict[str, Any] = {"photo_id": photo.photo_id(bucket), "sha256": photo.sha256, "quality_labels": []}
        if photo.reason is None:
            row |= {name: getattr(photo, name) for name in measures}
            row |= {"image_format": "JPEG", "quality_labels": list(photo.quality_labels)}
        else:
            row |= {"reason": photo.reason, "detail": "made up: there is no such file"}
        rows.append(row)
    return rows


def prediction_rows(photos: Sequence[DemoPhoto], bucket: str, model: str) -> list[dict[str, Any]]:
    """Rows of `refund.schemas.predictions_schema`, of the classified photos."""
    return [
        {
            "photo_id": photo.photo_id(bucket),
            "model": model,
            "class_id": photo.class_id,
            "class_name": photo.class_name,
            "confidence": photo.confidence,
            "top_k": json.dumps(
                [{"class_id": photo.class_id, "class_name": photo.class_name, "confidence": photo.confidence}]
            ),
            "category_scores": json.dumps({photo.category: photo.score} | _rest(photo)),
            "category": photo.category,
            "category_score": photo.score,
            "kind": photo.kind.value,
            "reasons": [reason.value for reason in photo.review_reasons],
        }
        for photo in photos
        if photo.reason is None
    ]


def _rest(photo: DemoPhoto) -> dict[str, float]:
    return {} if photo.runner_up == photo.category else {photo.runner_up: min(1.0 - photo.score, photo.score)}


def reviews(photos: Sequence[DemoPhoto], *, bucket: str, audit_share: float) -> list[DemoReview]:
    """What people say of the photos that wait for them, and of those that they are to check."""
    found = []
    for photo in photos:
        if photo.reason is not None or photo.review_after_s is None:
            continue
        photo_id = photo.photo_id(bucket)
        waits = photo.kind is DecisionKind.REVIEW
        if waits or audit_ratio(photo_id) < audit_share:
            found.append(
                DemoReview(
                    photo_date=photo.day,
                    photo_id=photo_id,
                    category=photo.truth,
                    reviewed_at=world.start_of(photo.run_date) + timedelta(seconds=photo.review_after_s),
                    chosen_by="queue" if waits else "audit",
                )
            )
    return found


def audit_ratio(photo_id: str) -> float:
    """As ``refund.audit_ratio`` in Postgres: where a photo stands in the draw for audits, from 0 up to 1."""
    return int(sha256(f"refund.audit/{photo_id}".encode()).hexdigest()[:8], 16) / 2**32


def classes_by_category() -> dict[str, tuple[tuple[str, str], ...]]:
    """For each category of the packaged taxonomy a few of the network's classes, as (class id, name)."""
    from refund.model.labels import load_labels
    from refund.model.taxonomy import load_taxonomy

    labels = load_labels()
    taxonomy = load_taxonomy(labels=labels)
    found: dict[str, list[tuple[str, str]]] = {}
    for class_id, name in zip(labels.class_ids, labels.class_names, strict=True):
        found.setdefault(taxonomy.category_of(class_id), []).append((class_id, name))
    return {
        category: tuple(known for name in world.CLASSES.get(category, ()) for known in members if known[1] == name)
        or tuple(members[:3])
        for category, members in found.items()
    }
