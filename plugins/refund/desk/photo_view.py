"""Puts one photo's story into words for its page: what stands and why, and what else was said of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from refund.records import ReviewReason
from refund.report.labels import (
    MADE_UP,
    category_label,
    explain_reason,
    long_date,
    megabytes,
    percent,
    plain_label,
    quality_label,
    reason_label,
    reason_next_step,
    short_date,
    visible,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date, datetime

    from refund.store.photos import DecisionRow, OutcomeRow, PhotoRow, PhotoStory

CATEGORIES_SHOWN = 5
_NEXT_TO_NOTHING = 0.0005  # a score that would be shown as <0.1%
NIGHTS_AROUND = timedelta(days=45)  # in which the other photos of a refund are looked for

_CHOSEN_BY = {
    "queue": "from the review queue",
    "audit": "drawn to check the machine",
    "import": "from an imported list",
    "search": "looked for by hand",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One share of a chart."""

    name: str
    share: float  # ratio, 0 to 1
    shown: str  # the same, in words
    first: bool = False

    @property
    def width(self) -> str:
        """In percent of the chart, as SVG takes it."""
        return f"{100 * self.share:.2f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What stands of a photo."""

    title: str  # the final category, or why there is none
    badge: str
    tone: str  # good, review or bad: the colour of the badge
    sentences: tuple[str, ...]
    waits: bool = False  # for a person


def standing(story: PhotoStory) -> Standing:
    """What stands, why, and by whom."""
    outcome, decision = story.outcome, story.decision
    if story.reviews:
        review = story.reviews[0]
        who = f"{visible(review.reviewed_by)} decided this on {moment(review.reviewed_at)}."
        machine: tuple[str, ...] = ()
        if decision is not None:
            same = decision.category == review.category
            said = "the same" if same else category_label(decision.category)
            machine = (f"The machine had said {said}, with a score of {percent(decision.score)}.",)
        return Standing(title=category_label(review.category), badge="Reviewed", tone="good", sentences=(who, *machine))
    if decision is not None:
        if decision.kind == "auto":
            return Standing(
                title=category_label(decision.category), badge="Automatic", tone="good", sentences=_sure(decision)
            )
        return Standing(
            title=category_label(decision.category),
            badge="Was to be reviewed" if story.photo.superseded_by else "Waits for review",
            tone="review",
            sentences=tuple(why_review(decision, declared=story.photo.declared_category)),
            waits=story.photo.superseded_by is None and not story.photo.synthetic,
        )
    if outcome is not None and outcome.reason is not None:
        return Standing(
            title=reason_label(outcome.reason), badge="Rejected", tone="bad", sentences=_why_rejected(outcome)
        )
    return Standing(title="Not decided", badge="Open", tone="review", sentences=("No published night decided on it.",))


def _sure(decision: DecisionRow) -> tuple[str, ...]:
    sure = f"{decision.model} is sure enough: a score of {percent(decision.score)}, where the night asked for " + (
        f"{percent(decision.threshold)}."
    )
    return (sure, "It was drawn so that a person checks the machine.") if decision.audit else (sure,)


def _why_rejected(outcome: OutcomeRow) -> tuple[str, ...]:
    reason = outcome.reason or ""
    told = (
        explain_reason(reason),
        f"What was seen: {visible(outcome.detail, limit=400)}." if outcome.detail else "",
        f"What to do: {reason_next_step(reason)}" if reason_next_step(reason) else "",
        f"It was put back on {moment(outcome.requeued_at)}: the next run of its night looks at it again."
        if outcome.requeued_at
        else "",
    )
    return tuple(sentence for sentence in told if sentence)


def why_review(decision: DecisionRow, *, declared: str | None) -> list[str]:
    """Why a person is to look at a photo, a sentence per reason."""
    told = {
        ReviewReason.LOW_SCORE: f"The best category reaches {percent(decision.score)}, and the night asked for "
        f"{percent(decision.threshold)}.",
        ReviewReason.NOT_A_PRODUCT: "What it shows is no goods of any department but an animal, scenery or the like.",
        ReviewReason.DECLARED_MISMATCH: "The customer declared "
        f"{category_label(declared) if declared else 'another category'}.",
    }
    return [
        told[ReviewReason(reason)] if reason in set(ReviewReason) else plain_label(reason)
        for reason in decision.reasons
    ]


def category_bars(decision: DecisionRow) -> list[Bar]:
    """The categories that scored most."""
    scored = [(name, score) for name, score in decision.category_scores.items() if score >= _NEXT_TO_NOTHING]
    ranked = sorted(scored, key=lambda item: (-item[1], item[0]))[:CATEGORIES_SHOWN]
    return _bars([(category_label(name), score) for name, score in ranked])


def class_bars(top_k: Sequence[Mapping[str, object]]) -> list[Bar]:
    """The classes that a model found most probable."""
    return _bars([(class_label(str(each["class_name"])), float(str(each["confidence"]))) for each in top_k])


def _bars(shares: Sequence[tuple[str, float]]) -> list[Bar]:
    return [
        Bar(name=name, share=share, shown=percent(share, digits=1), first=number == 0)
        for number, (name, share) in enumerate(shares)
    ]


def facts(photo: PhotoRow) -> list[tuple[str, str]]:
    """What is known of the file, as (name, value)."""
    sides = f"{photo.width_px:,} × {photo.height_px:,} pixels, " if photo.width_px and photo.height_px else ""
    told = [
        ("Photo of", "No date in its key" if photo.photo_date.year == 1970 else long_date(photo.photo_date)),
        ("First seen", f"by the night of {day(photo.first_run_date)}, on {moment(photo.first_seen_at)}"),
        ("Declared as", category_label(photo.declared_category) if photo.declared_category else "–"),
        ("File", f"{sides}{megabytes(photo.size_bytes)}" + (f", {photo.image_format}" if photo.image_format else "")),
        ("Quality", ", ".join(map(quality_label, photo.quality_labels)) or "nothing poor about it"),
        ("Key", visible(photo.key, limit=1200)),
    ]
    return told if photo.width_px else [row for row in told if row[0] != "Quality"]


def file_name(key: str) -> str:
    """The last part of a key, as it can be trusted to look."""
    return visible(key.rpartition("/")[2] or key, limit=80)


def refund_query(photo: PhotoRow) -> str:
    """The query of the history's page for all photos of this one's refund."""
    first, last = photo.first_run_date - NIGHTS_AROUND, photo.first_run_date + NIGHTS_AROUND
    return urlencode({"refund_id": photo.refund_id or "", "date_from": first, "date_to": last})


def notes(story: PhotoStory) -> list[str]:
    """What has to be known before anything else is read."""
    return [f"{MADE_UP}."] if story.photo.synthetic else []


def class_label(name: str) -> str:
    """``wolf_spider`` → ``wolf spider``."""
    return visible(name, limit=60).replace("_", " ")


def chosen_by(word: str) -> str:
    """How a photo came before a person."""
    return _CHOSEN_BY.get(word, plain_label(word))


def day(when: date) -> str:
    """``21 Nov 2026``."""
    return f"{short_date(when)} {when.year}"


def moment(when: datetime) -> str:
    """``21 Nov 2026, 08:30 UTC``."""
    return f"{day(when.date())}, {when:%H:%M} UTC"
