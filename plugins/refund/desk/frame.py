"""The routes that every page leans on: the way in, and the style and scripts."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import FileResponse, RedirectResponse

from refund.desk.auth import desk_root
from refund.desk.pages import STATIC

router = APIRouter()

_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@router.get("/", include_in_schema=False)
def front(request: Request) -> RedirectResponse:
    """The first page."""
    return RedirectResponse(f"{desk_root(request)}/tonight", status_code=303)


@router.get("/static/{name}", include_in_schema=False)
def static(name: str) -> FileResponse:
    """A style sheet, script or picture of ours; behind the login as everything is."""
    found = {path.name: path for path in STATIC.iterdir() if path.suffix in _TYPES}
    if name not in found:
        raise HTTPException(404, f"there is no {name!r}")
    path = found[name]
    return FileResponse(
        path, media_type=_TYPES[path.suffix], headers={"Cache-Control": "private, max-age=31536000, immutable"}
    )
