"""The review queue over REST: photos for one person at a time, their verdicts, and taking one back."""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, BeforeValidator, Field

from refund.desk.auth import Asking, Visitor
from refund.desk.problems import DeskError
from refund.desk.schema import problems
from refund.desk.wiring import Desk, DeskDep
from refund.model.taxonomy import DEPARTMENTS
from refund.records import ReviewReason
from refund.report.labels import visible
from refund.store import review_claims
from refund.store.review_claims import ReviewConflictError, claim_photos
from refund.store.review_desk import Orders, Queue, activity, other_photos

if TYPE_CHECKING:
    from refund.store.review_desk import OtherPhoto, WaitingPhoto

router = APIRouter(prefix="/api/review", tags=["review"])

MOST_PASSED_OVER = 2_000  # of one page's life; the page forgets those before, see review-line.js
NOTE_CHARS = 1_000
LARGEST_ID = 2**63 - 1  # of a bigint
_ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_UNKNOWN = frozenset({"unknown_photo", "unknown_review"})


def _iso(value: object) -> object:
    if isinstance(value, date) or (isinstance(value, str) and _ISO_DATE.fullmatch(value)):
        return value
    expected = "expected a date as text, such as 2026-11-21"
    raise ValueError(expected)  # pydantic would take a number for seconds since 1970


class PhotoName(BaseModel):
    """Which photo."""

    photo_date: Annotated[date, BeforeValidator(_iso)]
    photo_id: UUID


class Picture(BaseModel):
    """Where the picture lies, below the desk, for some minutes and for you alone."""

    small: str
    large: str


class CategoryScore(BaseModel):
    """How much of the model's belief falls into a category."""

    category: str
    score: float = Field(description="Ratio, 0 to 1.")


class OtherOfRefund(PhotoName):
    """Another photo of the refund, for comparison."""

    filename: str
    state: Literal["person", "machine", "waiting", "rejected"] | None = Field(
        description="Who decided it; null in the audit queue, where it would lead."
    )
    category: str | None = Field(description="As it stands; null where nobody decided, and in the audit queue.")
    picture: str | None = Field(description="Null for rejected photos.")


class Waiting(PhotoName):
    """A photo that waits for your verdict. In the audit queue all that the machine said of it is null."""

    filename: str = Field(description="The last part of its key; characters that mislead are shown as escapes.")
    run_date: date = Field(description="Night that put it here.")
    refund_id: str | None
    declared_category: str | None = Field(description="What the customer declared; null also in the audit queue.")
    predicted_category: str | None
    category_score: float | None = Field(description="Ratio, 0 to 1.")
    review_reasons: list[ReviewReason] | None
    category_scores: list[CategoryScore] | None = Field(description="Largest first.")
    class_name: str | None = Field(description="Most probable class.")
    confidence: float | None = Field(description="Its probability, 0 to 1.")
    model: str | None
    picture: Picture


class Refund(BaseModel):
    """A refund, or a photo without one, that is yours for now."""

    refund_id: str | None
    photos: list[Waiting]
    others: list[OtherOfRefund] = Field(description="Photos of the refund that you do not decide now; at most 12.")


class Claims(BaseModel):
    """What you have before you."""

    status: Literal["success"] = "success"
    queue: Queue
    refunds: list[Refund] = Field(description="Empty where nothing is left that nobody else has before them.")
    claimed_until: datetime | None = Field(
        description="Then anybody may be given them, unless you decide or ask again."
    )
    waiting: int = Field(description="Photos in the queue, counted at as_of.")
    as_of: datetime


class ClaimBody(BaseModel):
    """What you want to be given."""

    queue: Queue = Queue.REVIEW
    also: int = Field(default=0, ge=0, le=2, description="Refunds to hold beyond the one before you.")
    passed_over: list[UUID] = Field(
        default_factory=list,
        max_length=MOST_PASSED_OVER,
        description="Photos that you do not want; those that you hold are let go.",
    )
    photo: PhotoName | None = Field(
        default=None, description="A photo to hold first, by its name: one that you let go and want back."
    )


class VerdictBody(PhotoName):
    """What a person says of a photo."""

    category: str = Field(description="A department of the taxonomy, or not_a_product.", examples=["shoes"])
    note: str | None = Field(default=None, max_length=NOTE_CHARS, description="A remark.")


class Verdict(BaseModel):
    """A verdict as it stands."""

    status: Literal["success"] = "success"
    review_id: int
    category: str
    reviewed_at: datetime
    chosen_by: Literal["queue", "audit"]
    known: bool = Field(description="True where you had sent the same verdict before; it is there once.")


class UndoBody(BaseModel):
    """Which verdict to take back."""

    review_id: int = Field(ge=1, le=LARGEST_ID)


