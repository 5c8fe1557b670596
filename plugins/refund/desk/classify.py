"""The routes that classify photos people send: one, or a batch of which a bad one never fails the others."""

from __future__ import annotations

import asyncio
import logging
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from refund.desk.answers import BatchAnswer, ClassifyAnswer
from refund.desk.auth import Asking
from refund.desk.engine import Engine
from refund.desk.problems import DeskError, as_desk_error, one_line
from refund.desk.schema import multipart, problems
from refund.desk.uploads import MOST_IN_A_BATCH, Expected, Photo, Upload, read_upload
from refund.desk.verdict import MAX_TOP_K, Verdict
from refund.desk.wiring import Desk
from refund.errors import RefundError, RejectedPhotoError
from refund.params import NightParams
from refund.records import PhotoFacts

if TYPE_CHECKING:
    from concurrent.futures import Future

router = APIRouter(prefix="/api/classify", tags=["Classify"])
log = logging.getLogger(__name__)
_T = TypeVar("_T")

_RECORD_PATIENCE_S = 3.0  # Postgres may take so long over a trial before its photo is answered without a number
_DEFAULT_TOP_K = NightParams().top_k
_NOT_RECORDED = "The verdict could not be written to the history."
_NOT_KEPT = "The photo could not be kept."
_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off", "")
_FIELDS: dict[str, Any] = {
    "top_k": {"type": "integer", "minimum": 1, "maximum": MAX_TOP_K, "default": _DEFAULT_TOP_K},
    "keep": {"type": "boolean", "default": False},
}
_PHOTO = {"type": "string", "format": "binary"}
_CODES = (400, 413, 415, 422, 429, 503)


def _engine(request: Request) -> Engine:  # in a thread: the first time it opens the stores
    desk: Desk = request.app.state.desk
    return desk.engine


EngineDep = Annotated[Engine, Depends(_engine)]
TopK = Annotated[
    int | None, Query(ge=1, le=MAX_TOP_K, description=f"Classes to tell of each photo; {_DEFAULT_TOP_K} by default.")
]
Keep = Annotated[bool | None, Query(description="Store the upload in the bucket; otherwise only the verdict is kept.")]


@router.post(
    "",
    summary="Classify one photo",
    response_model=ClassifyAnswer,
    responses=problems(*_CODES),
    openapi_extra=multipart({"image": _PHOTO, **_FIELDS}, required=["image"]),
)
async def classify(
    request: Request, visitor: Asking, engine: EngineDep, top_k: TopK = None, keep: Keep = None
) -> JSONResponse:
    """Say what a photo of a returned good shows, which category it belongs to, and whether a person should look.

    `top_k` and `keep` may be sent in the query or as fields of the form.
    """
    engine.throttle.take(visitor.name)
    with engine.room.upload(visitor.name) as held:
        upload = await read_upload(request, _expected(engine, name="image", most=1), held)
        begun_s = time.perf_counter()
        told = _Told.of(request, visitor.name, engine, upload, top_k=top_k, keep=keep)
        photo = upload.photos[0]
        verdict = await asyncio.wrap_future(_begin(engine, upload.photos, told.top_k)[0])
        answer = await told.answer(photo, verdict, begun_s)
    if answer["status"] == "error":
        rejected = verdict.facts
        assert rejected.reason is not None  # noqa: S101
        exc = as_desk_error(RejectedPhotoError(rejected.reason, rejected.detail or ""))
        exc.details = {name: answer[name] for name in ("filename", "trial_id", "kept_key", "note") if name in answer}
        raise exc
    return JSONResponse({**answer, "request_id": request.state.request_id})


