"""Who is asking and whether they may: the one file of the desk that knows Airflow's logins.

`guard` is a dependency of the whole app, so a route that somebody adds later is closed before they think of it: without
a login nobody gets anything, and what is not a GET takes the right to edit the DAG `DAG_ID`, or the view `DESK_VIEW`
where Airflow keeps rights of views. The framework would read a write's body before it asks; so `admit` asks before that
(`refund.desk.middleware`), and the dependency finds the answer there. A browser's cookie is sent whoever made the page
that sends it; so with a cookie alone a write also has to carry a header that other sites cannot set without being asked
first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagDetails
from airflow.api_fastapi.core_api.security import bearer_scheme, get_user
from airflow.configuration import conf
from airflow.models.dag import DagModel
from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials
from starlette.concurrency import run_in_threadpool

from refund.desk.pace import Pace
from refund.desk.problems import DeskError

DAG_ID = "refund_nightly"
DESK_VIEW = "Refund Desk"  # a resource of FAB's: "can edit on Refund Desk" lets clerks write here and nowhere else
READING = frozenset({"GET", "HEAD", "OPTIONS"})
CSRF_HEADER = "X-Refund-Desk"  # any value
ASK_FOR_WRITING = (
    f"Ask an administrator of this Airflow for the permission “can edit on {DESK_VIEW}” where it keeps such "
    f"permissions, else for the right to edit the DAG {DAG_ID}."
)
# The simple auth manager lets everybody into every view; others answer for views they do not know as they please.
_KEEPS_VIEWS = "FabAuthManager"
_FREE = ("/static/", "/pictures/")  # a page asks for dozens of these

Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer_scheme)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Who is asking."""

    name: str
    may_write: bool  # review, acknowledge, try photos


@dataclass(frozen=True, slots=True, kw_only=True)
class _Admitted:
    """What `admit` found out about a request."""

    user: Any  # Airflow's
    visitor: Visitor


async def signed_in(request: Request, bearer: Bearer) -> Any:
    """Airflow's user of the request: of its bearer token if it has one, else of its cookie.

    Raises:
        HTTPException: 401 without a valid one. Airflow itself says 403 of a token that was altered, revoked or belongs
            to somebody who left; but nobody is signed in then, and a browser should be led to the login.
    """
    if (admitted := _admitted(request)) is not None:
        return admitted.user
    try:
        return await get_user(request, None, bearer)
    except HTTPException as exc:
        raise HTTPException(401, exc.detail, headers={"WWW-Authenticate": "Bearer"}) from exc


def guard(request: Request, user: Annotated[Any, Depends(signed_in)], bearer: Bearer) -> Visitor:
    """Let through whoever may; every route of the desk depends on it, see `refund.desk.app.create_app`.

    Raises:
        HTTPException: 401 without a valid login.
        DeskError: 403 without the right, or for a write with a cookie that another site may have sent; 429, this person
            asked too often.
    """
    if (admitted := _admitted(request)) is not None:
        return admitted.visitor
    name = user.get_name()
    request.state.visitor = name  # for the log
    pace: Pace = request.app.state.pace
    if not request.scope["path"].removeprefix(desk_root(request)).startswith(_FREE):
        pace.take(name)
    visitor = Visitor(name=name, may_write=_may_edit(user))
    if request.method not in READING:
        if not visitor.may_write:
            raise DeskError(
                status=403,
                error="not_allowed",
                message=f"{visitor.name} may read the refund desk, but not change anything.",
                what_to_do=ASK_FOR_WRITING,
            )
        if bearer is None:
            _check_same_site(request)
    return visitor


Asking = Annotated[Visitor, Depends(guard)]


async def admit(request: Request) -> None:
    """Ask what `guard` asks before a byte of the body is read; the dependency then finds the answer.

    Raises:
        HTTPException, DeskError: as `guard`.
    """
    if guard in request.app.dependency_overrides:  # tests sign in so
        return
    bearer = await bearer_scheme(request)
    user = await signed_in(request, bearer)
    visitor = await run_in_threadpool(guard, request, user, bearer)
    request.state.admitted = _Admitted(user=user, visitor=visitor)


def _admitted(request: Request) -> _Admitted | None:
    found = getattr(request.state, "admitted", None)
    return found if isinstance(found, _Admitted) else None


def login_url(request: Request) -> str:
    """Where Airflow asks for a login and comes back from."""
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return f"{airflow_root(request)}/api/v2/auth/login?next={quote(wanted, safe='')}"


def desk_root(request: Request) -> str:
    """The path that the desk is mounted at, without a slash at its end."""
    return str(request.scope.get("root_path", "")).rstrip("/")


def airflow_root(request: Request) -> str:
    """The path of Airflow's own server, without a slash at its end."""
    return desk_root(request).rpartition("/")[0]


def signing_key() -> str:
    """What this Airflow's servers sign with, all with the same: ``[api] secret_key``."""
    return str(conf.get_mandatory_value("api", "secret_key"))


def _may_edit(user: Any) -> bool:
    """Whether this user may write here.

    Asks the auth manager itself: `requires_access_dag` would look the DAG's team up in Airflow's database for each of
    the two rights, also where there are no teams.

    Raises:
        DeskError: 403, this user may not even read.
    """
    manager = get_auth_manager()
    team = DagModel.get_team_name(DAG_ID) if conf.getboolean("core", "multi_team") else None
    dag = DagDetails(id=DAG_ID, team_name=team)
    if not manager.is_authorized_dag(method="GET", details=dag, user=user):
        raise DeskError(
            status=403,
            error="not_allowed",
            message=f"{user.get_name()} may not read the DAG {DAG_ID}, and so not the refund desk.",
            what_to_do=f"Ask an administrator of this Airflow for the right to read the DAG {DAG_ID}.",
        )
    if manager.is_authorized_dag(method="PUT", details=dag, user=user):
        return True
    keeps_views = any(kind.__name__ == _KEEPS_VIEWS for kind in type(manager).__mro__)
    return keeps_views and bool(manager.is_authorized_custom_view(method="PUT", resource_name=DESK_VIEW, user=user))


def _check_same_site(request: Request) -> None:
    if CSRF_HEADER.lower() not in request.headers or _is_foreign(request):
        raise DeskError(
            status=403,
            error="cross_site",
            message=f"A write with a browser's cookie needs the header {CSRF_HEADER} and a page of this server.",
            what_to_do=f"Send {CSRF_HEADER}: 1, or log in with a bearer token (docs/api.md).",
        )


def _is_foreign(request: Request) -> bool:
    """Whether the browser says that the write comes from another site's page."""
    said = request.headers.get("sec-fetch-site")
    if said is not None:
        return said != "same-origin"  # the browser's own comparison; proxies that change Host do not disturb it
    origin = request.headers.get("origin")
    own = {request.headers.get("host"), urlsplit(conf.get("api", "base_url", fallback="") or "").netloc}
    return origin is not None and urlsplit(origin).netloc not in own - {"", None}
