"""Runs and reports of nights over REST."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from refund.desk.dates import asked_date
from refund.desk.problems import DeskError
from refund.desk.schema import problems
from refund.desk.wiring import DeskDep
from refund.store.run_pages import run_page, runs_of

router = APIRouter(prefix="/api", tags=["nights"])

MOST_ROWS = 10_000  # that pages reach
RunDate = Annotated[str, Path(description="The night, YYYY-MM-DD.", examples=["2026-11-21"])]


class Run(BaseModel):
    """One run of ``refund_nightly``; counts are null until it is published."""

    run_date: date = Field(description="The night.")
    run_id: str = Field(description="Airflow's.")
    state: Literal["running", "published", "failed", "dry_run"]
    synthetic: bool = Field(description="True for made-up nights of the demo.")
    model: str = Field(description="name@version that it began with.")
    models: list[str] = Field(description="Those that classified its photos, once known.")
    taxonomy_version: str
    code_version: str
    photos: int | None
    classified: int | None
    rejected: int | None
    unchanged: int | None = Field(description="Left as an earlier run decided.")
    rejected_share: float | None = Field(description="Of classified and rejected ones; 0 to 1.")
    photos_per_second: float | None
    error_rate: float | None = Field(description="0 to 1.")
    started_at: datetime
    published_at: datetime | None
    finished_at: datetime | None


class Runs(BaseModel):
    """A page of runs."""

    status: Literal["success"] = "success"
    items: list[Run]
    page: int
    page_size: int
    has_more: bool = Field(description="Whether there is a next page.")


class Reconciliation(BaseModel):
    """Whether every photo of the manifest has one outcome; null where an earlier release did not count it."""

    manifest: int
    packed: int | None
    predicted: int | None
    outcomes: int
    classified: int
    rejected: int
    unchanged: int
    overtaken: int | None = Field(description="Of the unchanged: published by another run meanwhile.")
    decisions: int
    adds_up: bool


class Stage(BaseModel):
    """How fast and how faulty one stage was; null where it does not work photo by photo."""

    stage: str
    seconds: float | None = Field(description="Of work, summed over shards.")
    photos: int | None
    failed: int | None
    photos_per_second: float | None
    error_rate: float | None
    p50_ms: float | None = Field(description="Of one photo.")
    p95_ms: float | None
    p99_ms: float | None
    max_ms: float | None


class WholeRun(Run):
    """A run with all that is known of it."""

    params: dict[str, Any]
    notes: list[str] = Field(description="What was odd but did not stop the night.")
    reconciliation: Reconciliation | None = Field(description="Null before it is published.")
    stages: list[Stage]


class Night(BaseModel):
    """The runs of one night."""

    status: Literal["success"] = "success"
    run_date: date
    runs: list[WholeRun] = Field(description="The last begun first.")


class Report(BaseModel):
    """The morning report of a night."""

    status: Literal["success"] = "success"
    run_date: date
    run_id: str = Field(description="The run that it reports on: of several the one published last.")
    created_at: datetime
    page: str = Field(description="Path of the report's page, below the desk.")
    table: str = Field(description="Path of its figures as CSV, below the desk.")
    figures: dict[str, Any] = Field(description="Every figure of the report.")


@router.get("/runs", summary="List runs")
def runs(
    desk: DeskDep,
    page: Annotated[int, Query(ge=1, le=MOST_ROWS, description="From 1.")] = 1,
    page_size: Annotated[int, Query(ge=1, le=200, description="Runs of a page.")] = 50,
) -> Runs:
    """Every run, the newest night first; also those under way, failed, dry and made up."""
    if page * page_size > MOST_ROWS:
        raise DeskError(
            status=422,
            error="too_deep",
            message=f"page {page} of {page_size} lies beyond the first {MOST_ROWS:,} runs.",
            what_to_do="Ask for a night: GET api/runs/{run_date}.",
        )
    found, has_more = run_page(desk.services.database, limit=page_size, skipped=(page - 1) * page_size)
    return Runs(items=[Run(**row) for row in found], page=page, page_size=page_size, has_more=has_more)


@router.get("/runs/{run_date}", summary="Show the runs of a night", responses=problems(404))
def night(desk: DeskDep, run_date: RunDate) -> Night:
    """All runs of a date with parameters, notes, reconciliation and what each stage took."""
    day = asked_date(run_date, name="run_date")
    found = runs_of(desk.services.database, day)
    if not found:
        raise DeskError(
            status=404,
            error="no_run",
            message=f"No run of the night of {day} has begun.",
            what_to_do="GET api/runs lists the nights there are; run this one from the page Tonight.",
        )
    return Night(run_date=day, runs=[WholeRun(**row) for row in found])


@router.get("/reports/{run_date}", summary="Read the report of a night", responses=problems(404))
def report(desk: DeskDep, run_date: RunDate) -> Report:
    """Every figure of the morning report, and where its page and its table are."""
    day = asked_date(run_date, name="run_date")
    row = desk.services.repository.get_report(run_date=day)
    if row is None:
        raise DeskError(
            status=404,
            error="no_report",
            message=f"There is no report of the night of {day}.",
            what_to_do=f"GET api/runs/{day} says whether it was run; clear generate_report of its run to write one.",
        )
    return Report(
        run_date=row.run_date,
        run_id=row.run_id,
        created_at=row.created_at,
        page=f"/reports/{day}/page",
        table=f"/reports/{day}/table.csv",
        figures=row.body,
    )
