"""The tab that Airflow shows on every DAG: on ours it leads to the last night, on others it says where to look."""

from __future__ import annotations

import html
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from refund.desk.frame import OUR_DAGS
from tests.desk.conftest import DeskWorld, desk_in
from tests.night.conftest import World

HTML = {"accept": "text/html"}


@pytest.fixture(scope="module")
def desk(shared_world: World) -> Iterator[DeskWorld]:
    with desk_in(shared_world) as made:
        yield made


@pytest.mark.parametrize("dag_id", OUR_DAGS)
def test_the_tab_of_a_dag_of_ours_leads_to_the_last_night(desk: DeskWorld, dag_id: str) -> None:
    answer = desk.sign_in("ana").get(f"/dag/{dag_id}", headers=HTML, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/refund/tonight")


def test_the_tab_of_another_dag_says_that_the_desk_knows_nothing_of_it_and_where_to_look(desk: DeskWorld) -> None:
    answer = desk.sign_in("ana", may_write=False).get("/dag/example_bash", headers=HTML)
    assert answer.status_code == 200
    assert "<h1>Not a DAG of the refund night</h1>" in answer.text
    assert (
        'It knows nothing of <code class="hostile">example_bash</code>: Airflow shows this tab on every DAG.'
        in answer.text
    )
    assert '/dags/refund_nightly" target="_top">To refund_nightly</a>' in answer.text
    assert '<a href="/refund/tonight">Last night</a>' in answer.text


@pytest.mark.parametrize("dag_id", ["<script>alert(1)</script>", "\"><img src=x onerror='alert(1)'>", "x {{ 7*7 }}"])
def test_the_id_of_a_dag_is_shown_and_never_run(desk: DeskWorld, dag_id: str) -> None:
    answer = desk.sign_in("ana").get(f"/dag/{quote(dag_id)}", headers=HTML)
    shown = html.escape(dag_id).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")
    # a slash in it makes it another address: that one is unknown, and says so without repeating it
    assert (answer.status_code, f'<code class="hostile">{shown}</code>' in answer.text) in [(200, True), (404, False)]
    assert dag_id.startswith("x") or dag_id not in answer.text
    assert "49" not in answer.text.partition("<main")[2]


def test_what_would_turn_text_around_is_named(desk: DeskWorld) -> None:
    answer = desk.sign_in("ana").get("/dag/" + quote("a\u202ebc"), headers=HTML)
    assert answer.status_code == 200
    assert "\u202e" not in answer.text
    assert '<code class="hostile">a\\u202ebc</code>' in answer.text
