"""What the desk says of one photo: as JSON for whoever asked, and as a row of `refund.trial`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from refund.records import PhotoFacts

if TYPE_CHECKING:
    from datetime import datetime

    from refund.model.decide import ScoredPhoto
    from refund.model.taxonomy import Taxonomy
    from refund.store.trials import Trial

MAX_TOP_K = 10  # classes of one photo


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Facts of one photo and, unless they give a reason for rejection, its scores and decision."""

    facts: PhotoFacts
    scored: ScoredPhoto | None = None
    categories: tuple[str, ...] = ()  # of ``scored.top``
    model: str | None = None
    taxonomy_version: str | None = None
    predict_ms: float | None = None

    @classmethod
    def of(
        cls, facts: PhotoFacts, scored: ScoredPhoto, *, model: str, taxonomy: Taxonomy, top_k: int, predict_ms: float
    ) -> Verdict:
        """The verdict on a photo that was classified, with its ``top_k`` best classes."""
        top = scored.top[:top_k]
        return cls(
            facts=facts,
            scored=replace(scored, top=top),
            categories=tuple(taxonomy.category_of(score.class_id) for score in top),
            model=model,
            taxonomy_version=taxonomy.version,
            predict_ms=predict_ms,
        )

    @property
    def ok(self) -> bool:
        """Whether the photo was classified."""
        return self.scored is not None

    def predictions(self) -> list[dict[str, Any]]:
        """The most probable classes, best first."""
        if self.scored is None:
            return []
        return [
            {
                "class_id": score.class_id,
                "class_name": score.class_name,
                "confidence": round(score.confidence, 6),
                "category": category,
            }
            for score, category in zip(self.scored.top, self.categories, strict=True)
        ]

    def as_trial(
        self,
        *,
        at: datetime,
        tried_by: str,
        request_id: str,
        filename: str,
        size_bytes: int,
        elapsed_ms: float,
        kept_key: str | None,
    ) -> Trial:
        """The row."""
        from refund.store.trials import Trial

        facts, decision = self.facts, self.scored.decision if self.scored else None
        return Trial(
            at=at,
            tried_by=tried_by,
            request_id=request_id,
            filename=filename,
            size_bytes=size_bytes,
            sha256=facts.sha256,
            image_format=facts.image_format,
            width_px=facts.width_px,
            height_px=facts.height_px,
            outcome="classified" if decision else "rejected",
            reason=facts.reason.value if facts.reason else None,
            detail=facts.detail,
            model=self.model,
            taxonomy_version=self.taxonomy_version,
            category=decision.category if decision else None,
            category_score=decision.score if decision else None,
            decision=decision.kind.value if decision else None,
            review_reasons=[reason.value for reason in decision.reasons] if decision else [],
            predictions=self.predictions(),
            elapsed_ms=elapsed_ms,
            kept_key=kept_key,
        )

    def as_json(self, *, filename: str, size_bytes: int, total_ms: float) -> dict[str, Any]:
        """The answer for a photo that was classified."""
        assert self.scored is not None  # noqa: S101  (rejected ones are told as errors)
        facts, decision = self.facts, self.scored.decision
        return {
            "status": "success",
            "filename": filename,
            "predictions": [
                {
                    "class_id": each["class_id"],
                    "class_name": each["class_name"],
                    "confidence": each["confidence"],
                    "confidence_percentage": round(100 * each["confidence"], 2),
                    "category": each["category"],
                }
                for each in self.predictions()
            ],
            "category": decision.category,
            "category_score": round(decision.score, 6),
            "category_scores": [
                {"category": score.category, "score": round(score.score, 6)} for score in self.scored.category_scores
            ],
            "decision": decision.kind.value,
            "review_reasons": [reason.value for reason in decision.reasons],
            "model": self.model,
            "taxonomy_version": self.taxonomy_version,
            "image": {
                "format": facts.image_format,
                "width_px": facts.width_px,
                "height_px": facts.height_px,
                "size_bytes": size_bytes,
                "sha256": facts.sha256,
            },
            "quality_labels": [label.value for label in facts.quality.labels] if facts.quality else [],
            "timing": {"decode_ms": facts.decode_ms, "predict_ms": self.predict_ms, "total_ms": total_ms},
        }
