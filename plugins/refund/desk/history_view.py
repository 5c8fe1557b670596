"""Puts rows of the history into words for its page. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from refund.desk.photo_view import class_label, day, file_name, moment
from refund.report.labels import category_label, percent, plain_label, reason_label, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from refund.desk.history import NightPhoto, Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRow:
    """One photo; everything but the paths is fit to be read."""

    name: str
    page: str = ""  # path below the desk; empty: it has none
    picture: str = ""  # likewise
    refund: str = ""
    refund_id: str = ""  # as it stands in an address
    when: str
    remark: str = ""  # on when, or on who
    category: str
    score: str = ""
    other: str = ""  # what the machine had said, where a person said otherwise
    badge: str
    tone: str
    why: str = ""
    model: str = ""
    sees: str = ""  # the most probable class
    made_up: bool = False


def night_row(photo: NightPhoto, *, picture: str) -> HistoryRow:
    """A photo that a night published."""
    badge, tone = _badge(photo)
    rejected = photo.outcome == "rejected"
    overruled = photo.reviewed_category is not None and photo.reviewed_category != photo.predicted_category
    undated = photo.photo_date.year == 1970
    return HistoryRow(
        name=file_name(photo.key),
        page=f"/history/{photo.photo_date.isoformat()}/{photo.photo_id}",
        picture=picture,
        refund=visible(photo.refund_id, limit=60) if photo.refund_id else "",
        refund_id=quote(photo.refund_id, safe="") if photo.refund_id else "",
        when=day(photo.run_date),
        remark="undated" if undated else "" if photo.photo_date == photo.run_date else f"of {day(photo.photo_date)}",
        category=reason_label(photo.rejection_reason or "")
        if rejected
        else category_label(photo.final_category or "–"),
        score=percent(photo.category_score) if photo.category_score is not None and not overruled else "",
        other=f"machine: {category_label(photo.predicted_category)}" if overruled and photo.predicted_category else "",
        badge=badge,
        tone=tone,
        why=_reasons(photo.review_reasons) if badge == "Waits for review" else "",
        model=photo.model or "",
        sees=_sees(photo.class_name, photo.confidence),
        made_up=photo.synthetic,
    )


def trial_row(trial: Trial) -> HistoryRow:
    """A photo that somebody tried."""
    rejected = trial.outcome == "rejected"
    auto = trial.decision == "auto"
    return HistoryRow(
        name=visible(trial.filename, limit=80) or "without a name",
        when=moment(trial.at),
        remark=f"by {visible(trial.tried_by, limit=60)}",
        category=reason_label(trial.reason or "") if rejected else category_label(trial.category or "–"),
        score=percent(trial.category_score) if trial.category_score is not None else "",
        badge="Rejected" if rejected else "Automatic" if auto else "To review",
        tone="bad" if rejected else "good" if auto else "review",
        why=_reasons(trial.review_reasons),
        model=trial.model or "",
        sees=_sees(trial.class_name, trial.confidence),
    )


def _badge(photo: NightPhoto) -> tuple[str, str]:
    if photo.outcome == "rejected":
        return "Rejected", "bad"
    if photo.reviewed_by is not None:
        return f"Reviewed by {visible(photo.reviewed_by, limit=40)}", "good"
    return ("Automatic", "good") if photo.decision == "auto" else ("Waits for review", "review")


def _reasons(reasons: Sequence[str] | None) -> str:
    return ", ".join(plain_label(reason).lower() for reason in reasons or ())


def _sees(name: str | None, confidence: float | None) -> str:
    return "" if name is None or confidence is None else f"{class_label(name)} {percent(confidence)}"
