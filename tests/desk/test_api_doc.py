"""docs/api.md shows every call, and what it shows is what comes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.routing import APIRoute

from refund.desk.app import PREFIX, create_app
from refund.desk.pictures import _GONE as GONE
from refund.desk.problems import _TOLD as TOLD_BY_THE_FRAMEWORK
from refund.desk.problems import rejection_status
from refund.desk.review import _UNKNOWN as UNKNOWN
from refund.desk.uploads import MOST_IN_A_BATCH
from refund.desk.verdict import MAX_TOP_K
from refund.errors import ReasonCode
from refund.settings import Settings
from tests.conftest import REPOSITORY
from tests.desk.api_doc import PAGE, Call, Session, difference, documented, page_world, read_call, shortened
from tests.night.conftest import World
from tests.test_docs import section, table_rows

TEXT = PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def session(shared_world: World) -> Iterator[Session]:
    with page_world(shared_world) as (send, variables):
        yield Session(send, variables)


def test_every_command_of_the_page_prints_what_stands_there(session: Session) -> None:
    faults = []
    found = documented(TEXT)
    for step in found:
        printed = session.run(step.command)
        shown = "\n".join(step.lines).strip()
        if printed is None:
            assert shown == "", step.command
        elif fault := difference(shown, printed):
            faults.append(f"{step.command}\n  {fault}")
    assert faults == [], "write the page anew: python -m tests.desk.api_doc"
    assert len(found) > 25


def test_every_call_of_the_app_has_a_heading_and_a_command_and_none_is_invented() -> None:
    routes = [route for route in create_app().routes if isinstance(route, APIRoute)]
    wanted = {
        f"{method} {PREFIX}{route.path}"
        for route in routes
        for method in route.methods
        if route.path.startswith("/api/") and route.path != "/api/docs"
    }
    assert set(re.findall(r"^### `([A-Z]+ \S+)`$", TEXT, re.MULTILINE)) == wanted
    called = [read_call(step.command, str) for step in documented(TEXT) if step.command.startswith("curl ")]
    for heading in wanted:
        method, path = heading.removeprefix(f"{PREFIX}").split(" ", 1)
        pattern = re.sub(r"\\\{\w+\\\}", "[^/?]+", re.escape(path.replace(PREFIX, "$DESK", 1))) + r"(\?.*)?"
        assert any(call.method == method and re.fullmatch(pattern, call.url) for call in called), heading


def test_the_limits_of_the_page_are_those_that_are_set() -> None:
    limits = {row[0]: row[1] for row in table_rows(section(TEXT, "Limits and errors")) if len(row) == 2}
    settings = Settings()
    assert f"{settings.max_bytes // 2**20} MB" in limits["one photo"]
    assert f"{settings.min_side_px} to {settings.max_side_px:,} pixels" in limits["one photo"]
    assert limits["one batch"] == f"{MOST_IN_A_BATCH} photos"
    assert limits["`top_k`"].startswith(f"1 to {MAX_TOP_K}, ")
    assert limits["photos in a minute"].startswith(f"{settings.desk_requests_per_minute} for one person")
    assert limits["time for an upload to arrive"].startswith(f"{settings.desk_upload_timeout_s:.0f} s")
    assert limits["time to decode one photo"].startswith(f"{settings.desk_decode_timeout_s:.0f} s")


def test_the_page_lists_every_error_word_that_the_desk_answers_beside_its_status_and_no_other() -> None:
    listed = set()
    for status, _, words in (row for row in table_rows(section(TEXT, "Limits and errors")) if len(row) == 3):
        if status.isdigit():
            listed |= {(int(status), word) for word in re.findall(r"`([a-z_]+)`", words)}
    answered = {(status, word) for status, (word, _) in TOLD_BY_THE_FRAMEWORK.items()}
    answered |= {(404 if reason in GONE else rejection_status(reason), reason.value) for reason in ReasonCode}
    answered |= {(404 if word in UNKNOWN else 409, word) for word in words_of_conflicts()}
    answered |= set(words_of_the_code())
    assert sorted(answered - listed) == []
    assert sorted(listed - answered) == []


def words_of_the_code() -> Iterator[tuple[int, str]]:
    """Status and word of every error that the desk's code makes itself."""
    found = 0
    for path in sorted((REPOSITORY / "plugins/refund/desk").glob("*.py")):
        if path.name == "probe.py":  # of its errors only the message is told, as that of a part
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            given = {keyword.arg: literals(keyword.value) for keyword in node.keywords}
            words = [word for word in given.get("error", ()) if isinstance(word, str)]
            found += len(words)
            # the one helper that makes errors of a given word, in pictures.py, refuses
            yield from ((int(status), word) for status in given.get("status", [403]) for word in words)
    assert found > 40