@router.post(
    "/batch",
    summary=f"Classify up to {MOST_IN_A_BATCH} photos",
    response_model=BatchAnswer,
    responses=problems(*_CODES),
    openapi_extra=multipart(
        {"images": {"type": "array", "items": _PHOTO, "minItems": 1, "maxItems": MOST_IN_A_BATCH}, **_FIELDS},
        required=["images"],
    ),
)
async def classify_batch(
    request: Request, visitor: Asking, engine: EngineDep, top_k: TopK = None, keep: Keep = None
) -> JSONResponse:
    """Classify several photos; `results` has one entry for each, in order, whatever becomes of the others.

    `status` is `success` where all were classified, `error` where none was, else `partial`. Where the desk could look
    at none of them the answer is 503. Of what one person may have classified in a minute a batch takes as many as it
    has photos.
    """
    engine.throttle.take(visitor.name)
    with engine.room.upload(visitor.name) as held:
        upload = await read_upload(request, _expected(engine, name="images", most=MOST_IN_A_BATCH), held)
        begun_s = time.perf_counter()
        told = _Told.of(request, visitor.name, engine, upload, top_k=top_k, keep=keep)
        engine.throttle.take(visitor.name, len(upload.photos) - 1)
        begun = [asyncio.wrap_future(verdict) for verdict in _begin(engine, upload.photos, told.top_k)]
        verdicts = await asyncio.gather(*begun, return_exceptions=True)  # all of them: trials are numbered in order
        _raise_where_nothing_works(verdicts)
        results = await asyncio.gather(
            *(told.result(photo, verdict, begun_s) for photo, verdict in zip(upload.photos, verdicts, strict=True))
        )
    valid = [result["filename"] for result in results if result["status"] == "success"]
    invalid = [
        {name: result[name] for name in ("filename", "error", "message")}
        for result in results
        if result["status"] == "error"
    ]
    status = "success" if not invalid else "partial" if valid else "error"
    return JSONResponse(
        {
            "status": status,
            "results": results,
            "valid": valid,
            "invalid": invalid,
            "timing": {"total_ms": _elapsed_ms(begun_s)},
            "request_id": request.state.request_id,
        }
    )


def _expected(engine: Engine, *, name: str, most: int) -> Expected:
    settings = engine.services.settings
    return Expected(name=name, most=most, max_bytes=settings.max_bytes, timeout_s=settings.desk_upload_timeout_s)


def _begin(engine: Engine, photos: tuple[Photo, ...], top_k: int) -> list[Future[Verdict]]:
    """A verdict to come for each photo; those refused while they were read have theirs."""
    from concurrent.futures import Future

    futures = iter(engine.classify([(photo.body, top_k) for photo in photos if photo.refused is None]))
    begun: list[Future[Verdict]] = []
    for photo in photos:
        if photo.refused is None:
            begun.append(next(futures))
            continue
        done: Future[Verdict] = Future()
        done.set_result(Verdict(facts=PhotoFacts(slot=0, reason=photo.refused.reason, detail=photo.refused.detail)))
        begun.append(done)
    return begun


def _raise_where_nothing_works(verdicts: list[Verdict | BaseException]) -> None:
    """As a single photo's call does: a client that is told 503 sends all of them again."""
    faults = [verdict for verdict in verdicts if isinstance(verdict, Exception)]
    if len(faults) < len(verdicts):
        return
    told = [as_desk_error(fault) for fault in faults]
    if all(exc.status == HTTPStatus.SERVICE_UNAVAILABLE for exc in told):
        raise told[0]