class Undone(PhotoName):
    """The verdict is gone, refund.audit keeps what it said, and the photo is yours again."""

    status: Literal["success"] = "success"
    review_id: int
    category: str
    queue: Queue


class ReleaseBody(BaseModel):
    """Which photos to let go."""

    photos: list[PhotoName] | None = Field(default=None, max_length=100, description="Null: all that you hold.")


class Released(BaseModel):
    """Photos that anybody may be given now."""

    status: Literal["success"] = "success"
    released: int


class ReasonCount(BaseModel):
    """Photos that wait for this reason; each counted once, under the first reason of the queue's order."""

    reason: ReviewReason
    photos: int


class NightCount(BaseModel):
    """Photos of a night that wait."""

    run_date: date
    review: int
    audit: int


class Summary(BaseModel):
    """How much waits, and who is at work."""

    status: Literal["success"] = "success"
    as_of: datetime = Field(description="When the queues were counted; the rest is as it is now.")
    review: int = Field(description="Photos that the machine is unsure of.")
    audit: int = Field(description="Photos drawn at random to check the machine.")
    by_reason: list[ReasonCount] = Field(description="In the order of the queue.")
    by_night: list[NightCount] = Field(description="Latest first.")
    claimed: int = Field(description="Photos that anybody has before them now.")
    claimed_by_me: int
    decided_today: int = Field(description="By you, since midnight UTC.")


def _orders(request: Request, desk: DeskDep) -> Orders:
    """The queues' orders, kept with the app for as long as its stores stay the same."""
    database = desk.services.database
    kept: Orders | None = getattr(request.app.state, "review_orders", None)
    if kept is None or kept.database is not database:
        kept = request.app.state.review_orders = Orders(database)
    return kept


OrdersDep = Annotated[Orders, Depends(_orders)]


@router.post("/claims", summary="Take photos to review", responses=problems(404, 409, 422, 503))
def claims(body: ClaimBody, desk: DeskDep, orders: OrdersDep, visitor: Asking) -> Claims:
    """What you hold, then the next refunds of the queue, held for you for ten minutes from your last sign of life.

    Contradictions of what the customer declared come first, then what shows no product, then the rest; in each the
    least sure first. Photos of a refund come together, at most ten at once. Nobody is given a photo, or another photo
    of its refund, that somebody else holds: 409 where that is so of the one you name.
    """
    now = desk.services.now()
    if body.photo is not None:
        try:
            photo_date, photo_id = body.photo.photo_date, str(body.photo.photo_id)
            review_claims.hold(orders.database, photo_date=photo_date, photo_id=photo_id, by=visitor.name, at=now)
        except ReviewConflictError as exc:
            raise _refused(exc) from exc
    passed_over = [str(photo_id) for photo_id in body.passed_over]
    held = claim_photos(
        orders, queue=body.queue, by=visitor.name, at=now, wanted=1 + body.also, passed_over=passed_over
    )
    photos = [photo for group in held for photo in group]
    refund_ids = sorted({photo.refund_id for photo in photos if photo.refund_id is not None})
    others = other_photos(desk.services.database, refund_ids=refund_ids, shown=[photo.photo_id for photo in photos])
    order = orders.get(body.queue, now=now)
    audit = body.queue is Queue.AUDIT
    return Claims(
        queue=body.queue,
        refunds=[
            Refund(
                refund_id=group[0].refund_id,
                photos=[_waiting(photo, desk=desk, visitor=visitor, audit=audit) for photo in group],
                others=[
                    _other(photo, desk=desk, visitor=visitor, audit=audit)
                    for photo in others.get(group[0].refund_id or "", [])
                ],
            )
            for group in held
        ],
        claimed_until=min((photo.expires_at for photo in photos), default=None),
        waiting=order.waiting,
        as_of=order.at,
    )


@router.post("/decisions", summary="Give a verdict", responses=problems(404, 409, 422, 503))
def decisions(body: VerdictBody, desk: DeskDep, visitor: Asking) -> Verdict:
    """Write what you say of a photo; it is final until somebody says otherwise. The same verdict twice is there once.

    409 where somebody else has the photo before them or has decided it; nothing is written then.
    """
    if body.category not in DEPARTMENTS:
        raise DeskError(
            status=422,
            error="unknown_category",
            message=f"category {visible(body.category, limit=60)!r} is none; expected a department or not_a_product.",
            what_to_do=f"Send one of {', '.join(sorted(DEPARTMENTS))}.",
            details={"categories": sorted(DEPARTMENTS)},
        )
    services = desk.services
    try:
        written = review_claims.decide(
            services.database,
            photo_date=body.photo_date,
            photo_id=str(body.photo_id),
            category=body.category,
            note=_storable(body.note),
            by=visitor.name,
            at=services.now(),
        )
    except ReviewConflictError as exc:
        raise _refused(exc) from exc
    return Verdict.model_validate(written, from_attributes=True)


