"""Runs and reports over REST."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.desk.conftest import DeskWorld, desk_in
from tests.night.conftest import DAY, World, fill


@pytest.fixture(scope="module")
def desk(shared_world: World) -> Iterator[DeskWorld]:
    """A night that was run twice."""
    fill(shared_world)
    shared_world.night("run-1")
    shared_world.night("run-2")
    with desk_in(shared_world) as made:
        yield made


def ask(desk: DeskWorld, path: str, status: int = 200, **params: Any) -> Any:
    answer = desk.sign_in(may_write=False).get(f"/api{path}", params=params)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_runs_come_newest_first_without_what_is_heavy(desk: DeskWorld) -> None:
    first = ask(desk, "/runs", page_size=1)
    assert (first["status"], first["page"], first["page_size"], first["has_more"]) == ("success", 1, 1, True)
    second = ask(desk, "/runs", page_size=1, page=2)
    assert [first["items"][0]["run_id"], second["items"][0]["run_id"]] == ["run-2", "run-1"]
    assert not second["has_more"]
    run = second["items"][0]
    assert (run["photos"], run["classified"], run["state"], run["model"]) == (6, 6, "published", "tiny@1")
    assert not {"params", "notes", "stage_metrics", "stages"} & set(run)


def test_a_night_has_all_its_runs_with_reconciliation_and_stages(desk: DeskWorld) -> None:
    night = ask(desk, f"/runs/{DAY}")
    assert [run["run_id"] for run in night["runs"]] == ["run-2", "run-1"]
    run = night["runs"][1]
    assert run["reconciliation"] == {
        "manifest": 6,
        "packed": 6,
        "predicted": 6,
        "outcomes": 6,
        "classified": 6,
        "rejected": 0,
        "unchanged": 0,
        "overtaken": 0,
        "decisions": 6,
        "adds_up": True,
    }
    names = [stage["stage"] for stage in run["stages"]]
    assert names == ["health_check", "fetch", "validate", "classify", "persist", "generate_report"]
    assert run["stages"][2]["photos"] == 6
    assert run["params"]["top_k"] == 5


def test_a_run_that_began_and_is_not_published_has_no_reconciliation(world: World) -> None:
    world.start("run-1")
    with desk_in(world) as desk:
        (run,) = ask(desk, f"/runs/{DAY}")["runs"]
        assert (run["state"], run["photos"], run["reconciliation"]) == ("running", None, None)


def test_a_report_has_every_figure_and_leads_to_page_and_table(desk: DeskWorld) -> None:
    report = ask(desk, f"/reports/{DAY}")
    assert (report["run_id"], report["page"], report["table"]) == (
        "run-2",
        "/reports/2026-11-21/page",
        "/reports/2026-11-21/table.csv",
    )
    assert report["figures"]["night_photos"] == 6
    client = desk.sign_in()
    assert client.get(report["page"]).headers["content-type"].startswith("text/html")
    assert client.get(report["table"]).headers["content-type"].startswith("text/csv")


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("/runs/2026-01-01", "no_run", "No run of the night of 2026-01-01 has begun."),
        ("/reports/2026-01-01", "no_report", "There is no report of the night of 2026-01-01."),
    ],
)
def test_a_night_that_is_not_there_says_what_to_do(desk: DeskWorld, path: str, error: str, message: str) -> None:
    answer = ask(desk, path, status=404)
    assert (answer["error"], answer["message"]) == (error, message)
    assert "GET api/runs" in answer["what_to_do"]


@pytest.mark.parametrize(
    "text", ["yesterday", "20261121", "2026-02-30", "2026-11-21T00:00", "1970-01-01", "%00", "9" * 99]
)
@pytest.mark.parametrize("resource", ["runs", "reports"])
def test_a_date_that_is_none_is_refused(desk: DeskWorld, resource: str, text: str) -> None:
    answer = ask(desk, f"/{resource}/{text}", status=422)
    assert answer["message"].startswith("run_date: run date must ")
    assert answer["what_to_do"] == "Give a date as YYYY-MM-DD, for example 2026-11-21."


def test_pages_end_somewhere(desk: DeskWorld) -> None:
    assert ask(desk, "/runs", status=422, page=10_000, page_size=2)["error"] == "too_deep"
    assert ask(desk, "/runs", page=5_000, page_size=2)["items"] == []
