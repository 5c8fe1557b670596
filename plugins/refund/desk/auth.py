"""Who is asking and whether they may: the one file of the desk that knows Airflow's logins.

`guard` is a dependency of the whole app, so a route that somebody adds later is closed before they think of it: without
a login nobody gets anything, and what is not a GET takes the right to edit the DAG `DAG_ID`. A browser's cookie is sent
whoever made the page that sends it; so with a cookie alone a write also has to carry a header that other sites cannot
set without being asked first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from urllib.parse import quote, urlsplit

from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from airflow.configuration import conf
from fastapi import Depends, HTTPException, Request

from refund.desk.problems import DeskError

DAG_ID = "refund_nightly"
READING = frozenset({"GET", "HEAD", "OPTIONS"})
CSRF_HEADER = "X-Refund-Desk"  # any value
_READ = requires_access_dag("GET", param_dag_id=DAG_ID)
_WRITE = requires_access_dag("PUT", param_dag_id=DAG_ID)


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Who is asking."""

    name: str
    may_write: bool  # review, acknowledge, try photos


def guard(request: Request, user: GetUserDep) -> Visitor:
    """Let through whoever may; every route of the desk depends on it, see `refund.desk.app.create_app`.

    Raises:
        HTTPException: 401 without a valid login, 403 without the right.
        DeskError: 403 for a write with a cookie that another site may have sent.
    """
    _READ(request, user)
    may_write = True
    try:
        _WRITE(request, user)
    except HTTPException:
        may_write = False
        if request.method not in READING:
            raise
    if request.method not in READING and not _has_bearer(request):
        _check_same_site(request)
    return Visitor(name=user.get_name(), may_write=may_write)


Asking = Annotated[Visitor, Depends(guard)]


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


def _has_bearer(request: Request) -> bool:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and bool(token.strip())


def _check_same_site(request: Request) -> None:
    origin = request.headers.get("origin")
    foreign = request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        foreign = True
    if foreign or CSRF_HEADER.lower() not in request.headers:
        raise DeskError(
            status=403,
            error="cross_site",
            message=f"A write with a browser's cookie needs the header {CSRF_HEADER} and a page of this server.",
            what_to_do=f"Send {CSRF_HEADER}: 1, or log in with a bearer token (docs/api.md).",
        )
