"""Gives out pictures under the addresses that `refund.desk.pictures` made."""

from __future__ import annotations

from fastapi import APIRouter, Response
from starlette.concurrency import run_in_threadpool

from refund.desk.auth import Asking
from refund.desk.wiring import DeskDep

router = APIRouter()

_HEADERS = {
    "Content-Disposition": 'inline; filename="photo.jpg"',  # never the name that somebody gave it
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": "private, max-age=300",
}


@router.get("/pictures/{token}", include_in_schema=False)
async def picture(token: str, visitor: Asking, desk: DeskDep) -> Response:
    """A JPEG made anew, without metadata."""
    pictures = await run_in_threadpool(lambda: desk.pictures)  # the first to ask reads Airflow's connections
    return Response(await pictures.fetch(visitor, token), media_type="image/jpeg", headers=_HEADERS)
