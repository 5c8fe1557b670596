"""Text that means harm, in every parameter of every page and call that reads: it is text, or it is refused.

The parameters are those that the app's routes declare, so one that is added later is tried as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from refund.desk import history_page
from tests.desk.conftest import DeskWorld, desk_in
from tests.desk.test_alerts_api import raised
from tests.night.conftest import World, fill
from tests.night.factories import jpeg

pytestmark = pytest.mark.slow  # many, and the tests of each part have their own hostile texts

MARKUP = "<script>alert(1)</script>"
TEXTS = ("'; DROP TABLE refund.trial; --", MARKUP, "\x00", "x" * 5000, "../../etc/passwd", "%00")
# as they stand in an address: half of a pair of surrogates, and what is no UTF-8 at all
HOSTILE = (
    *(quote(text, safe="") for text in TEXTS),
    "%ED%A0%80",
    "%FF%FE",
    "a%0d%0aX-Forged:%201",
)
VALID = {
    "name": "desk.css",
    "dag_id": "refund_nightly",
    "run_date": "2026-11-21",
    "token": "x",
    "photo_date": "2026-11-21",
    "photo_id": "00000000-0000-4000-8000-000000000000",
    "path": "nothing",
}
# What pages read beside what their routes declare.
OF_PAGES = {
    "/history": [*history_page._CHOICES, *history_page._MOST_CHARACTERS, "page"],
    "/review": ["queue"],
}
IN_BOTH = ("text", "model", "category")  # sought in nights and trials, each by SQL of its own
COUNTED = "SELECT (SELECT count(*) FROM refund.trial), (SELECT count(*) FROM reporting.photos)"


def declared() -> list[tuple[str, str, bool]]:
    """Path, parameter, and whether the parameter stands in the path, of all that can be read."""
    from fastapi.dependencies.utils import get_flat_dependant

    from refund.desk.app import create_app

    found = []
    for route in create_app().routes:
        if not route.methods or "GET" in route.methods:  # type: ignore[attr-defined]
            flat = get_flat_dependant(route.dependant)  # type: ignore[attr-defined]
            found += [(route.path, each.alias, True) for each in flat.path_params]  # type: ignore[attr-defined]
            found += [(route.path, each.alias, False) for each in flat.query_params]  # type: ignore[attr-defined]
    return found + [(path, name, False) for path, names in OF_PAGES.items() for name in names]


def addresses(path: str, parameter: str, in_path: bool) -> Iterator[str]:
    """Each hostile text in that place, all else being valid."""
    filled = path.replace(":path}", "}")
    for name, value in VALID.items():
        if not (in_path and name == parameter):
            filled = filled.replace(f"{{{name}}}", value)
    if in_path:
        yield from (filled.replace(f"{{{parameter}}}", text) for text in (*HOSTILE, "../../etc/passwd"))
        return
    for text in HOSTILE:
        if parameter != "tried_by":
            yield f"{filled}?{parameter}={text}"
        if "history" in path and parameter in (*IN_BOTH, "tried_by"):
            yield f"{filled}?source=trials&{parameter}={text}"


@pytest.fixture(scope="module")
def desk(shared_world: World) -> Iterator[DeskWorld]:
    fill(shared_world, 2)
    shared_world.night("run-1")
    with desk_in(shared_world, desk_requests_per_minute=10_000) as made:
        before = shared_world.rows(COUNTED)
        yield made
        assert shared_world.rows(COUNTED) == before


@pytest.fixture(scope="module")
def client(desk: DeskWorld) -> Any:
    return desk.sign_in("ana")


def check(answer: Any, address: str) -> None:
    shown = (address[:200], answer.status_code, answer.text[:400])
    assert answer.status_code < 500, shown
    assert "x-forged" not in answer.headers, shown
    kind = answer.headers.get("content-type", "")
    if address.startswith("/api/") and not (kind.startswith("text/csv") and answer.status_code == 200):
        assert kind == "application/json", shown
        assert answer.json()["status"] == ("success" if answer.status_code < 400 else "error"), shown
    if kind.startswith("text/html"):
        assert "<script>alert(1)" not in answer.text, shown
        assert "root:x:0" not in answer.text, shown


@pytest.mark.parametrize(("path", "parameter", "in_path"), declared())
def test_whatever_an_address_says_is_text_or_refused(client: Any, path: str, parameter: str, in_path: bool) -> None:
    for address in addresses(path, parameter, in_path):
        page = {} if path.startswith("/api/") else {"Accept": "text/html"}
        check(client.get(address, headers=page, follow_redirects=False), address)


def test_no_module_reads_an_address_but_those_named_here() -> None:
    folder = Path(history_page.__file__).parent
    found = {path.stem for path in folder.glob("*.py") if "query_params" in path.read_text()}
    assert found == {"history_page", "review_page"}, "name what it reads in OF_PAGES"


@pytest.mark.parametrize("text", [*TEXTS, "\ud800"], ids=ascii)
def test_a_note_is_text(desk: DeskWorld, client: Any, text: str) -> None:
    number = raised(desk, rule=f"failed_night:{ascii(text)[:40]}")
    address = f"/api/alerts/{number}/acknowledge"
    headers = {"Content-Type": "application/json"}
    answer = client.post(address, content=json.dumps({"note": text}), headers=headers)
    check(answer, address)
    assert answer.status_code == (422 if len(text) > 500 or text == "\ud800" else 200)
    check(client.get("/tonight", headers={"Accept": "text/html"}), "/tonight")


@pytest.mark.parametrize("field", ["top_k", "keep"])
def test_fields_of_an_upload_are_what_they_may_be(client: Any, field: str) -> None:
    for address, name in (("/api/classify", "image"), ("/api/classify/batch", "images")):
        photo = (name, ("cup.jpg", jpeg(1), "image/jpeg"))
        for text in HOSTILE:
            answer = client.post(f"{address}?{field}={text}", files=[photo])
            check(answer, address)
            assert answer.status_code == 422
        for sent in (*(text.encode() for text in TEXTS), b"\xed\xa0\x80", b"\xff\xfe"):
            answer = client.post(address, files=[(field, (None, sent)), photo])
            check(answer, address)
            assert (answer.status_code, answer.json()["error"]) == (
                (413, "too_large") if len(sent) > 1024 else (422, "invalid")
            )
