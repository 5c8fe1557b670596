"""The routes that every page leans on: the ways in, the style and scripts, and what answers an unknown address."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from starlette.routing import Match

from refund.desk.auth import READING, Asking, desk_root
from refund.desk.pages import STATIC, render
from refund.report.labels import visible

router = APIRouter()
unknown_router = APIRouter()

OUR_DAGS = ("refund_nightly", "refund_model", "refund_quality")

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


@router.get("/dag/{dag_id}", include_in_schema=False, response_model=None)
def of_dag(request: Request, dag_id: str, visitor: Asking) -> HTMLResponse | RedirectResponse:
    """What the tab on a DAG shows. Airflow puts it on every DAG, so for others than ours it says where to look."""
    if dag_id in OUR_DAGS:
        return RedirectResponse(f"{desk_root(request)}/tonight", status_code=303)
    return render(
        request,
        "other_dag.html.j2",
        title="Not a DAG of the refund night",
        visitor=visitor,
        dag_id=visible(dag_id, limit=250),
    )


# Without methods a route takes any. Without this one, anonymous visitors could tell which addresses there are.
@unknown_router.api_route("/{path:path}", methods=[], operation_id="unknown", include_in_schema=False)
def unknown(request: Request, path: str) -> RedirectResponse:
    """Tell whoever was let in that the address or its method is wrong; a slash too many is put right.

    Raises:
        HTTPException: 405 for a method that the address does not take, else 404.
    """
    if taken := _methods(request, f"/{path}"):
        raise HTTPException(405, headers={"Allow": ", ".join(sorted(taken))})
    right = f"/{path.rstrip('/')}"
    if request.method in READING and path.endswith("/") and request.method in _methods(request, right):
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"{desk_root(request)}{quote(right)}{query}", status_code=307)
    raise HTTPException(404)


def _methods(request: Request, path: str) -> set[str]:
    """What the routes before the last take at a path."""
    scope = {**request.scope, "path": path, "root_path": ""}
    return {
        method
        for route in request.app.routes
        if isinstance(route, APIRoute) and route.methods and route.matches(scope)[0] is not Match.NONE
        for method in route.methods
    }
