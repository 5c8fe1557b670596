"""Makes the desk's app: guarded as a whole, every error in one form, a router per resource."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import Depends, FastAPI
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool

from refund import __version__
from refund.desk import frame, problems
from refund.desk.auth import admit, guard, login_url
from refund.desk.middleware import Marked
from refund.desk.pace import Pace
from refund.desk.pages import error_page, wants_page
from refund.desk.readers import Readers
from refund.desk.routers import ROUTERS
from refund.desk.wiring import Desk, desk_of_airflow

if TYPE_CHECKING:
    from fastapi import Request
    from starlette.responses import Response

PREFIX = "/refund"  # where Airflow mounts it


def create_app(desk: Desk | None = None) -> FastAPI:
    """The app; nothing is connected or started before a request needs it.

    Args:
        desk: what the routes work with; None: as Airflow's connections name it.
    """
    held = desk or desk_of_airflow()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await run_in_threadpool(held.close)

    app = FastAPI(
        title="Refund desk",
        version=__version__,
        description="Classify photos of returned goods, and read what the nights made of them.",
        dependencies=[Depends(guard)],
        openapi_url=None,  # the guard does not reach what FastAPI adds by itself: our own route serves it
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # those answers would come before the guard; `frame.unknown` gives them behind it
        lifespan=lifespan,
    )
    app.state.desk = held
    app.state.pace = Pace()
    app.state.readers = Readers()
    app.add_middleware(Marked, respond=_respond, admit=admit)
    problems.install(app, _respond)
    for router in ROUTERS:
        app.include_router(router)
    app.include_router(frame.unknown_router)  # takes what no other route does, so it is the last
    return app


def _respond(request: Request, exc: problems.DeskError) -> Response:
    if exc.error == "unavailable":  # not where the desk is merely busy
        desk: Desk = request.app.state.desk
        desk.doubt()
    if not wants_page(request):
        return problems.answer(request, exc)
    if exc.error == "not_signed_in":
        return RedirectResponse(login_url(request), status_code=303)
    return error_page(request, exc)