@router.post("/undo", summary="Take a verdict back", responses=problems(404, 409, 422, 503))
def undo(body: UndoBody, desk: DeskDep, visitor: Asking) -> Undone:
    """Take back your own verdict, the newest of its photo, within fifteen minutes; the photo is yours again."""
    services = desk.services
    try:
        undone = review_claims.undo(services.database, review_id=body.review_id, by=visitor.name, at=services.now())
    except ReviewConflictError as exc:
        raise _refused(exc) from exc
    return Undone(
        review_id=undone.review_id,
        photo_date=undone.photo_date,
        photo_id=UUID(undone.photo_id),
        category=undone.category,
        queue=Queue.AUDIT if undone.chosen_by == "audit" else Queue.REVIEW,
    )


@router.post("/release", summary="Let photos go", responses=problems(422, 503))
def release(body: ReleaseBody, desk: DeskDep, visitor: Asking) -> Released:
    """Let photos that you hold go to whoever asks next."""
    photos = None if body.photos is None else [(photo.photo_date, str(photo.photo_id)) for photo in body.photos]
    return Released(released=review_claims.release(desk.services.database, by=visitor.name, photos=photos))


@router.get("/summary", summary="What waits for review", responses=problems(503))
def summary(desk: DeskDep, orders: OrdersDep, visitor: Asking) -> Summary:
    """How much waits by reason and by night, how much of it people have before them, and what you decided today."""
    now = desk.services.now()
    review, audit = orders.get(Queue.REVIEW, now=now), orders.get(Queue.AUDIT, now=now)
    seen = activity(desk.services.database, by=visitor.name, at=now)
    return Summary(
        as_of=min(review.at, audit.at),
        review=review.waiting,
        audit=audit.waiting,
        by_reason=[ReasonCount(reason=reason, photos=count) for reason, count in review.counted_reasons()],
        by_night=[
            NightCount(run_date=night, review=review.by_night.get(night, 0), audit=audit.by_night.get(night, 0))
            for night in sorted({*review.by_night, *audit.by_night}, reverse=True)
        ],
        claimed=seen.claimed,
        claimed_by_me=seen.claimed_by_me,
        decided_today=seen.decided_today,
    )


def _waiting(photo: WaitingPhoto, *, desk: Desk, visitor: Visitor, audit: bool) -> Waiting:
    """One photo; of an audit nothing that tells the machine's answer: what the customer declared is the same there."""
    scores = sorted(photo.category_scores.items(), key=lambda item: (-item[1], item[0]))
    return Waiting(
        photo_date=photo.photo_date,
        photo_id=UUID(photo.photo_id),
        filename=_name(photo.key),
        run_date=photo.run_date,
        refund_id=photo.refund_id,
        declared_category=None if audit else photo.declared_category,
        predicted_category=None if audit else photo.predicted_category,
        category_score=None if audit else photo.category_score,
        review_reasons=None if audit else [ReviewReason(reason) for reason in photo.review_reasons],
        category_scores=None if audit else [CategoryScore(category=name, score=score) for name, score in scores],
        class_name=None if audit else photo.class_name,
        confidence=None if audit else photo.confidence,
        model=None if audit else photo.model,
        picture=Picture(
            small=desk.pictures.path(visitor, photo_date=photo.photo_date, photo_id=photo.photo_id, size="small"),
            large=desk.pictures.path(visitor, photo_date=photo.photo_date, photo_id=photo.photo_id, size="large"),
        ),
    )


def _other(photo: OtherPhoto, *, desk: Desk, visitor: Visitor, audit: bool) -> OtherOfRefund:
    shown = photo.outcome != "rejected"
    path = desk.pictures.path(visitor, photo_date=photo.photo_date, photo_id=photo.photo_id) if shown else None
    decided = photo.state in ("person", "machine") and not audit
    return OtherOfRefund.model_validate(
        {
            "photo_date": photo.photo_date,
            "photo_id": photo.photo_id,
            "filename": _name(photo.key),
            "state": None if audit else photo.state,
            "category": photo.final_category if decided else None,
            "picture": path,
        }
    )


def _name(key: str) -> str:
    return visible(key.rpartition("/")[2] or key)


def _storable(note: str | None) -> str | None:
    """Without what Postgres refuses; None where nothing is left."""
    text = (note or "").replace("\x00", "").encode("utf-8", "replace").decode("utf-8").strip()
    return text or None


def _refused(exc: ReviewConflictError) -> DeskError:
    return DeskError(
        status=404 if exc.word in _UNKNOWN else 409, error=exc.word, message=exc.message, what_to_do=exc.what_to_do
    )
