"""What the guard decides by itself; with real logins it is asked in tests/desk/test_routes_closed.py."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import HTTPException
from fastapi.testclient import TestClient
from starlette.requests import Request

from deploy.access import ADDS
from refund.desk.pace import Pace
from refund.desk.problems import DeskError
from tests.desk.conftest import DeskWorld, desk_in
from tests.desk.serving import serve, slow_post
from tests.night.conftest import World


class Manager:
    """An auth manager with these rights; its kind decides whether it is asked for views."""

    def __init__(self, *rights: tuple[str, str]) -> None:
        self.rights = set(rights)

    def is_authorized_dag(self, *, method: str, details: Any, user: Any) -> bool:
        return (method, details.id) in self.rights

    def is_authorized_custom_view(self, *, method: str, resource_name: str, user: Any) -> bool:
        return (method, resource_name) in self.rights


class FabAuthManager(Manager):
    """One that keeps rights of views."""


READ, EDIT = ("GET", "refund_nightly"), ("PUT", "refund_nightly")
VIEW = ("PUT", "Refund Desk")
ANA = SimpleNamespace(get_name=lambda: "ana")


def ask(method: str = "GET", **headers: str) -> Request:
    raw = [(name.replace("_", "-").lower().encode(), value.encode()) for name, value in headers.items()]
    app = SimpleNamespace(state=SimpleNamespace(pace=Pace()))
    return Request({"type": "http", "method": method, "path": "/refund/api/x", "headers": raw, "state": {}, "app": app})


def guarded(monkeypatch: pytest.MonkeyPatch, manager: Manager, request: Request, *, bearer: Any = None) -> Any:
    from refund.desk import auth

    monkeypatch.setattr(auth, "get_auth_manager", lambda: manager)
    return auth.guard(request, ANA, bearer)


@pytest.mark.parametrize(
    ("manager", "may_write"),
    [
        (Manager(READ), False),
        (Manager(READ, EDIT), True),
        (Manager(READ, VIEW), False),  # the simple auth manager, for one, lets everybody into every view
        (FabAuthManager(READ, VIEW), True),
        (FabAuthManager(READ), False),
    ],
)
def test_writing_takes_the_right_to_edit_the_dag_or_the_view(
    monkeypatch: pytest.MonkeyPatch, manager: Manager, may_write: bool
) -> None:
    visitor = guarded(monkeypatch, manager, ask())
    assert (visitor.name, visitor.may_write) == ("ana", may_write)
    if may_write:
        assert guarded(monkeypatch, manager, ask("POST"), bearer=object()).may_write
    else:
        with pytest.raises(DeskError, match=r"^ana may read the refund desk, but not change anything\.$") as refused:
            guarded(monkeypatch, manager, ask("POST"), bearer=object())
        assert (refused.value.status, refused.value.error) == (403, "not_allowed")
        assert "“can edit on Refund Desk”" in refused.value.what_to_do


def test_who_may_not_read_the_dag_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        DeskError, match="ana may not read the DAG refund_nightly, and so not the refund desk"
    ) as refused:
        guarded(monkeypatch, FabAuthManager(EDIT, VIEW), ask())
    assert refused.value.status == 403


@pytest.mark.parametrize(
    ("headers", "is_let_in"),
    [
        ({"X_Refund_Desk": "1"}, True),
        ({"X_Refund_Desk": "1", "Host": "desk.example", "Origin": "https://desk.example"}, True),
        ({"X_Refund_Desk": "1", "Host": "inside:8080", "Origin": "https://public.example"}, True),  # [api] base_url
        ({"X_Refund_Desk": "1", "Host": "desk.example", "Origin": "https://desk.example.evil"}, False),
        ({"X_Refund_Desk": "1", "Host": "desk.example", "Origin": "null"}, False),
        ({"X_Refund_Desk": "1", "Sec_Fetch_Site": "same-origin"}, True),
        ({"X_Refund_Desk": "1", "Sec_Fetch_Site": "none"}, False),
        ({"X_Refund_Desk": "1", "Sec_Fetch_Site": "cross-site", "Host": "a", "Origin": "https://a"}, False),
        ({"Host": "desk.example", "Origin": "https://desk.example"}, False),
    ],
    ids=str,
)
def test_a_write_with_a_cookie_comes_from_a_page_of_this_server(
    monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], is_let_in: bool
) -> None:
    from refund.desk import auth

    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://public.example/airflow")
    manager = Manager(READ, EDIT)
    assert guarded(monkeypatch, manager, ask("POST", **headers), bearer=object()).may_write  # a token needs none of it
    if is_let_in:
        assert guarded(monkeypatch, manager, ask("POST", **headers)).may_write
    else:
        message = f"A write with a browser's cookie needs the header {auth.CSRF_HEADER} and a page of this server."
        with pytest.raises(DeskError) as refused:
            guarded(monkeypatch, manager, ask("POST", **headers))
        assert (refused.value.status, refused.value.error, refused.value.message) == (403, "cross_site", message)


def test_the_login_leads_back_to_the_page_that_was_asked_for() -> None:
    from refund.desk.auth import login_url

    request = Request(
        {
            "type": "http", "method": "GET", "path": "/airflow/refund/history", "query_string": b"text=a%26b",
            "root_path": "/airflow/refund", "headers": [], "server": ("host", 80), "scheme": "http",
        }
    )  # fmt: skip
    assert login_url(request) == ("/airflow/api/v2/auth/login?next=%2Fairflow%2Frefund%2Fhistory%3Ftext%3Da%2526b")


def test_the_role_of_clerks_in_production_has_the_right_that_the_desk_asks_for() -> None:
    from refund.desk.auth import DESK_VIEW

    assert ADDS["Clerk"] == (("can_edit", DESK_VIEW),)


SIGNED_IN = {"Authorization": "Bearer x", "Content-Type": "application/json"}


@pytest.fixture(scope="module")
def desk(shared_world: World) -> Iterator[DeskWorld]:
    with desk_in(shared_world) as made:
        yield made


@pytest.fixture
def client(desk: DeskWorld, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A desk with its own guard: who has a bearer token is Ana, and she may read."""
    from refund.desk import auth

    monkeypatch.setattr(auth, "get_auth_manager", lambda: Manager(READ))
    monkeypatch.setattr(auth, "get_user", user_of_token)
    with TestClient(desk.app, root_path="/refund", raise_server_exceptions=False) as made:
        yield made


