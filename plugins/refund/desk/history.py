"""The history over REST: what became of photos of nights and of trials, as pages, as a table and counted."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, BeforeValidator, Field

from refund.desk.dates import asked_date
from refund.desk.problems import DeskError
from refund.desk.readers import Readers, ReadersDep, Table
from refund.desk.wiring import DeskDep
from refund.errors import QueryError
from refund.model.taxonomy import DEPARTMENTS
from refund.report.csv_table import guarded
from refund.store import history as rows
from refund.store.database import Database
from refund.store.history import HistoryCounts, HistoryFilter

router = APIRouter(tags=["history"])

DEFAULT_DAYS = 30
MOST_ROWS = 10_000  # that pages reach; the table has all
_TEXT = r"^[^\x00]*$"  # Postgres takes no NUL
_BLANK = BeforeValidator(lambda value: None if value == "" else value)  # a form sends what is not filled in
_CSV_ROWS = 500  # sent at once


class NightPhoto(BaseModel):
    """A photo that a night published; what stands of it, as in ``reporting.photos``."""

    run_date: date = Field(description="Night that published what stands.")
    photo_date: date = Field(description="Date folder that the photo lies in; 1970-01-01: undated.")
    photo_id: str
    key: str = Field(description="S3 key.")
    refund_id: str | None
    declared_category: str | None = Field(description="What the customer declared.")
    outcome: Literal["classified", "rejected"]
    rejection_reason: str | None = Field(description="Reason code, for rejected photos.")
    final_category: str | None = Field(description="The latest review's category, else the machine's.")
    predicted_category: str | None
    category_score: float | None = Field(description="Ratio, 0 to 1.")
    decision: Literal["auto", "review"] | None
    review_reasons: list[str] | None
    class_id: str | None = Field(description="WordNet id of the most probable class.")
    class_name: str | None
    confidence: float | None = Field(description="Its probability, 0 to 1.")
    model: str | None = Field(description="name@version.")
    taxonomy_version: str | None
    reviewed_category: str | None = Field(description="By the latest review; null: nobody has reviewed it.")
    reviewed_by: str | None
    reviewed_at: datetime | None
    image_format: str | None
    width_px: int | None
    height_px: int | None
    size_bytes: int
    quality_labels: list[str]
    run_id: str
    synthetic: bool = Field(description="True for made-up nights of the demo.")


class Trial(BaseModel):
    """A photo that somebody tried at the desk; the verdict, not the photo."""

    trial_id: int
    at: datetime
    tried_by: str
    filename: str
    outcome: Literal["classified", "rejected"]
    reason: str | None = Field(description="Reason code, for rejected photos.")
    detail: str | None = Field(description="What was seen, for rejected photos.")
    category: str | None
    category_score: float | None = Field(description="Ratio, 0 to 1.")
    decision: Literal["auto", "review"] | None
    review_reasons: list[str]
    class_id: str | None = Field(description="WordNet id of the most probable class.")
    class_name: str | None
    confidence: float | None = Field(description="Its probability, 0 to 1.")
    model: str | None = Field(description="name@version.")
    taxonomy_version: str | None
    image_format: str | None
    width_px: int | None
    height_px: int | None
    size_bytes: int
    sha256: str | None
    elapsed_ms: float | None
    kept_key: str | None = Field(description="S3 key of the upload where it was kept.")
    request_id: str


class HistoryAnswer(BaseModel):
    """A page of the history."""

    status: Literal["success"] = "success"
    source: Literal["nights", "trials"]
    date_from: date
    date_to: date
    items: list[NightPhoto] | list[Trial]
    page: int
    page_size: int
    has_more: bool = Field(description="Whether there is a next page.")


class DayCount(BaseModel):
    """Photos of one day."""

    day: date = Field(description="Run date, or day of the trials (UTC).")
    photos: int


class StatisticsAnswer(BaseModel):
    """What a filter lets through, counted."""

    status: Literal["success"] = "success"
    source: Literal["nights", "trials"]
    date_from: date
    date_to: date
    photos: int
    mean_confidence: float | None = Field(description="Of the most probable class, over classified photos; 0 to 1.")
    mean_category_score: float | None = Field(description="Over classified photos; 0 to 1.")
    outcomes: dict[str, int]
    decisions: dict[str, int]
    categories: dict[str, int] = Field(description="Final categories, most photos first.")
    models: dict[str, int]
    days: list[DayCount]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Where to look, and for what."""

    source: Literal["nights", "trials"]
    filter: HistoryFilter

    def as_answer(self) -> dict[str, Any]:
        """What every answer repeats."""
        return {"source": self.source, "date_from": self.filter.date_from, "date_to": self.filter.date_to}


