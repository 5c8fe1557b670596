"""Which of several runs and versions stands: superseded, cleared late, cleared from the listing on, two at once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from refund.records import OutcomeCounts
from refund.store.database import Database
from refund.store.repository import Repository
from tests.conftest import Roles
from tests.store.factories import NOON, OTHER_MODEL, Photo, begin, night, rows

A, B = (
    Photo(key="incoming/2026-11-21/R1/a.jpg", refund_id="R1"),
    Photo(key="incoming/2026-11-21/R1/b.jpg", kind="review", reasons=("low_score",), score=0.3),
)
BAD = Photo(key="incoming/2026-11-21/R2/bad.jpg", reason="truncated")


@pytest.mark.parametrize("change", [{"model": OTHER_MODEL}, {"threshold": 0.95}])
def test_another_model_or_threshold_supersedes_the_decisions(roles: Roles, change: dict[str, Any]) -> None:
    night(roles.app, "r1", A, B)
    night(roles.app, "r2", replace(A, kind="review", reasons=("low_score",)), B, **change)
    decisions = "SELECT run_id, kind, superseded_by FROM refund.decision WHERE photo_id = %s ORDER BY 1"
    assert rows(roles.owner, decisions, A.photo_id) == [("r1", "auto", "r2"), ("r2", "review", None)]
    predictions_count = rows(roles.owner, "SELECT count(*) FROM refund.prediction WHERE photo_id = %s", A.photo_id)
    assert predictions_count == [(2 if "model" in change else 1,)]
    assert rows(roles.analyst, "SELECT DISTINCT run_id FROM reporting.photos") == [("r2",)]
    assert rows(roles.owner, "SELECT DISTINCT superseded_by FROM refund.run_photo WHERE run_id = 'r1'") == [("r2",)]


def test_a_rejection_supersedes_an_earlier_decision_and_a_decision_an_earlier_rejection(roles: Roles) -> None:
    night(roles.app, "r1", A, replace(B, reason="vanished"))
    night(roles.app, "r2", replace(A, reason="corrupt"), B, params={"review_threshold": 0.5, "force": True})
    assert rows(roles.analyst, "SELECT key, outcome, final_category FROM reporting.photos ORDER BY 1") == [
        (A.key, "rejected", None),
        (B.key, "classified", "shoes"),
    ]
    facts = rows(roles.owner, "SELECT image_format, first_run_id FROM refund.photo WHERE photo_id = %s", B.photo_id)
    assert facts == [("JPEG", "r1")]  # what the first look did not find out is filled in


def test_a_newer_version_of_a_key_replaces_the_older_and_may_be_replaced_back(roles: Roles) -> None:
    newer = replace(A, etag="e2", category="bags")
    live = "SELECT photo_id::text FROM reporting.photos"
    night(roles.app, "r1", A)
    night(roles.app, "r2", newer)
    assert rows(roles.analyst, live) == [(newer.photo_id,)]
    night(roles.app, "r3", unchanged=(A,))  # the first picture was uploaded again
    assert rows(roles.analyst, live) == [(A.photo_id,)]


def test_a_run_cleared_late_does_not_replace_a_version_that_a_later_run_saw(roles: Roles) -> None:
    newer = replace(A, etag="e2")
    begin(roles.app, "r1")  # lists A, fails
    night(roles.app, "r2", newer)
    night(roles.app, "r1", A)  # cleared the day after
    assert rows(roles.analyst, "SELECT photo_id::text FROM reporting.photos") == [(newer.photo_id,)]
    assert rows(roles.analyst, "SELECT bool_and(adds_up) FROM reporting.reconciliation") == [(True,)]


@pytest.mark.parametrize("newer", [replace(A, category="bags"), replace(A, reason="decode_crashed")])
def test_a_run_cleared_late_does_not_supersede_what_a_later_run_decided(roles: Roles, newer: Photo) -> None:
    begin(roles.app, "r1")  # fails
    night(roles.app, "r2", newer, threshold=0.9)
    night(roles.app, "r1", A, B)  # cleared the day after
    seen = "SELECT run_id, outcome, predicted_category FROM reporting.photos WHERE key = '" + A.key + "'"
    kept = ("r2", "rejected", None) if newer.reason else ("r2", "classified", "bags")
    assert rows(roles.analyst, seen) == [kept]
    for table in ("run_photo", "decision"):
        by_run = dict(
            rows(roles.owner, f"SELECT run_id, superseded_by FROM refund.{table} WHERE photo_id = %s", A.photo_id)
        )
        assert by_run == {"r1": "r2"} | ({} if newer.reason and table == "decision" else {"r2": None})
    assert rows(roles.analyst, "SELECT run_id FROM reporting.photos WHERE key = '" + B.key + "'") == [("r1",)]
    assert rows(roles.analyst, "SELECT bool_and(adds_up), count(*) FROM reporting.reconciliation") == [(True, 2)]


def test_a_run_cleared_late_does_not_supersede_what_a_later_run_left_unchanged(roles: Roles) -> None:
    night(roles.app, "r1", A)
    begin(roles.app, "r2", threshold=0.9)  # fails
    night(roles.app, "r3", unchanged=(A,))
    night(roles.app, "r2", replace(A, category="bags"))
    assert rows(roles.analyst, "SELECT run_id, predicted_category FROM reporting.photos") == [("r1", "shoes")]
    decisions = "SELECT run_id, superseded_by FROM refund.decision ORDER BY 1"
    assert rows(roles.owner, decisions) == [("r1", None), ("r2", "r3")]


def test_a_run_cleared_from_the_listing_on_sees_the_newest_version_though_it_began_first(roles: Roles) -> None:
    newer = replace(A, etag="e2")
    begin(roles.app, "r1")  # fails
    night(roles.app, "r2", A)
    Repository(Database(roles.app)).begin_listing("r1")  # the day after, when the photo had been overwritten
    night(roles.app, "r1", newer)
    assert rows(roles.analyst, "SELECT photo_id::text, run_id FROM reporting.photos") == [(newer.photo_id, "r1")]
    night(roles.app, "r3", unchanged=(newer,))
    assert rows(roles.analyst, "SELECT photo_id::text, run_id FROM reporting.photos") == [(newer.photo_id, "r1")]


# --- two runs at once ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("params", [{}, {"model": OTHER_MODEL}])
def test_the_second_of_two_runs_leaves_what_the_first_published_as_a_run_after_it_would(
    roles: Roles, params: dict[str, Any]
) -> None:
    """Both listed A, B and BAD before either published; `params` are the second's."""
    begin(roles.app, "r1")
    begin(roles.app, "r2", **params)
    night(roles.app, "r1", A, BAD)
    decided = rows(roles.owner, "SELECT * FROM refund.decision ORDER BY photo_id")
    second = night(roles.app, "r2", A, B, BAD, **params)
    if params:  # another model decides anew; a photo that cannot be decoded cannot be by it either
        assert second == OutcomeCounts(photos=3, classified=2, rejected=0, unchanged=1)
        assert rows(roles.analyst, "SELECT DISTINCT run_id FROM reporting.photos WHERE outcome = 'classified'") == [
            ("r2",)
        ]
    else:
        assert second == OutcomeCounts(photos=3, classified=1, rejected=0, unchanged=2)
        assert rows(roles.owner, "SELECT * FROM refund.decision WHERE run_id = 'r1'") == decided
    assert rows(roles.analyst, "SELECT packed, predicted, overtaken, adds_up FROM reporting.reconciliation") == [
        (2, 1, 0, True),
        (second.classified, second.classified, second.unchanged, True),
    ]
    ((notes,),) = rows(roles.analyst, "SELECT notes FROM reporting.runs WHERE run_id = 'r2'")
    assert notes == [
        f"another run published {second.unchanged} of these photos while this one was at work: left unchanged"
    ]


def test_the_second_of_two_runs_decides_anew_where_it_was_told_to(roles: Roles) -> None:
    begin(roles.app, "r1")
    begin(roles.app, "r2", params={"review_threshold": 0.5, "force": True})
    night(roles.app, "r1", A)
    assert night(roles.app, "r2", A).classified == 1
    assert rows(roles.owner, "SELECT run_id, superseded_by FROM refund.decision ORDER BY 1") == [
        ("r1", "r2"), ("r2", None),
    ]  # fmt: skip


def test_a_rejection_of_the_moment_does_not_stand_against_the_second_run(roles: Roles) -> None:
    begin(roles.app, "r1")
    begin(roles.app, "r2")
    night(roles.app, "r1", replace(A, reason="decode_timeout"))
    assert night(roles.app, "r2", A).classified == 1


def test_of_two_runs_the_one_that_began_later_is_the_newer_whatever_the_clock_said(roles: Roles) -> None:
    """The clock was set back between them."""
    night(roles.app, "r1", A, started_at=NOON)
    night(roles.app, "r2", replace(A, category="bags"), threshold=0.9, started_at=NOON - timedelta(days=2))
    assert rows(roles.analyst, "SELECT run_id, predicted_category FROM reporting.photos") == [("r2", "bags")]