async def user_of_token(request: Request, _: None, bearer: Any) -> Any:
    """Stands for Airflow's, of which the live stack's tests are."""
    if bearer is None:
        raise HTTPException(401, "Not authenticated")
    return ANA


@pytest.mark.parametrize("body", [b"{", b" " * 300_000, b"[]"], ids=["no json", "too much", "no object"])
def test_whatever_the_body_the_login_is_asked_for_first_and_then_the_right(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    from refund.desk import auth

    for path in ("/api/review/claims", "/api/alerts/1/acknowledge", "/api/classify", "/api/nothing"):
        answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["error"]) == (401, "not_signed_in"), path
        assert answer.headers["www-authenticate"] == "Bearer"
        answer = client.post(path, content=body, headers=SIGNED_IN)
        assert (answer.status_code, answer.json()["error"]) == (403, "not_allowed"), path
    monkeypatch.setattr(auth, "get_auth_manager", lambda: Manager(READ, EDIT))
    assert client.post("/api/review/claims", content=body, headers=SIGNED_IN).status_code in (400, 413, 422)


def test_a_request_counts_once_and_who_asks_too_often_waits(
    client: TestClient, desk: DeskWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(desk.app.state._state, "pace", Pace(2))
    for _ in range(3):  # what a page is made of does not count
        assert client.get("/static/desk.css", headers=SIGNED_IN).status_code == 200
    assert client.post("/api/nothing", headers=SIGNED_IN).status_code == 403
    assert client.get("/api/nothing", headers=SIGNED_IN).status_code == 404
    answer = client.get("/api/nothing", headers=SIGNED_IN)
    assert (answer.status_code, answer.json()["error"]) == (429, "too_many_requests")
    assert answer.json()["message"] == "One person may ask 2 times a minute, and you did."
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert client.get("/api/nothing").status_code == 401


@pytest.mark.parametrize("sent", [b"", b'{"queue": '], ids=["nothing", "a part"])
def test_who_is_not_signed_in_is_told_so_before_the_body_comes(
    client: TestClient, desk: DeskWorld, sent: bytes
) -> None:
    with serve(desk.app) as url, slow_post(url, sent) as answer:
        assert answer.status == 401