def asked(
    desk: DeskDep,
    source: Annotated[
        Literal["nights", "trials"], Query(description="Photos of nights, or photos that people tried at the desk.")
    ] = "nights",
    date_from: Annotated[
        str | None, Query(description=f"First run date, or day of trials (UTC); {DEFAULT_DAYS} days by default.")
    ] = None,
    date_to: Annotated[str | None, Query(description="Last run date, or day of trials; today by default.")] = None,
    category: Annotated[
        str | None,
        Query(
            description="Final category (of trials: the machine's).", json_schema_extra={"enum": sorted(DEPARTMENTS)}
        ),
    ] = None,
    decision: Annotated[
        Literal["auto", "review"] | None, _BLANK, Query(description="Who decided: the machine, or a person must.")
    ] = None,
    outcome: Annotated[
        Literal["classified", "rejected"] | None, _BLANK, Query(description="What became of it.")
    ] = None,
    model: Annotated[str | None, Query(description="name@version.", max_length=200, pattern=_TEXT)] = None,
    refund_id: Annotated[
        str | None, Query(description="The whole refund id; of nights.", max_length=1024, pattern=_TEXT)
    ] = None,
    text: Annotated[
        str | None,
        Query(description="Part of the key or file name, in whatever case.", max_length=200, pattern=_TEXT),
    ] = None,
    reviewed: Annotated[bool | None, _BLANK, Query(description="Whether a person has reviewed it; of nights.")] = None,
    tried_by: Annotated[
        str | None, Query(description="Who tried it; of trials.", max_length=200, pattern=_TEXT)
    ] = None,
) -> Asked:
    """What the query asks for; an empty value counts as not given.

    Raises:
        DeskError: 422, a value is none that it can have.
    """
    if category and category not in DEPARTMENTS:
        raise _invalid(
            name="category", text=f"{category[:60]!r} is none; expected one of {', '.join(sorted(DEPARTMENTS))}."
        )
    if source == "trials" and (refund_id or reviewed is not None):
        name = "refund_id" if refund_id else "reviewed"
        refusal = "trials belong to no refund and are not reviewed; expected it with source=nights alone."
        raise _invalid(name=name, text=refusal)
    if source == "nights" and tried_by:
        refusal = "nobody tried the photos of nights by hand; expected it with source=trials alone."
        raise _invalid(name="tried_by", text=refusal)
    last = asked_date(date_to, name="date_to") if date_to else desk.services.now().date()
    first = asked_date(date_from, name="date_from") if date_from else last - timedelta(days=DEFAULT_DAYS - 1)
    if first > last:
        raise _invalid(name="date_from", text=f"{first} lies after date_to, {last}.")
    return Asked(
        source=source,
        filter=HistoryFilter(
            date_from=first,
            date_to=last,
            category=category or None,
            decision=decision,
            outcome=outcome,
            model=model or None,
            refund_id=refund_id or None,
            text=text or None,
            reviewed=reviewed,
            tried_by=tried_by or None,
        ),
    )


AskedDep = Annotated[Asked, Depends(asked)]


