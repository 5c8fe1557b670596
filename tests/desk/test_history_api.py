"""The history over REST: pages, filters, refusals, the table and the counts."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

import pytest

from refund.store import history as rows
from refund.store.database import Database
from tests.desk.conftest import DeskWorld, desk_in
from tests.night.conftest import DAY, World, fill
from tests.night.factories import jpeg

FORMULA = '=HYPERLINK("evil")'


@pytest.fixture(scope="module")
def desk(shared_world: World) -> Iterator[DeskWorld]:
    """Six photos of a night, two that it rejected, one whose refund is a formula, and a trial."""
    fill(shared_world)
    shared_world.put("R-9/broken.jpg", jpeg(9)[:900])
    shared_world.put("R-9/note.jpg", b"no picture")
    shared_world.put(f"{FORMULA}/9.jpg", jpeg(9))
    shared_world.night("run-1")
    with Database(shared_world.roles.app).connect() as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO refund.trial (at, tried_by, request_id, filename, size_bytes, outcome, reason) "
            "VALUES ('2026-11-21 12:00Z', 'ana', 'q', %s, 9, 'rejected', 'corrupt')",
            ("\t=1+1.jpg",),
        )
    with desk_in(shared_world) as made:
        yield made


def ask(desk: DeskWorld, path: str = "", status: int = 200, **params: Any) -> Any:
    given = {"date_from": str(DAY), "date_to": str(DAY), **params}
    answer = desk.sign_in(may_write=False).get(f"/api/history{path}", params=given)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_a_page_repeats_what_it_shows_and_says_whether_there_is_more(desk: DeskWorld) -> None:
    first = ask(desk, page_size=5)
    assert {name: value for name, value in first.items() if name != "items"} == {
        "status": "success",
        "source": "nights",
        "date_from": str(DAY),
        "date_to": str(DAY),
        "page": 1,
        "page_size": 5,
        "has_more": True,
    }
    second = ask(desk, page_size=5, page=2)
    assert (len(first["items"]), len(second["items"]), second["has_more"]) == (5, 4, False)
    keys = [item["key"] for item in first["items"] + second["items"]]
    assert keys == sorted(keys)


def test_a_photo_is_shown_with_what_stands_of_it(desk: DeskWorld) -> None:
    (item,) = ask(desk, text="broken")["items"]
    assert tuple(item) == rows.NIGHT_COLUMNS
    assert (item["outcome"], item["rejection_reason"], item["refund_id"]) == ("rejected", "truncated", "R-9")
    assert (item["final_category"], item["decision"], item["review_reasons"]) == (None, None, None)


def test_without_dates_the_last_thirty_days_are_shown(desk: DeskWorld) -> None:
    found = desk.sign_in().get("/api/history").json()
    assert found["date_to"] == desk.services.now().date().isoformat()
    last, first = (rows.date.fromisoformat(found[name]) for name in ("date_to", "date_from"))
    assert (last - first).days == 29


def test_an_empty_value_counts_as_not_given(desk: DeskWorld) -> None:
    blank = dict.fromkeys(("category", "decision", "outcome", "model", "refund_id", "text", "reviewed"), "")
    assert len(ask(desk, **blank)["items"]) == 9


def test_trials_are_a_history_of_their_own(desk: DeskWorld) -> None:
    (item,) = ask(desk, source="trials")["items"]
    assert tuple(item) == rows.TRIAL_COLUMNS
    assert (item["filename"], item["outcome"], item["reason"]) == ("\t=1+1.jpg", "rejected", "corrupt")
    assert ask(desk, "/statistics", source="trials")["outcomes"] == {"rejected": 1}


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"date_from": "2026-11-31"}, "invalid", "date_from: run date must read YYYY-MM-DD"),
        ({"date_to": "20261121"}, "invalid", "date_to: run date must read YYYY-MM-DD"),
        ({"date_from": "2026-11-22"}, "invalid", "date_from: 2026-11-22 lies after date_to, 2026-11-21."),
        ({"category": "hats"}, "invalid", "category: 'hats' is none; expected one of arts_entertainment, "),
        ({"decision": "maybe"}, "invalid", "query.decision: Input should be 'auto' or 'review'"),
        ({"outcome": "unchanged"}, "invalid", "query.outcome: Input should be 'classified' or 'rejected'"),
        ({"source": "dreams"}, "invalid", "query.source: Input should be 'nights' or 'trials'"),
        ({"text": "a\0b"}, "invalid", "query.text: String should match pattern"),
        ({"refund_id": "\0"}, "invalid", "query.refund_id: String should match pattern"),
        ({"model": "m" * 201}, "invalid", "query.model: String should have at most 200 characters"),
        ({"reviewed": "perhaps"}, "invalid", "query.reviewed: Input should be a valid boolean"),
        ({"page": 0}, "invalid", "query.page: Input should be greater than or equal to 1"),
        ({"page": 10**30}, "invalid", "query.page: Input should be less than or equal to 10000"),
        ({"page_size": 201}, "invalid", "query.page_size: Input should be less than or equal to 200"),
        ({"page": 201, "page_size": 50}, "too_deep", "page 201 of 50 lies beyond the first 10,000 photos."),
        ({"source": "trials", "refund_id": "R"}, "invalid", "refund_id: trials belong to no refund and are not "),
        ({"tried_by": "ana"}, "invalid", "tried_by: nobody tried the photos of nights by hand; expected it with "),
        ({"source": "trials", "reviewed": "true"}, "invalid", "reviewed: trials belong to no refund and are not "),
    ],
)
def test_what_cannot_be_asked_is_refused(desk: DeskWorld, params: dict[str, Any], error: str, message: str) -> None:
    answer = ask(desk, status=422, **params)
    assert answer["error"] == error
    assert answer["message"].startswith(message)
    assert answer["what_to_do"]


@pytest.mark.parametrize(
    "text", ["'; DROP TABLE refund.photo; --", "%", "_", "\\", "<script>alert(1)</script>", "\u202eexe.gpj", "é\ud7ff"]
)
def test_hostile_texts_are_only_looked_for(desk: DeskWorld, text: str) -> None:
    assert ask(desk, text=text)["items"] == []
    assert ask(desk, source="trials", text=text)["items"] == []
    assert ask(desk, refund_id=text)["items"] == []


def test_counts_are_those_of_the_night(desk: DeskWorld) -> None:
    counts = ask(desk, "/statistics")
    assert (counts["photos"], counts["outcomes"]) == (9, {"classified": 7, "rejected": 2})
    assert sum(counts["decisions"].values()) == sum(counts["categories"].values()) == 7
    assert counts["models"] == {"tiny@1": 7}
    assert counts["days"] == [{"day": str(DAY), "photos": 9}]
    assert 0 < counts["mean_confidence"] <= counts["mean_category_score"] <= 1


def test_the_table_has_every_photo_of_the_filter_and_no_formula(desk: DeskWorld) -> None:
    params = {"date_from": str(DAY), "date_to": str(DAY)}
    answer = desk.sign_in(may_write=False).get("/api/history.csv", params=params)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="refund-nights-2026-11-21-2026-11-21.csv"'
    assert answer.content.startswith(b"\xef\xbb\xbfrun_date,")
    found = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))
    assert tuple(found[0]) == rows.NIGHT_COLUMNS
    assert [row["key"] for row in found] == [item["key"] for item in ask(desk, page_size=200)["items"]]
    assert "'" + FORMULA in {row["refund_id"] for row in found}
    assert {row["synthetic"] for row in found} == {"false"}
    assert not any(cell.lstrip().startswith(("=", "+", "-", "@")) for row in found for cell in row.values())


def test_the_table_of_trials_is_guarded_too(desk: DeskWorld) -> None:
    answer = desk.sign_in().get("/api/history.csv", params={"source": "trials", "date_from": str(DAY)})
    (row,) = csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig")))
    assert row["filename"] == "'\t=1+1.jpg"


def test_a_table_longer_than_a_piece_is_whole(desk: DeskWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refund.desk.history._CSV_ROWS", 2)
    monkeypatch.setattr(rows, "_ROWS_AT_ONCE", 3)
    answer = desk.sign_in().get("/api/history.csv", params={"date_from": str(DAY), "date_to": str(DAY)})
    assert len(list(csv.reader(io.StringIO(answer.text)))) == 1 + 9


@pytest.mark.parametrize("path", ["", ".csv", "/statistics"])
def test_what_takes_too_long_says_what_to_narrow(desk: DeskWorld, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(rows, "NIGHTS", "SELECT array_agg(pg_sleep(5)::text)")
    monkeypatch.setattr(rows, "TIMEOUT_S", 0.1)
    answer = ask(desk, path, status=503)
    assert (answer["error"], answer["what_to_do"]) == ("takes_too_long", "Narrow the dates, or ask for a refund id.")
