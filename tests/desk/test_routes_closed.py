"""No route of the desk answers who may not ask: every route of the app, asked of a live Airflow by everybody."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from refund.local import credentials
from refund.local.paths import StackPaths
from tests.local.live import LiveStack

PEOPLE = {"viewer": "analyst", "user": "clerk", "operator": "oncall", "admin": "admin"}  # role: login of the stack
WRITERS = ("user", "operator", "admin")
READING = ("GET", "HEAD", "OPTIONS")
PAGE = {"Accept": "text/html,application/xhtml+xml"}
OURS = {"X-Refund-Desk": "1"}
UNREADABLE = {"no json": b"{", "too much": b" " * 300_000}
UNKNOWN = [("GET", "/nothing"), ("GET", "/api/nothing"), ("POST", "/api/nothing"), ("PROPFIND", "/api/health")]


def routes() -> list[Any]:
    from refund.desk.app import create_app

    return list(create_app().routes)


def calls() -> list[tuple[str, str]]:
    """Every method and path of the app, its parameters filled in, and some that it has not."""
    found = []
    for route in routes():
        path = route.path
        for name in route.param_convertors:
            path = path.replace(f"{{{name}}}", "x").replace(f"{{{name}:path}}", "x")
        found += [(method, path) for method in sorted(route.methods)]
    return sorted({*found, *UNKNOWN})


def depends_on(dependant: Any, wanted: Any) -> bool:
    return dependant.call is wanted or any(depends_on(each, wanted) for each in dependant.dependencies)


def test_every_route_has_the_guard_among_its_dependencies_and_there_is_nothing_but_routes() -> None:
    from fastapi.routing import APIRoute

    from refund.desk.auth import guard

    found = routes()
    assert len(found) > 3
    assert [route for route in found if type(route) is not APIRoute] == []  # no mount, no WebSocket
    assert [route.path for route in found if not depends_on(route.dependant, guard)] == []
    assert found[-1].path == "/{path:path}"
    assert found[-1].methods == set()


@pytest.fixture(scope="module")
def tokens(live_stack: LiveStack) -> dict[str, str]:
    """A token of each role."""
    passwords = credentials.load(StackPaths(home=live_stack.home).secrets_file).airflow_passwords
    return {role: live_stack.token_answer(login, passwords[login])[1]["access_token"] for role, login in PEOPLE.items()}


@pytest.fixture(scope="module")
def desk(live_stack: LiveStack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{live_stack.ports.airflow}/refund", timeout=60) as client:
        yield client


def ask(
    desk: httpx.Client, method: str, path: str, *, cookie: str | None = None, sent: bytes | str = "[]", **headers: str
) -> httpx.Response:
    """One request; ``[]`` is what no route takes, so that a write that is let in does nothing."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if cookie:
        named["Cookie"] = f"_token={cookie}"
    body = None if method in READING else sent
    if body and "Content-Type" not in named:
        named["Content-Type"] = "application/json"
    return desk.request(method, path, content=body, headers=named)


def problem(answer: httpx.Response) -> str:
    """The word of an error in our form."""
    told = answer.json()
    assert {"status", "error", "message", "what_to_do", "request_id"} <= set(told), told
    assert told["request_id"] == answer.headers["x-request-id"]
    return str(told["error"])


def turned_away(answer: httpx.Response) -> bool:
    """Whether it was the guard that refused; a picture's route has a 403 of its own, for an address that is no key."""
    return answer.status_code == 401 or (
        answer.status_code == 403 and problem(answer) in {"not_signed_in", "not_allowed", "cross_site"}
    )


@pytest.mark.live
def test_nobody_gets_anything_without_a_login(desk: httpx.Client) -> None:
    for method, path in calls():
        answer = ask(desk, method, path)
        assert answer.status_code == 401, (method, path)
        assert answer.headers["www-authenticate"] == "Bearer"
        if method != "HEAD":
            assert problem(answer) == "not_signed_in"
        page = ask(desk, method, path, **PAGE)
        if path.startswith("/api/"):
            assert page.status_code == 401, (method, path)
        else:
            assert page.status_code == 303, (method, path)
            assert page.headers["location"].startswith("/api/v2/auth/login?next=%2Frefund%2F")


@pytest.mark.live
def test_a_viewer_reads_and_writes_nothing(desk: httpx.Client, tokens: dict[str, str]) -> None:
    for method, path in calls():
        for answer in (
            ask(desk, method, path, Authorization=f"Bearer {tokens['viewer']}"),
            ask(desk, method, path, cookie=tokens["viewer"], **OURS),
        ):
            if method in READING:
                assert not turned_away(answer), (method, path, answer.text)
            else:
                assert (answer.status_code, problem(answer)) == (403, "not_allowed"), (method, path)


