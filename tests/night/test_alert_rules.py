"""The rules, one by one: when they speak, how badly, and what they say."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest

from refund.night.alert_rules import (
    EXAMPLE_COUNT,
    RuleLimits,
    drift_finding,
    grown_category,
    lower_bound,
    night_findings,
)
from refund.records import OutcomeCounts
from refund.store.database import Database
from refund.store.repository import Repository
from tests.conftest import Roles
from tests.night.alert_examples import DAY, drift_row, every_finding, night

LIMITS = RuleLimits()


def found(limits: RuleLimits = LIMITS, **over: Any) -> dict[str, str]:
    return {one.rule: one.severity for one in night_findings(night(**over), limits=limits)}


def counts(classified: int, rejected: int) -> OutcomeCounts:
    return OutcomeCounts(photos=classified + rejected, classified=classified, rejected=rejected, unchanged=0)


def test_a_good_night_raises_nothing() -> None:
    assert found() == {}
    assert found(dry_run=True, published=False, has_report=False, drift=[]) == {}


@pytest.mark.parametrize(
    ("over", "expected"),
    [
        ({"failed_tasks": ["fetch"], "published": False, "has_report": False}, {"failed_night": "critical"}),
        (
            {"failed_tasks": ["generate_report"], "has_report": False},
            {"failed_night": "warning", "missing_report": "warning"},
        ),
        ({"adds_up": False}, {"reconciliation": "critical"}),
        ({"counts": counts(0, 0), "drift": []}, {"no_photos": "warning"}),
        ({"drift": [drift_row("volume")]}, {"drift:volume": "warning"}),
        ({"drift": [drift_row("rejection_rate")]}, {"rejection_spike": "warning"}),
        ({"drift": [drift_row("volume", tonight_photos=0)]}, {"no_photos": "warning"}),  # not two alerts
        ({"drift": [drift_row("volume")], "published": False}, {}),  # of a run that never became visible
    ],
)
def test_each_rule_has_its_severity(over: dict[str, Any], expected: dict[str, str]) -> None:
    assert found(**over) == expected


def test_a_weekday_without_deliveries_may_be_empty() -> None:
    empty = counts(0, 0)
    weekdays = RuleLimits(delivery_weekdays=frozenset(range(5)))
    assert found(weekdays, counts=empty, drift=[]) == {}  # a Saturday
    assert found(weekdays, drift=[drift_row("volume", tonight_photos=0)]) == {}
    assert found(weekdays, counts=empty, drift=[], run_date=date(2026, 11, 20)) == {"no_photos": "warning"}


def test_a_night_is_empty_whatever_of_earlier_dates_its_run_looked_at() -> None:
    looked_at = OutcomeCounts(photos=900, classified=0, rejected=0, unchanged=900)  # of the `late_days` before it
    for status in ("drift", "ok", "no_reference"):
        volume = drift_row("volume", tonight_photos=0, status=status)
        assert found(counts=looked_at, drift=[volume]) == {"no_photos": "warning"}
    assert found(counts=looked_at, drift=[drift_row("volume", tonight_photos=900, status="ok")]) == {}, "run again"
    assert found(counts=looked_at, drift=[]) == {}, "nothing says of which date they are"


@pytest.mark.parametrize(
    ("classified", "rejected", "speaks"),
    [(790, 210, False), (700, 300, True), (2, 1, False), (0, 3, True), (8, 4, False), (0, 1, False)],
)
def test_the_share_limit_waits_until_the_photos_prove_it(classified: int, rejected: int, speaks: bool) -> None:
    assert ("rejection_spike" in found(counts=counts(classified, rejected), drift=[])) == speaks


@pytest.mark.parametrize("status", ["no_reference", "insufficient_data"])
def test_the_share_limit_speaks_only_where_drift_did_not_judge(status: str) -> None:
    many = counts(500, 500)
    assert found(counts=many, drift=[drift_row("rejection_rate", status=status)]) == {"rejection_spike": "warning"}
    assert found(counts=many, drift=[drift_row("rejection_rate", status="ok")]) == {}


def test_the_lower_bound_is_wilsons() -> None:
    """Against scipy's interval, whose 98 % has 1 % below."""
    from scipy.stats import binomtest

    for count, of in [(1, 3), (50, 100), (300, 1000), (3, 3)]:
        low = binomtest(count, of).proportion_ci(confidence_level=0.98, method="wilson").low
        assert lower_bound(count, of) == pytest.approx(low, abs=1e-4)
    assert lower_bound(0, 0) == lower_bound(0, 10) == 0.0


