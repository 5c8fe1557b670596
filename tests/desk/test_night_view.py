"""A night in words, and months of a calendar: without any store."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from refund.desk.night_calendar import month_start, months, short_count
from refund.desk.night_view import night_view
from refund.records import Reconciliation
from refund.store.tonight import CalendarDay, NightRow, NightRunRow
from tests.night.alert_examples import drift_row
from tests.report.factories import shifted_night

DAY = date(2026, 11, 21)
TODAY = date(2026, 11, 23)
SUMS = Reconciliation(
    manifest=3, outcomes=3, classified=2, rejected=0, unchanged=1, decisions=2, adds_up=False, packed=2, predicted=2
)


def run(**over: Any) -> NightRunRow:
    at = datetime(2026, 11, 22, 2, tzinfo=UTC)
    fields: dict[str, Any] = {
        "run_id": "r",
        "state": "published",
        "model": "m@1",
        "photos": 3,
        "classified": 2,
        "rejected": 0,
        "unchanged": 1,
        "synthetic": False,
        "started_at": at,
        "published_at": at + timedelta(minutes=7),
        "finished_at": None,
    }
    return NightRunRow(**fields | over)


def night(*runs: NightRunRow, **over: Any) -> NightRow:
    fields: dict[str, Any] = {"run_date": DAY, "runs": runs, "failed_unseen": False, "last_complete": DAY}
    return NightRow(**fields | over)


def view(row: NightRow, **over: Any) -> Any:
    return night_view(row, **{"today": TODAY, "report": None, "sums": None, "drift": ()} | over)


def test_what_differs_says_what_moved_and_the_gravest_verdict_leads() -> None:
    rows = [drift_row("volume", status="ok"), drift_row("category_shares"), drift_row("largest_move", status="ok")]
    seen = view(night(run()), drift=rows)
    assert [measure.label for measure in seen.measures] == ["Mix of goods", "Largest move", "Number of photos"]
    assert (seen.drift_label, seen.drift_tone) == ("Differs", "bad")
    mix, move, volume = seen.measures
    assert mix.moves == (
        "Women's shoes +5.4 points (17.4% instead of 12.0%)",
        "Bags −2.5 points (10.0% instead of 12.5%)",
        "Books −1.0 points (20.0% instead of 21.0%)",
    )
    assert mix.limits == "distance 0.131, threshold 0.100"
    assert mix.compared == "1,013 photos against 8,004 of 8 nights"
    assert (move.verdict, move.seen) == ("As usual", "17.4%, usually 12.0%")
    assert (volume.seen, volume.moves) == ("300, usually 1,004", ())


def test_a_report_gives_the_sentence_and_one_of_a_newer_release_is_passed_over() -> None:
    figures = shifted_night()
    seen = view(night(run()), report=figures.to_dict())
    assert seen.has_report
    assert [card.leads_to for card in seen.cards][
        3
    ] == "history?date_from=2026-11-21&date_to=2026-11-21&outcome=rejected"
    newer = view(night(run()), report={**figures.to_dict(), "schema_version": 99}, sums=SUMS)
    assert newer.has_report, "its page can be shown all the same"
    assert newer.sentence == "The night of Saturday 21 November 2026 is published. Its report is not there yet."
    assert [card.value for card in newer.cards] == ["3", "2", "0", "1"]


def test_what_a_report_says_that_cannot_be_read_forges_no_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    view(night(run()), report={**shifted_night().to_dict(), "\nforged line": 1, "schema_version": "9\nforged line"})
    (said,) = [record.getMessage() for record in caplog.records if record.name == "refund.desk.night_view"]
    assert said.startswith("the figures of a report cannot be read: ")
    assert "\n" not in said


def test_counts_that_do_not_add_up_are_told() -> None:
    seen = view(night(run()), sums=SUMS)
    assert seen.adds_up is False
    assert seen.counted.startswith("This run listed 3 photos ≠ 2 classified + 0 rejected + 1 unchanged")


def test_a_failed_night_says_what_analysts_see_and_a_published_one_when() -> None:
    row = night(run(state="failed", published_at=None), last_complete=date(2026, 11, 20))
    assert view(row).sentence == (
        "The night of Saturday 21 November 2026 failed: nothing of it is published. Analysts still see the night of "
        "Friday 20 November 2026."
    )
    assert view(row).when == "began 22 Nov, 02:00 UTC"
    assert view(night(run())).when == "22 Nov, 02:07 UTC, by m@1"
    assert view(night()).when == ""
    assert view(night(run(synthetic=True))).made_up


def test_of_two_published_runs_the_later_publication_is_the_nights() -> None:
    first = run(run_id="first")
    second = run(run_id="second", published_at=first.started_at + timedelta(hours=3))
    assert night(first, second).published == second
    assert night(second, first).published == second
    assert night(first, replace(second, synthetic=True)).published == first


def test_months_begin_on_mondays_and_miss_no_night_before_the_first_or_from_today_on() -> None:
    known = CalendarDay(run_date=DAY, state="published", photos=31_400, drift=True, open_alerts=2, synthetic=False)
    ahead = CalendarDay(run_date=TODAY, state="missing", photos=None, drift=False, open_alerts=1, synthetic=False)
    october, november = months([known, ahead], last=DAY, number=2, today=TODAY, shown=DAY, begun=date(2026, 11, 20))
    assert (october.name, november.name) == ("October 2026", "November 2026")
    assert all(len(week) == 7 for month in (october, november) for week in month.weeks)
    assert [cell and cell.day.day for cell in november.weeks[0]] == [None] * 6 + [1]
    cells = {cell.day: cell for month in (october, november) for week in month.weeks for cell in week if cell}
    assert len(cells) == 61
    assert {day.isoformat(): cell.state for day, cell in cells.items() if cell.state} == {
        "2026-11-20": "missing",
        "2026-11-21": "published",
        "2026-11-22": "missing",
    }
    cell = cells[DAY]
    assert cell.told == "Saturday 21 November 2026, published, 31,400 photos, differs from other nights, 2 open alerts"
    assert (cell.sign, cell.photos, cell.shown) == ("✓", "31k", True)


def test_what_a_day_has_room_for() -> None:
    assert [short_count(number) for number in (0, 999, 1_000, 9_940, 10_000, 1_250_000)] == [
        *("0", "999", "1.0k", "9.9k", "10k", "1.2M"),
    ]
    assert month_start(DAY, -2) == date(2027, 1, 1)
    assert month_start(date(2026, 1, 31), 1) == date(2025, 12, 1)
