"""One photo: all that is known of it, over REST and as a page."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field

from refund.desk import photo_view as view
from refund.desk.auth import Asking
from refund.desk.dates import IsoDate
from refund.desk.pages import render
from refund.desk.problems import DeskError
from refund.desk.wiring import DeskDep
from refund.report.labels import category_label, percent, reason_label, visible
from refund.store.photos import (
    DecisionRow,
    OutcomeRow,
    PhotoRow,
    PhotoStory,
    PredictionRow,
    ReviewRow,
    VersionRow,
    find_photo,
)

router = APIRouter(tags=["history"])

PhotoDate = Annotated[IsoDate, Path(description="Date folder that the photo lies in; 1970-01-01: undated.")]
PhotoId = Annotated[UUID, Path(description="As the history names it.")]


class PhotoAnswer(BaseModel):
    """All that is known of one version of a photo."""

    status: Literal["success"] = "success"
    photo: PhotoRow
    outcome: OutcomeRow | None = Field(description="The outcome that stands.")
    final_category: str | None = Field(description="The latest review's category, else the machine's.")
    versions: list[VersionRow] = Field(description="All versions under the photo's key, the newest first.")
    outcomes: list[OutcomeRow] = Field(description="What each run made of it, the newest first.")
    predictions: list[PredictionRow] = Field(description="What each model took it for.")
    decisions: list[DecisionRow] = Field(description="Decisions, the live one first.")
    reviews: list[ReviewRow] = Field(description="What people decided, the latest first.")
    picture: str | None = Field(
        description="Path below the desk of a picture of at most 1,024 pixels, for you and for some minutes; "
        "null where there is none: the photo was overwritten, rejected or made up."
    )


@router.get("/api/photos/{photo_date}/{photo_id}", summary="One photo")
def show(photo_date: PhotoDate, photo_id: PhotoId, desk: DeskDep, visitor: Asking) -> PhotoAnswer:
    """The photo, its versions, and what runs, models and people made of it."""
    story = _found(desk, photo_date, photo_id)
    return PhotoAnswer(
        photo=story.photo,
        outcome=story.outcome,
        final_category=story.final_category,
        versions=story.versions,
        outcomes=story.outcomes,
        predictions=story.predictions,
        decisions=story.decisions,
        reviews=story.reviews,
        picture=_picture(desk, visitor, story),
    )


@router.get("/history/{photo_date}/{photo_id}", include_in_schema=False)
def page(request: Request, photo_date: IsoDate, photo_id: UUID, desk: DeskDep, visitor: Asking) -> HTMLResponse:
    """The photo's own page."""
    story = _found(desk, photo_date, photo_id)
    return render(
        request,
        "photo.html.j2",
        title=view.file_name(story.photo.key),
        visitor=visitor,
        story=story,
        photo=story.photo,
        standing=view.standing(story),
        notes=view.notes(story),
        picture=_picture(desk, visitor, story),
        view=view,
        category_label=category_label,
        reason_label=reason_label,
        percent=percent,
        visible=visible,
    )


def _found(desk: DeskDep, photo_date: date, photo_id: UUID) -> PhotoStory:
    story = find_photo(desk.services.database, photo_date=photo_date, photo_id=photo_id)
    if story is None:
        raise DeskError(
            status=404,
            error="no_such_photo",
            message=f"No night has seen a photo {photo_id} of {photo_date}.",
            what_to_do="Look for it in the history; the date is that of the folder it lies in, not the night's.",
        )
    return story


def _picture(desk: DeskDep, visitor: Asking, story: PhotoStory) -> str | None:
    """None where it is known beforehand that there is nothing to show."""
    photo, outcome = story.photo, story.outcome
    rejected = outcome is not None and outcome.outcome == "rejected"
    if photo.superseded_by or photo.synthetic or rejected or photo.bucket != desk.services.objects.bucket:
        return None
    return desk.pictures.path(visitor, photo_date=photo.photo_date, photo_id=photo.photo_id, size="large")