@pytest.mark.parametrize(
    ("measure", "words"),
    [
        (
            "category_shares",
            "Drift: category shares of the night of 2026-11-21 moved by 0.131, more than the threshold 0.1. Most: "
            "women's shoes from 12.0% to 17.4% (+5.4 points), bags from 12.5% to 10.0% (-2.5 points), books from "
            "21.0% to 20.0% (-1.0 points).",
        ),
        (
            "volume",
            "Drift: volume of the night of 2026-11-21 moved from 1,004 photos (geometric mean) to 300, that is by "
            "0.131, more than the threshold 0.1.",
        ),
        (
            "rejection_rate",
            "Drift: rejection rate of the night of 2026-11-21 moved from 2.1% to 9.3%, that is by 0.131, more than the "
            "threshold 0.1.",
        ),
    ],
)  # fmt: skip
def test_an_alert_of_drift_says_what_moved_against_what_and_how_sure(measure: str, words: str) -> None:
    said = drift_finding(drift_row(measure)).message
    assert said.startswith(words)
    assert (
        "Tonight's 1,013 photos against 8,004 of the 8 reference nights from 2026-11-13 to 2026-11-20. P-value 0.0001; "
        "the stated rate of false alarms is 2.0% of nights without drift, all measures together; the threshold is the "
        "floor; overdispersion between nights 0.0021 is allowed for."
    ) in said


def test_a_row_of_an_earlier_release_is_told_with_what_it_has() -> None:
    bare = drift_row(
        "volume", floor=None, alpha=None, overdispersion=None, p_value=None, details={}, reference_nights=1
    )
    assert drift_finding(bare).message.startswith(
        "Drift: volume of the night of 2026-11-21 moved by 0.131, more than the threshold 0.1. Tonight's 1,013 photos "
        "against 8,004 of the one reference night before it. Open the morning report"
    )


def test_photos_to_look_at_are_of_the_category_that_grew() -> None:
    assert grown_category(drift_row()) == "women's shoes"
    assert grown_category(drift_row("volume")) is None


def test_where_no_photo_can_show_it_the_alert_says_why() -> None:
    fell = drift_row("rejection_rate", details={"tonight_value": 0.001, "reference_value": 0.02})
    assert drift_finding(fell).alert(run_id="r1", run_date=DAY).details["no_examples"].startswith("None: fewer photos")
    assert "no_examples" not in drift_finding(drift_row("rejection_rate")).alert(run_id="r1", run_date=DAY).details


def test_the_deadline_is_told_by_the_clock_of_the_run() -> None:
    (said,) = {one.against for one in every_finding() if one.seen.startswith("The run r1 had not ended")}
    assert said == "Expected: it ends within 4 hours after it was queued"


def test_failed_tasks_are_named_and_counted() -> None:
    (one,) = night_findings(night(failed_tasks=[f"task_{n:02d}" for n in range(30)], published=False), limits=LIMITS)
    assert one.seen.startswith(
        "The night of 2026-11-21 failed in task_00, task_01, task_02 and 27 more. It is not publ"
    )
    assert len(one.examples) == EXAMPLE_COUNT
    assert one.examples_are == "failed tasks, 10 of 30"


def test_the_same_rule_date_and_subject_are_the_same_alert() -> None:
    keys = {one.alert(run_id=run, run_date=DAY).dedupe_key for one in every_finding() for run in ("r1", "r2")}
    assert len(keys) == len({one.rule for one in every_finding()})
    assert "drift:volume/2026-11-21" in keys


def test_a_made_up_night_has_alerts_of_its_own() -> None:
    for one in every_finding():
        real, made_up = (one.alert(run_id="r1", run_date=DAY, synthetic=synthetic) for synthetic in (False, True))
        assert made_up.dedupe_key == f"{real.dedupe_key}/made-up"
        assert "NOT synthetic" in real.details["sql"]
        assert ("NOT synthetic" in made_up.details["sql"]) == (one.rule == "never_started")


def test_every_alert_says_what_to_do_and_can_be_kept() -> None:
    for one in every_finding():
        alert = one.alert(run_id="r1", run_date=DAY)
        assert alert.message == one.message
        assert "\n" not in one.message
        assert one.action in one.message.replace("..", ".")
        json.dumps(dict(alert.details))


def test_the_sql_of_every_alert_runs_as_the_analyst(database: Roles) -> None:
    repository = Repository(Database(database.analyst))
    for one in every_finding():
        columns, rows = repository.select(one.sql)
        assert columns, one.rule
        assert rows == []
