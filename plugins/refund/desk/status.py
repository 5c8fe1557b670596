"""What the desk is and how it is: health for monitors, limits and model for callers, the registry."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from threading import Lock
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from refund import __version__
from refund.desk.probe import Found, Probe, desk_probe
from refund.desk.problems import DeskError
from refund.desk.schema import Problem
from refund.desk.uploads import MOST_IN_A_BATCH
from refund.desk.verdict import MAX_TOP_K
from refund.desk.wiring import DeskDep
from refund.errors import NoModelError
from refund.imaging.sniff import SUPPORTED_FORMATS
from refund.model.taxonomy import DEPARTMENTS, NOT_A_PRODUCT
from refund.params import NightParams
from refund.report.labels import category_label
from refund.store.aliases import AliasChange
from refund.store.database import EXPECTED_VERSION
from refund.store.registry import ModelRow

router = APIRouter(prefix="/api", tags=["status"])

_making = Lock()  # of an app's probe
# Of a card what says how good a model is and what it takes; not its labels' digest, nor what tells builds apart.
_PUBLIC = (
    "name", "version", "runtime", "precision", "input_width", "input_height", "class_count", "source", "created_at",
    "artefact_sha256", "metrics", "agreement",
)  # fmt: skip


class PartState(BaseModel):
    """How one part of the desk is."""

    state: Literal["ok", "failed"]
    message: str = Field(description="What works; or what was seen, what was expected, what to do.")
    seconds: float = Field(description="What it took to find out.")


class Parts(BaseModel):
    """What the desk needs."""

    database: PartState = Field(description="Postgres, and whether its schema is the one expected.")
    bucket: PartState
    model: PartState = Field(description="The champion in the registry.")
    decoding: PartState = Field(description="A picture is decoded in isolation and classified.")


class Health(BaseModel):
    """Everything works."""

    status: Literal["success"] = "success"
    checked_at: datetime = Field(description="An answer is given again for two seconds.")
    parts: Parts


class Unhealthy(Problem):
    """Something does not."""

    checked_at: datetime
    parts: Parts


class Limits(BaseModel):
    """What a photo and a request may measure."""

    max_bytes: int = Field(description="Of one photo.")
    min_side_px: int
    max_side_px: int
    formats: list[str] = Field(description="Told by content, whatever a file's name.")
    max_photos_per_batch: int
    top_k_min: int
    top_k_max: int
    top_k_default: int
    requests_per_minute: int = Field(description="Photos that one person may have classified in a minute.")
    upload_timeout_s: float = Field(description="For an upload to arrive, for each max_bytes of it begun.")
    decode_timeout_s: float


class Category(BaseModel):
    """What the refund department sorts by."""

    category: str
    name: str = Field(description="For people.")
    always_reviewed: bool


class PublicCard(BaseModel):
    """What a model is and what it takes."""

    model: str = Field(description="name@version.")
    name: str
    version: str
    runtime: str
    precision: str
    input_width: int = Field(description="Pixels.")
    input_height: int
    class_count: int
    source: str = Field(description="Where its weights came from.")
    created_at: str
    artefact_sha256: str
    metrics: dict[str, float]
    agreement: dict[str, Any] | None = Field(description="Of an int8 model with the float32 one of the same build.")
    evaluated_on: str | None = Field(description="The labelled set of its latest evaluation.")
    accuracy: float | None = Field(description="On that set; 0 to 1.")


class Versions(BaseModel):
    """What runs here."""

    refund: str
    python: str
    airflow: str | None = Field(description="Null: it is not installed here, and so for litert.")
    litert: str | None = Field(description="What runs the packaged networks.")
    database_schema: str = Field(alias="schema", description="Of the database: the one that this code expects.")


class Info(BaseModel):
    """What the desk takes and works with."""

    status: Literal["success"] = "success"
    version: str = Field(description="Of the package refund.")
    versions: Versions
    limits: Limits
    taxonomy_version: str
    categories: list[Category]
    model: PublicCard | None = Field(description="The champion; null: none is promoted yet.")


class Change(BaseModel):
    """One change of an alias."""

    change_id: int
    alias: str
    model: str = Field(description="What it meant from then on.")
    action: Literal["promote", "rollback"]
    by: str
    reason: str
    override: bool = Field(description="A refused promotion was made all the same.")
    set_at: datetime
    ended_at: datetime | None = Field(description="Null: it still does.")


class Registered(BaseModel):
    """A registered model version."""

    model: str = Field(description="name@version.")
    state: Literal["candidate", "retired"]
    aliases: list[str] = Field(description="Those that mean it now.")
    registered_at: datetime
    registered_by: str
    card: PublicCard


class Models(BaseModel):
    """The registry, newest model first, and what its aliases meant when."""

    status: Literal["success"] = "success"
    models: list[Registered]
    history: list[Change] = Field(description="Oldest first.")


@router.get(
    "/health",
    summary="Tell whether everything works",
    responses={503: {"model": Unhealthy, "description": "Something does not work."}},
)
def health(request: Request) -> Health:
    """The state of every part that the desk needs, for monitors: 200 or 503. It takes a few seconds at most."""
    found = _probe(request).ask(_clock)
    if not found.ok:
        failed = [name for name, part in found.parts.items() if not part.ok]
        raise DeskError(
            status=503,
            error="unhealthy",
            message=f"Not working: {', '.join(failed)}.",
            what_to_do="Mend what parts says; docs/operations.md has every error.",
            details={"checked_at": found.checked_at.isoformat(), "parts": _parts(found).model_dump()},
        )
    return Health(checked_at=found.checked_at, parts=_parts(found))


@router.get("/info", summary="Tell limits, categories and model")
def info(desk: DeskDep) -> Info:
    """What may be sent, what comes back, and which model answers."""
    services = desk.services
    settings = services.settings
    try:
        champion = _card(services.registry.resolve("champion"))
    except NoModelError:
        champion = None
    return Info(
        version=__version__,
        versions=_versions(),
        limits=Limits(
            max_bytes=settings.max_bytes,
            min_side_px=settings.min_side_px,
            max_side_px=settings.max_side_px,
            formats=sorted(SUPPORTED_FORMATS),
            max_photos_per_batch=MOST_IN_A_BATCH,
            top_k_min=1,
            top_k_max=MAX_TOP_K,
            top_k_default=NightParams().top_k,
            requests_per_minute=settings.desk_requests_per_minute,
            upload_timeout_s=settings.desk_upload_timeout_s,
            decode_timeout_s=settings.desk_decode_timeout_s,
        ),
        taxonomy_version=_taxonomy_version(),
        categories=[
            Category(category=category, name=category_label(category), always_reviewed=category == NOT_A_PRODUCT)
            for category in sorted(DEPARTMENTS)
        ],
        model=champion,
    )


@router.get("/models", summary="List the models")
def models(desk: DeskDep) -> Models:
    """Every model ever registered, and who let which alias mean which of them, when and why."""
    registry = desk.services.registry
    return Models(models=[_registered(row) for row in registry.list()], history=list(map(_change, registry.history())))


def _probe(request: Request) -> Probe:
    """The one of this app, so that all who ask share its answers."""
    state = request.app.state
    with _making:
        if not hasattr(state, "probe"):
            state.probe = desk_probe(state.desk)
        probe: Probe = state.probe
        return probe


def _clock() -> datetime:
    return datetime.now(UTC)  # not the stores' clock: they may be what does not work


def _parts(found: Found) -> Parts:
    states = {
        name: PartState(state="ok" if part.ok else "failed", message=part.message, seconds=part.seconds)
        for name, part in found.parts.items()
    }
    return Parts(**states)


@cache
def _versions() -> Versions:
    return Versions(
        refund=__version__,
        python=platform.python_version(),
        airflow=_installed("apache-airflow"),
        litert=_installed("ai-edge-litert"),
        schema=EXPECTED_VERSION,
    )


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@cache
def _taxonomy_version() -> str:
    from refund.model.labels import load_labels
    from refund.model.taxonomy import load_taxonomy

    return load_taxonomy(labels=load_labels()).version


def _card(row: ModelRow) -> PublicCard:
    values: dict[str, Any] = row.as_json()["card"]
    public = {name: values.get(name) for name in _PUBLIC}  # a card of an older schema has no agreement
    known = {"model": row.model, "evaluated_on": row.evaluated_on, "accuracy": row.accuracy}
    return PublicCard.model_validate(public | known)


def _registered(row: ModelRow) -> Registered:
    return Registered(
        model=row.model,
        state="retired" if row.state == "retired" else "candidate",
        aliases=list(row.aliases),
        registered_at=row.created_at,
        registered_by=row.created_by,
        card=_card(row),
    )


def _change(change: AliasChange) -> Change:
    return Change(**{name: value for name, value in change.as_json().items() if name != "details"})