def words_of_conflicts() -> set[str]:
    """What the store of reviews calls what stood in the way."""
    text = (REPOSITORY / "plugins/refund/store/review_claims.py").read_text(encoding="utf-8")
    return set(re.findall(r'word="([a-z_]+)"', text))


def literals(node: ast.expr) -> list[object]:
    """The values that an expression can have, as far as they stand there."""
    if isinstance(node, ast.IfExp):
        return [*literals(node.body), *literals(node.orelse)]
    return [node.value] if isinstance(node, ast.Constant) else []


# --- the replay itself ---------------------------------------------------------------------------------------------


def test_commands_are_read_as_a_shell_reads_them() -> None:
    sent: list[Call] = []

    def send(call: Call) -> tuple[int, str]:
        sent.append(call)
        return 418, '{"items": [{"id": 7}]}'

    session = Session(send, {"DESK": "http://d"})
    assert session.run("DESK=http://elsewhere") is None
    assert session.run('AUTH="Authorization: Bearer x"') is None
    assert session.run('ID=$(curl -s -H "$AUTH" $DESK/a | jq -r .items[0].id)') is None
    assert session.run("""BODY='{"id": '$ID'}'""") is None
    assert session.run("""curl -s -w '%{http_code}\\n' -H "$AUTH" --json "$BODY" "$DESK/b?x=1&y=2" | jq""") == (
        '{\n  "items": [\n    {\n      "id": 7\n    }\n  ]\n}\n418\n'
    )
    session.run("curl -s -F image=@cup.jpg -F top_k=3 $DESK/c | jq")
    assert sent == [
        Call(method="GET", url="http://d/a", headers={"Authorization": "Bearer x"}),
        Call(
            method="POST",
            url="http://d/b?x=1&y=2",
            headers={"Authorization": "Bearer x", "Content-Type": "application/json"},
            body='{"id": 7}',
            shows_status=True,
        ),
        Call(method="POST", url="http://d/c", form=[("top_k", "3")], files=[("image", "cup.jpg")]),
    ]


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ('{"a": 1, "b": "x"}', '{"b": "y", "a": 2.5}'),
        ('{"a": null, "b": 1}', '{"a": {"c": 1}, "b": null}'),
        ('{"a": [{"b": 1}, "…"]}', '{"a": [{"b": 2}, {"b": 3}]}'),
        ('{"a": ["x"], "b": []}', '{"a": ["y", "z"], "b": [1]}'),
        ('{"a": 1, "…": "…"}', '{"a": 2, "b": 3}'),
        ('{"details": {"x": 1}}', '{"details": {"y": 2}}'),
        ('{"a": 1}\n422', '{"a": 2}\n422'),
        ("a,b\n1,2\n…", "a,b\n9,9\n8,8"),
    ],
)
def test_other_values_pass(shown: str, printed: str) -> None:
    assert difference(shown, printed) is None


@pytest.mark.parametrize(
    ("shown", "printed", "fault"),
    [
        ('{"a": 1}', '{"a": "1"}', ".a is 1 on the page and '1' here"),
        ('{"a": 1}', '{"a": true}', ".a is 1 on the page and True here"),
        ('{"a": 1}', '{"a": 1, "b": 2}', " has [] on the page alone and ['b'] here alone"),
        ('{"a": 1, "…": "…"}', '{"b": 2}', " has ['a'] on the page alone and ['b'] here alone"),
        ('{"status": "success"}', '{"status": "error"}', ".status is 'success' on the page and 'error' here"),
        ('{"a": [{"b": 1}]}', '{"a": [{"c": 1}]}', ".a has ['b'] on the page alone and ['c'] here alone"),
        ('{"a": [1]}', '{"a": ["x"]}', ".a is 1 on the page and 'x' here"),
        ('{"a": [{}]}', '{"a": [{}, {}]}', ".a has 1 entries on the page and 2 here"),
        ('{"a": 1}\n422', '{"a": 2}\n415', "the page shows status '422', here comes '415': {\"a\": 2}"),
        ("a,b\n…", "a,c\n…", "the page shows 'a,b', here comes 'a,c'"),
    ],
)
def test_other_shapes_do_not(shown: str, printed: str, fault: str) -> None:
    assert difference(shown, printed) == fault


def test_long_answers_are_shortened_so_that_they_still_compare() -> None:
    answer: Any = {"items": [{"a": 1}, {"a": 2}], "figures": dict.fromkeys("abcdefgh", 1), "name": "x" * 100}
    short = shortened(answer)
    assert short["items"] == [{"a": 1}, "…"]
    assert list(short["figures"]) == [*"abcdef", "…"]
    assert len(short["name"]) < 100
