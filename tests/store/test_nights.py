"""What the morning report counts of a night beyond its photos: refunds, earlier nights, open alerts, stage metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, timedelta

import pytest

from refund.errors import FatalRunError
from refund.store.database import Database
from refund.store.records import (
    Alert,
    ContradictingRefund,
    DepartmentFigures,
    EarlierNight,
    NightFigures,
    OpenAlert,
    RefundFigures,
)
from refund.store.repository import Repository
from tests.conftest import Roles, migrated_database
from tests.store.factories import DAY, MODEL, NOON, Photo, begin, night, register_models, rows


@pytest.fixture(scope="module")
def empty(postgres: Roles) -> Iterator[Roles]:
    with migrated_database(postgres) as roles:
        register_models(roles)
        yield roles


@pytest.fixture
def roles(empty: Roles) -> Iterator[Roles]:
    yield empty
    rows(
        empty.owner,
        "TRUNCATE refund.run, refund.photo, refund.run_photo, refund.prediction, refund.decision, refund.review, "
        "refund.report, refund.drift, refund.alert CASCADE; SELECT 1",
    )


def photo(name: str, refund_id: str | None, category: str = "shoes", **over: object) -> Photo:
    values = {"category": category, "refund_id": refund_id, **over}
    return Photo(key=f"incoming/2026-11-21/{refund_id}/{name}.jpg", **values)  # type: ignore[arg-type]


def figures(roles: Roles, run_id: str) -> NightFigures:
    return Repository(Database(roles.app)).night_figures(run_id)


def make_synthetic(roles: Roles, run_id: str) -> None:
    rows(roles.owner, "UPDATE refund.run SET synthetic = true WHERE run_id = %s RETURNING 1", run_id)


REVIEW = {"kind": "review", "reasons": ("low_score",)}


def test_refunds_are_summed_up_by_the_department_of_most_of_their_photos(roles: Roles) -> None:
    night(
        roles.app,
        "r1",
        photo("1", "R-1"),
        photo("2", "R-1"),
        photo("1", "R-2", **REVIEW),
        photo("1", "R-3", "bags"),
        photo("2", "R-3", reason="truncated"),
        photo("1", "R-4", reason="corrupt"),
        photo("loose", None),
    )
    refunds = figures(roles, "r1").refunds
    assert refunds == RefundFigures(
        disagree=0,
        undeclared=0,
        departments=(
            DepartmentFigures(department="shoes", refunds=2, photos=3, auto=1, contradicting=0),
            DepartmentFigures(department="bags", refunds=1, photos=2, auto=0, contradicting=0),
            DepartmentFigures(department=None, refunds=1, photos=1, auto=0, contradicting=0),
        ),
        examples=(),
    )


def test_refunds_that_contradict_themselves_or_the_customer_are_named(roles: Roles) -> None:
    night(
        roles.app,
        "r1",
        photo("1", "both", declared="bags"),
        photo("2", "both", "bags", declared="bags"),
        photo("1", "disagree"),
        photo("2", "disagree"),
        photo("3", "disagree", "toys"),
        photo("1", "undeclared", declared="bags"),
        photo("1", "agree", declared="shoes"),
        photo("2", "agree", reason="truncated", declared="shoes"),
    )
    refunds = figures(roles, "r1").refunds
    assert refunds is not None
    assert (refunds.disagree, refunds.undeclared) == (2, 2)
    assert [(each.refund_id, each.disagree, each.undeclared) for each in refunds.examples] == [
        ("both", True, True),
        ("disagree", True, False),
        ("undeclared", False, True),
    ]
    assert refunds.examples[1] == ContradictingRefund(
        refund_id="disagree",
        photos=3,
        categories={"shoes": 2, "toys": 1},
        declared=None,
        disagree=True,
        undeclared=False,
        keys=("incoming/2026-11-21/disagree/1.jpg", "incoming/2026-11-21/disagree/3.jpg"),
    )
    assert sum(each.contradicting for each in refunds.departments) == 3


def test_contradictions_are_those_of_the_view_and_a_review_settles_them(roles: Roles) -> None:
    disagreeing = (photo("1", "R-1"), photo("2", "R-1", "toys"))
    night(roles.app, "r1", *disagreeing, photo("1", "R-2"))
    contradicting = "SELECT refund_id FROM reporting.refunds WHERE NOT photos_agree OR NOT matches_declared"
    before = figures(roles, "r1").refunds
    assert before is not None
    assert [each.refund_id for each in before.examples] == ["R-1"] == [row[0] for row in rows(roles.app, contradicting)]
    reviewed = (
        "INSERT INTO refund.review (photo_date, photo_id, category, reviewed_by, chosen_by) "
        "VALUES (%s, %s, 'shoes', 'ada', 'queue') RETURNING 1"
    )
    rows(roles.app, reviewed, DAY, disagreeing[1].photo_id)
    after = figures(roles, "r1").refunds
    assert after is not None
    assert after.examples == ()
    assert rows(roles.app, contradicting) == []
    earlier = reviewed.replace("reviewed_by, chosen_by", "reviewed_by, chosen_by, reviewed_at").replace(
        "'shoes', 'ada', 'queue'", "'bags', 'bob', 'import', '2000-01-01'"
    )
    rows(roles.app, earlier, DAY, disagreeing[1].photo_id)  # loaded later, made before: ada's is the last word
    assert figures(roles, "r1").refunds == after
    assert rows(roles.app, contradicting) == []


def test_no_more_than_ten_contradictions_are_told_and_all_are_counted(roles: Roles) -> None:
    night(roles.app, "r1", *(photo("1", f"R-{n:02}", declared="bags") for n in range(12)))
    refunds = figures(roles, "r1").refunds
    assert refunds is not None
    assert (refunds.undeclared, len(refunds.examples)) == (12, 10)


def test_a_made_up_night_and_a_real_one_of_one_date_do_not_mix(roles: Roles) -> None:
    night(roles.app, "r1", photo("1", "R-1", **REVIEW), photo("2", "R-1", reason="corrupt"))
    night(
        roles.app,
        "r2",
        photo("3", "R-2", "bags", labels=("dark",), declared="toys"),
        photo("4", "R-2", "toys", **REVIEW),
        photo("5", "R-2", "toys", **REVIEW),
        photo("6", "R-2", reason="truncated"),
        audit_share=1.0,
    )
    make_synthetic(roles, "r2")
    real, made_up = figures(roles, "r1"), figures(roles, "r2")
    assert real.model_categories == {MODEL: {"shoes": 1}}
    assert made_up.model_categories == {MODEL: {"bags": 1, "toys": 2}}
    assert [row.category for row in real.categories] == ["shoes"]
    assert (real.night_rejections, made_up.night_rejections) == ({"corrupt": 1}, {"truncated": 1})
    assert [len(each.example_rejections) for each in (real, made_up)] == [1, 1]
    assert (real.quality_labels, made_up.quality_labels) == ({}, {"dark": 1})
    assert (real.size_bytes, made_up.size_bytes) == (2000, 4000)
    assert (real.review_queue, made_up.review_queue) == (1, 2)
    assert (real.audits, made_up.audits) == (0, 1)
    assert real.refunds is not None
    assert made_up.refunds is not None
    assert (real.refunds.disagree, made_up.refunds.disagree) == (0, 1)


def report(roles: Roles, run_id: str, day: date, **body: object) -> None:
    night(roles.app, run_id, run_date=day)
    Repository(Database(roles.app)).save_report(
        run_id=run_id, run_date=day, body=body, html_uri="h", csv_uri="c", at=NOON
    )


def test_earlier_nights_are_read_from_their_reports(roles: Roles) -> None:
    report(roles, "r1", DAY - timedelta(days=3), night_photos=10, auto_share=0.5, rejected_share=0.125)
    report(roles, "r2", DAY - timedelta(days=2), night_photos=0, auto_share=None, rejected_share=None)
    report(roles, "r3", DAY - timedelta(days=1), night_photos=99, auto_share=1.0, rejected_share=0.0)
    make_synthetic(roles, "r3")
    report(roles, "r4", DAY + timedelta(days=1), night_photos=7, auto_share=1.0, rejected_share=0.0)
    night(roles.app, "r5", photo("1", "R-1"))
    assert figures(roles, "r5").earlier == (
        EarlierNight(run_date=DAY - timedelta(days=3), photos=10, auto_share=0.5, rejected_share=0.125),
        EarlierNight(run_date=DAY - timedelta(days=2), photos=0, auto_share=None, rejected_share=None),
    )


def test_a_report_says_in_its_table_whether_it_is_made_up_and_a_real_one_is_found_first(roles: Roles) -> None:
    night(roles.app, "r1", run_date=DAY + timedelta(days=1))
    make_synthetic(roles, "r1")
    repository = Repository(Database(roles.app))
    saved = {"body": {}, "html_uri": "h", "csv_uri": "c", "at": NOON}
    repository.save_report(run_id="r1", run_date=DAY + timedelta(days=1), **saved)  # type: ignore[arg-type]
    alone = repository.get_report()
    assert alone is not None
    assert alone.run_id == "r1"
    report(roles, "r2", DAY)
    assert rows(roles.app, "SELECT run_id, synthetic FROM refund.report ORDER BY 1") == [("r1", True), ("r2", False)]
    newest = repository.get_report()
    assert newest is not None
    assert newest.run_id == "r2"


def test_open_alerts_of_the_night_come_gravest_first(roles: Roles) -> None:
    from refund.store.alerts import raise_alert

    begin(roles.app, "r1")
    for key, severity, day in (("a", "info", DAY), ("b", "critical", DAY), ("c", "warning", date(2026, 11, 20))):
        alert = Alert(rule=key, dedupe_key=key, severity=severity, run_id="r1", run_date=day, message=f"{key} was seen")
        raise_alert(Database(roles.app), alert, at=NOON)
    assert figures(roles, "r1").open_alerts == (
        OpenAlert(rule="b", severity="critical", message="b was seen", seen_count=1),
        OpenAlert(rule="a", severity="info", message="a was seen", seen_count=1),
    )
    rows(roles.owner, "UPDATE refund.alert SET acknowledged_at = now(), acknowledged_by = 'ada' RETURNING 1")
    assert figures(roles, "r1").open_alerts == ()


def test_stage_metrics_are_handed_on_where_a_run_has_them(roles: Roles) -> None:
    begin(roles.app, "r1")
    assert figures(roles, "r1").stage_metrics == {}
    metrics = {"validate": {"photos": 5, "failed": 1, "p50_ms": 8.5}}
    rows(roles.owner, "UPDATE refund.run SET stage_metrics = %s WHERE run_id = 'r1' RETURNING 1", json.dumps(metrics))
    assert figures(roles, "r1").stage_metrics == metrics


def test_a_score_that_is_no_number_stops_before_the_tables(roles: Roles) -> None:
    with pytest.raises(FatalRunError, match=r"refused a statement, so nothing of it was written: .*\n?.*NaN"):
        night(roles.app, "r1", photo("1", "R-1", score=float("nan")))
    assert rows(roles.app, "SELECT count(*) FROM refund.decision") == [(0,)]