class _Told:
    """What one request asked for, and how its photos are answered."""

    def __init__(self, *, request_id: str, person: str, desk: Desk, engine: Engine, top_k: int, keep: bool) -> None:
        self._request_id, self._person, self._desk, self._engine = request_id, person, desk, engine
        self.top_k, self._keep = top_k, keep

    @classmethod
    def of(
        cls, request: Request, person: str, engine: Engine, upload: Upload, *, top_k: int | None, keep: bool | None
    ) -> _Told:
        """From query and form.

        Raises:
            DeskError: 422, a field is malformed, or query and form say different things.
        """
        form_top_k = _read_top_k(upload.fields["top_k"]) if "top_k" in upload.fields else None
        form_keep = _read_keep(upload.fields["keep"]) if "keep" in upload.fields else None
        return cls(
            request_id=request.state.request_id,
            person=person,
            desk=request.app.state.desk,
            engine=engine,
            top_k=_one_of("top_k", top_k, form_top_k, _DEFAULT_TOP_K),
            keep=_one_of("keep", keep, form_keep, False),
        )

    async def result(self, photo: Photo, verdict: Verdict | BaseException, begun_s: float) -> dict[str, Any]:
        """One entry of a batch's results, whatever happened to this photo."""
        if isinstance(verdict, Verdict):
            return await self.answer(photo, verdict, begun_s)
        if not isinstance(verdict, Exception):
            raise verdict
        exc = as_desk_error(verdict)
        if exc.status == HTTPStatus.SERVICE_UNAVAILABLE:
            self._desk.doubt()
        return _problem(photo, exc)

    async def answer(self, photo: Photo, verdict: Verdict, begun_s: float) -> dict[str, Any]:
        """The verdict as JSON, written down and the upload kept where that was asked for."""
        at, notes = self._engine.services.now(), []
        kept_key = None
        if self._keep and photo.refused is None:
            try:
                kept_key = await run_in_threadpool(self._engine.keep, photo.body, filename=photo.filename, at=at)
            except RefundError as exc:
                log.error("An upload could not be kept: %s", one_line(exc))
                notes.append(_NOT_KEPT)
        total_ms = _elapsed_ms(begun_s)
        trial = verdict.as_trial(
            at=at,
            tried_by=self._person,
            request_id=self._request_id,
            filename=photo.filename,
            size_bytes=photo.size_bytes,
            elapsed_ms=total_ms,
            kept_key=kept_key,
        )
        try:
            async with asyncio.timeout(_RECORD_PATIENCE_S):
                trial_id = await asyncio.wrap_future(self._engine.record(trial))
        except TimeoutError:
            trial_id = None
        if trial_id is None:
            notes.append(_NOT_RECORDED)
        if verdict.ok:
            told = verdict.as_json(filename=photo.filename, size_bytes=photo.size_bytes, total_ms=_elapsed_ms(begun_s))
        else:
            assert verdict.facts.reason is not None  # noqa: S101
            told = _problem(photo, as_desk_error(RejectedPhotoError(verdict.facts.reason, verdict.facts.detail or "")))
        told |= {"trial_id": trial_id, "kept_key": kept_key}
        if notes:
            told["note"] = " ".join(notes)
            self._desk.doubt()
        return told


def _problem(photo: Photo, exc: DeskError) -> dict[str, Any]:
    return {
        "status": "error",
        "filename": photo.filename,
        "error": exc.error,
        "message": exc.message,
        "what_to_do": exc.what_to_do,
    }


def _elapsed_ms(begun_s: float) -> float:
    return round((time.perf_counter() - begun_s) * 1000, 3)


def _read_top_k(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 2 and 1 <= int(text) <= MAX_TOP_K):
        raise _invalid(message=f"top_k must be a whole number from 1 to {MAX_TOP_K}, got {text[:40]!r}.")
    return int(text)


def _read_keep(text: str) -> bool:
    if text.lower() not in (*_TRUE, *_FALSE):
        raise _invalid(message=f"keep must be true or false, got {text[:40]!r}.")
    return text.lower() in _TRUE


def _one_of(name: str, query: _T | None, form: _T | None, default: _T) -> _T:
    if query is not None and form is not None and query != form:
        raise _invalid(message=f"{name} is {query!r} in the query and {form!r} in the form.")
    return query if query is not None else form if form is not None else default


def _invalid(*, message: str) -> DeskError:
    return DeskError(
        status=422,
        error="invalid",
        message=message,
        what_to_do="Correct the field named; docs/api.md lists fields and ranges.",
    )