@router.get("/api/history", summary="Look through the history")
def show(
    desk: DeskDep,
    asked: AskedDep,
    readers: ReadersDep,
    page: Annotated[int, Query(ge=1, le=MOST_ROWS, description="From 1.")] = 1,
    page_size: Annotated[int, Query(ge=1, le=200, description="Photos of a page.")] = 50,
) -> HistoryAnswer:
    """Photos of nights, the newest night first and by photo date and key within it; or trials, the latest first.

    The first 10,000 photos can be paged through; beyond them narrow the dates, or take the table.
    """
    if page * page_size > MOST_ROWS:
        raise DeskError(
            status=422,
            error="too_deep",
            message=f"page {page} of {page_size} lies beyond the first {MOST_ROWS:,} photos.",
            what_to_do="Narrow the dates or another filter, or take all of it: GET api/history.csv.",
        )
    read = rows.night_page if asked.source == "nights" else rows.trial_page
    with readers.look():
        found = _in_time(
            lambda: read(desk.services.database, asked.filter, limit=page_size, skipped=(page - 1) * page_size)
        )
    items: list[Any] = found.items
    return HistoryAnswer(**asked.as_answer(), items=items, page=page, page_size=page_size, has_more=found.has_more)


@router.get("/api/history/statistics", summary="Count the history")
def statistics(desk: DeskDep, asked: AskedDep, readers: ReadersDep) -> StatisticsAnswer:
    """Photos by outcome, decision, category, model and day, and how sure the model was of them."""
    count = rows.night_counts if asked.source == "nights" else rows.trial_counts
    with readers.look():
        counts: HistoryCounts = _in_time(lambda: count(desk.services.database, asked.filter))
    return StatisticsAnswer(
        **asked.as_answer(),
        photos=counts.photos,
        mean_confidence=counts.mean_confidence,
        mean_category_score=counts.mean_category_score,
        outcomes=counts.outcomes,
        decisions=counts.decisions,
        categories=counts.categories,
        models=counts.models,
        days=[DayCount(day=day, photos=photos) for day, photos in counts.days.items()],
    )


@router.get(
    "/api/history.csv",
    summary="Download the history",
    response_class=StreamingResponse,  # for the schema; `Table` is one
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}, "description": "One row per photo."}},
)
def table(desk: DeskDep, asked: AskedDep, readers: ReadersDep) -> StreamingResponse:
    """All that the filter lets through as CSV (UTF-8, header first), in the order of the pages.

    A text that a spreadsheet would run as a formula gets a leading apostrophe.
    """
    read, columns = (
        (rows.night_rows, rows.NIGHT_COLUMNS) if asked.source == "nights" else (rows.trial_rows, rows.TRIAL_COLUMNS)
    )
    lines = _lines(read, columns, database=desk.services.database, wanted=asked.filter, readers=readers)
    first = _in_time(lambda: next(lines))  # what is wrong is told before a status is sent
    name = f"refund-{asked.source}-{asked.filter.date_from}-{asked.filter.date_to}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Table(_one_after_another(first, lines), source=lines, headers=headers)


def _lines(
    read: Callable[[Database, HistoryFilter], Generator[dict[str, Any], None, None]],
    columns: tuple[str, ...],
    *,
    database: Database,
    wanted: HistoryFilter,
    readers: Readers,
) -> Generator[bytes, None, None]:
    """The table some rows at a time; it begins with the mark by which Excel knows UTF-8.

    Its end, or to close it, gives its turn and its connection back.
    """
    buffer = io.StringIO("\ufeff")
    buffer.seek(0, io.SEEK_END)
    table = csv.writer(buffer, lineterminator="\r\n")
    table.writerow(columns)
    with readers.table(), closing(read(database, wanted)) as found:
        for count, row in enumerate(found, start=1):
            table.writerow([_cell(row[name]) for name in columns])
            if count % _CSV_ROWS == 0:
                yield buffer.getvalue().encode()
                buffer.seek(0)
                buffer.truncate()
        yield buffer.getvalue().encode()


def _one_after_another(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return guarded(", ".join(value))
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, (int, float)) else guarded(str(value))


def _in_time(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except QueryError as exc:
        raise DeskError(
            status=503,
            error="takes_too_long",
            message=f"{exc}.",
            what_to_do="Narrow the dates, or ask for a refund id.",
        ) from exc


def _invalid(*, name: str, text: str) -> DeskError:
    return DeskError(
        status=422,
        error="invalid",
        message=f"{name}: {text}",
        what_to_do="Correct the field named; docs/api.md lists fields and ranges.",
    )
