"""Renders the desk's pages: templates with escaping on, the same frame around each."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.responses import HTMLResponse

from refund import __version__
from refund.desk.auth import airflow_root, desk_root

if TYPE_CHECKING:
    from fastapi import Request
    from jinja2 import Environment

    from refund.desk.auth import Visitor
    from refund.desk.problems import DeskError

_HERE = Path(__file__).parent
STATIC = _HERE / "static"
PAGES = (("tonight", "Tonight"), ("try", "Try photos"), ("history", "History"), ("review", "Review"))  # path, title


def wants_page(request: Request) -> bool:
    """Whether a browser asks for a page, rather than a script for JSON."""
    inside = request.url.path.removeprefix(desk_root(request))
    return not inside.startswith("/api/") and "text/html" in request.headers.get("accept", "")


def render(
    request: Request, template: str, *, title: str, visitor: Visitor | None, status: int = 200, **context: Any
) -> HTMLResponse:
    """A page from ``templates/<template>``; everything in it is escaped."""
    page = _environment().get_template(template)
    text = page.render(
        title=title,
        visitor=visitor,
        root=desk_root(request),
        airflow_root=airflow_root(request),
        pages=PAGES,
        here=request.url.path.removeprefix(desk_root(request)).strip("/").partition("/")[0],
        version=__version__,
        static_version=static_version(),
        **context,
    )
    return HTMLResponse(text, status_code=status)


def error_page(request: Request, exc: DeskError) -> HTMLResponse:
    """An error for people."""
    return render(
        request,
        "error.html.j2",
        title="Something is wrong",
        visitor=None,
        status=exc.status,
        problem=exc,
        request_id=getattr(request.state, "request_id", ""),
    )


@cache
def static_version() -> str:
    """Changes whenever a static file does, so that browsers may keep them for good."""
    return sha256(b"".join(path.read_bytes() for path in sorted(STATIC.iterdir()) if path.is_file())).hexdigest()[:12]


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