@pytest.mark.live
@pytest.mark.parametrize("sent", UNREADABLE.values(), ids=list(UNREADABLE))
def test_a_body_that_cannot_be_read_is_no_way_past_the_guard(
    desk: httpx.Client, tokens: dict[str, str], sent: bytes
) -> None:
    for method, path in calls():
        if method in READING:
            continue
        answer = ask(desk, method, path, sent=sent)
        assert (answer.status_code, problem(answer)) == (401, "not_signed_in"), (method, path)
        answer = ask(desk, method, path, sent=sent, Authorization=f"Bearer {tokens['viewer']}")
        assert (answer.status_code, problem(answer)) == (403, "not_allowed"), (method, path)
        answer = ask(desk, method, path, sent=sent, cookie=tokens["admin"])
        assert (answer.status_code, problem(answer)) == (403, "cross_site"), (method, path)


@pytest.mark.live
@pytest.mark.parametrize("role", WRITERS)
def test_who_may_edit_the_dag_is_let_in_everywhere(desk: httpx.Client, tokens: dict[str, str], role: str) -> None:
    bearer = {"Authorization": f"Bearer {tokens[role]}"}
    try:
        for method, path in calls():
            for answer in (ask(desk, method, path, **bearer), ask(desk, method, path, cookie=tokens[role], **OURS)):
                assert not turned_away(answer), (method, path, answer.text)
    finally:
        desk.post("/api/review/release", headers=bearer, json={})  # what the walk may have claimed


@pytest.mark.live
def test_a_token_that_is_expired_altered_or_garbage_is_no_login(
    live_stack: LiveStack, desk: httpx.Client, tokens: dict[str, str]
) -> None:
    import jwt

    secret = credentials.load(StackPaths(home=live_stack.home).secrets_file).airflow_jwt_secret
    header, payload, signature = tokens["admin"].split(".")
    claims = jwt.decode(tokens["admin"], options={"verify_signature": False})
    signed = {"algorithm": jwt.get_unverified_header(tokens["admin"])["alg"]}
    past = claims | {"exp": int(time.time()) - 60}
    flipped = signature[:8] + ("A" if signature[8] != "A" else "B") + signature[9:]
    bad = {
        "expired": jwt.encode(past, secret, **signed),
        "of another server": jwt.encode(claims, secret + "x", **signed),
        "another signature": f"{header}.{payload}.{flipped}",
        "another's payload": f"{header}.{tokens['viewer'].split('.')[1]}.{signature}",
        "unsigned": jwt.encode(claims, "", algorithm="none"),
        "garbage": "garbage",
    }
    for what, token in bad.items():
        for path in ("/api/nothing", "/tonight", "/static/desk.css"):
            for answer in (
                ask(desk, "GET", path, Authorization=f"Bearer {token}"),
                ask(desk, "GET", path, cookie=token),
                ask(desk, "POST", path, Authorization=f"Bearer {token}", cookie=tokens["admin"]),  # the bearer counts
            ):
                assert (answer.status_code, problem(answer)) == (401, "not_signed_in"), (what, path)
        page = ask(desk, "GET", "/tonight", cookie=token, **PAGE)
        assert page.status_code == 303
        assert "_token=" in page.headers["set-cookie"]  # Airflow takes the bad cookie away
    assert ask(desk, "GET", "/api/nothing", Authorization=f"Bearer {tokens['admin']}").status_code == 404


@pytest.mark.live
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        (OURS, 404),  # let in: there is no such address
        (OURS | {"Sec-Fetch-Site": "same-origin", "Origin": "https://proxy.example"}, 404),
        (OURS | {"Sec-Fetch-Site": "cross-site"}, 403),
        (OURS | {"Sec-Fetch-Site": "same-site"}, 403),
        (OURS | {"Origin": "https://evil.example"}, 403),
        (OURS | {"Origin": "null"}, 403),
        ({"Content-Type": "text/plain"}, 403),  # what a form of another site can send
        ({"Content-Type": "multipart/form-data; boundary=x"}, 403),
    ],
    ids=str,
)
def test_a_cookie_writes_only_from_a_page_of_this_server(
    desk: httpx.Client, tokens: dict[str, str], headers: dict[str, str], status: int
) -> None:
    answer = ask(desk, "POST", "/api/nothing", cookie=tokens["admin"], **headers)
    assert (answer.status_code, problem(answer)) == (status, {403: "cross_site", 404: "not_found"}[status])
    bearer = ask(desk, "POST", "/api/nothing", Authorization=f"Bearer {tokens['admin']}", **headers)
    assert bearer.status_code == 404


@pytest.mark.live
def test_a_wrong_method_is_told_to_who_may_ask_and_a_slash_too_many_put_right(
    desk: httpx.Client, tokens: dict[str, str]
) -> None:
    bearer = {"Authorization": f"Bearer {tokens['admin']}"}
    answer = ask(desk, "DELETE", "/static/desk.css", **bearer)
    assert (answer.status_code, problem(answer), answer.headers["allow"]) == (405, "method_not_allowed", "GET")
    assert ask(desk, "HEAD", "/static/desk.css", **bearer).status_code == 405
    slash = ask(desk, "GET", "/static/desk.css/?a=%20b", **bearer)
    assert (slash.status_code, slash.headers["location"]) == (307, "/refund/static/desk.css?a=%20b")
    assert ask(desk, "GET", f"{desk.base_url}/evil.example/", **bearer).status_code == 404  # two slashes: no host
