"""Runs, standing outcomes, reports, drift, alerts and figures on a real Postgres."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import pytest

from refund.errors import DatabaseUnavailableError, FatalRunError, QueryError, ReasonCode
from refund.monitor.stage_metrics import StageMetrics
from refund.settings import DatabaseAccess
from refund.store import repository as repository_module
from refund.store.database import KEEPALIVE, Database
from refund.store.records import EvaluationFigures
from refund.store.repository import Repository
from tests.conftest import Roles, free_port
from tests.store.factories import DAY, MODEL, NOON, OTHER_MODEL, Photo, begin, night, register_models, rows

A = Photo(key="incoming/2026-11-21/R1/a.jpg", labels=("dark", "blurry"))
B = Photo(key="incoming/2026-11-21/R1/b.jpg", category="bags", kind="review", reasons=("low_score",), score=0.3)
BAD = Photo(key="incoming/2026-11-21/R2/bad.jpg", reason="truncated")
GONE = Photo(key="incoming/2026-11-21/R2/gone.jpg", reason="vanished")


@pytest.fixture
def repository(roles: Roles) -> Repository:
    return Repository(Database(roles.app))


def standing(repository: Repository, **over: Any) -> set[UUID]:
    values: dict[str, Any] = {
        "model": MODEL, "taxonomy_version": "t1", "threshold": 0.5, "exclude_run_id": "tonight",
    }  # fmt: skip
    return repository.standing_outcomes([DAY], **{**values, **over})


def ids(*photos: Photo) -> set[UUID]:
    return {UUID(photo.photo_id) for photo in photos}


def test_a_run_begun_again_keeps_what_it_was_begun_with(roles: Roles, repository: Repository) -> None:
    begin(roles.app, "r1", threshold=0.5)
    first = repository.require_run("r1")
    assert (first.state, first.model, first.params["review_threshold"], first.counts) == ("running", MODEL, 0.5, None)
    assert repository.mark_run_failed("r1", NOON)
    assert repository.require_run("r1").state == "failed"
    begin(roles.app, "r1", model=OTHER_MODEL, threshold=0.9, started_at=NOON + timedelta(days=1))
    assert repository.require_run("r1") == first
    with pytest.raises(FatalRunError) as caught:
        begin(roles.app, "r1", run_date=DAY + timedelta(days=1))
    assert str(caught.value) == (
        "run 'r1' began as the night of 2026-11-21, now it says 2026-11-22; one run is one night. "
        "Trigger a new run for 2026-11-22"
    )


def test_a_published_run_stays_published(roles: Roles, repository: Repository) -> None:
    night(roles.app, "r1", A)
    begin(roles.app, "r1")
    assert not repository.mark_run_failed("r1", NOON)
    assert repository.require_run("r1").state == "published"


def test_an_unknown_run_is_none_or_an_error(repository: Repository) -> None:
    assert repository.get_run("r9") is None
    with pytest.raises(FatalRunError, match=r"run 'r9' has no row in refund.run; expected that health_check began it"):
        repository.require_run("r9")
    with pytest.raises(FatalRunError, match=r"run 'r9' has no row in refund.run"):
        repository.night_figures("r9")


def test_notes_and_stage_seconds_are_kept_once(roles: Roles, repository: Repository) -> None:
    begin(roles.app, "r1")
    repository.add_notes("r1", ["b", "a", "b"])
    repository.add_notes("r1", ["a", "c"])
    repository.set_stage_metrics("r1", {"fetch": StageMetrics(seconds=1.5), "classify": StageMetrics(seconds=2)})
    repository.set_stage_metrics("r1", {"classify": StageMetrics(seconds=3)})
    repository.finish_run("r1", NOON)
    row = repository.require_run("r1")
    assert (row.notes, row.stage_seconds, row.finished_at) == (("b", "a", "c"), {"fetch": 1.5, "classify": 3}, NOON)


def test_outcomes_stand_for_the_same_model_taxonomy_and_threshold(roles: Roles, repository: Repository) -> None:
    night(roles.app, "r1", A, B, BAD, GONE, threshold=0.55)  # 0.55 has no exact real: compared as one
    assert standing(repository, threshold=0.55) == ids(A, B, BAD)
    for change in ({"model": OTHER_MODEL}, {"taxonomy_version": "t2"}, {"threshold": 0.56}):
        assert standing(repository, **{"threshold": 0.55, **change}) == ids(BAD)
    assert standing(repository, threshold=0.55, exclude_run_id="r1") == set()
    assert repository.standing_outcomes(
        [date(2020, 1, 1)], model=MODEL, taxonomy_version="t1", threshold=0.55, exclude_run_id=""
    ) == set()  # fmt: skip


def test_what_a_later_run_superseded_does_not_stand(roles: Roles, repository: Repository) -> None:
    night(roles.app, "r1", A, BAD)
    forced = {"review_threshold": 0.5, "force": True}
    night(roles.app, "r2", replace(A, reason="vanished"), replace(BAD, reason="decode_timeout"), params=forced)
    assert standing(repository) == set()


@pytest.mark.parametrize("reason", list(ReasonCode))
def test_only_final_rejections_stand(database: Roles, reason: ReasonCode) -> None:
    register_models(database)
    rejected = Photo(key=f"incoming/2026-11-21/x/{reason}.jpg", reason=reason.value)
    night(database.app, f"run-{reason}", rejected)
    found = standing(Repository(Database(database.app)))
    assert (UUID(rejected.photo_id) in found) == reason.is_final


def test_reports_are_written_over_and_found_by_run_and_night(roles: Roles, repository: Repository) -> None:
    night(roles.app, "r1", A)
    night(roles.app, "b1", A, run_date=DAY - timedelta(days=1))
    for run_id, day, body in (("r1", DAY, {"v": 1}), ("b1", DAY - timedelta(days=1), {"v": 3}), ("r1", DAY, {"v": 2})):
        repository.save_report(run_id=run_id, run_date=day, body=body, html_uri="h", csv_uri="c", at=NOON)
    found = [
        repository.get_report(), repository.get_report(run_id="b1"), repository.get_report(run_date=DAY),
    ]  # fmt: skip
    assert [(row.run_id, row.body) for row in found if row] == [("r1", {"v": 2}), ("b1", {"v": 3}), ("r1", {"v": 2})]
    assert repository.get_report(run_date=date(2020, 1, 1)) is None


def test_the_figures_of_a_night(roles: Roles, repository: Repository) -> None:
    night(roles.app, "r1", A, BAD)
    night(roles.app, "r2", B, GONE, unchanged=(A, BAD))
    figures = repository.night_figures("r2")
    assert figures.model_categories == {MODEL: {"shoes": 1, "bags": 1}}
    bags = next(category for category in figures.categories if category.category == "bags")
    assert (bags.auto, bags.review, bags.mean_score) == (0, 1, pytest.approx(0.3))
    assert figures.night_rejections == {"truncated": 1, "vanished": 1}
    assert [example.key for example in figures.example_rejections] == [BAD.key, GONE.key]
    assert figures.quality_labels == {"blurry": 1, "dark": 1}
    assert (figures.review_queue, figures.size_bytes, figures.late_photos) == (1, 4000, 0)
    assert figures.reconciliation is not None
    assert figures.reconciliation.adds_up


def test_the_figures_of_a_night_without_photos(roles: Roles, repository: Repository) -> None:
    night(roles.app, "r1")
    figures = repository.night_figures("r1")
    assert (figures.categories, figures.night_rejections, figures.size_bytes) == ((), {}, 0)


def test_figures_carry_what_each_model_scored_last_under_the_same_taxonomy(
    roles: Roles, repository: Repository
) -> None:
    evaluated = (
        "INSERT INTO refund.evaluation (model, set_name, set_sha256, taxonomy_version, threshold, photos, classified, "
        "figures, code_version, evaluated_by) VALUES (%s, %s, repeat('0', 64), %s, 0.5, 9, 8, %s, '1', 'ada') "
        "RETURNING 1"
    )
    for model, name, taxonomy, accuracy in (
        (MODEL, "first.csv", "t1", 0.5),
        (MODEL, "second.csv", "t1", 0.75),
        (MODEL, "third.csv", "t2", 1.0),
        (OTHER_MODEL, "first.csv", "t1", 0.25),
    ):
        score = {"accuracy": {"value": accuracy, "low": accuracy - 0.1, "high": accuracy + 0.1}}
        rows(roles.app, evaluated, model, name, taxonomy, json.dumps(score))
    night(roles.app, "r1", A)
    scored = EvaluationFigures(set_name="second.csv", photos=8, accuracy=0.75, low=0.65, high=0.85)
    assert repository.night_figures("r1").evaluations == {MODEL: scored}


def analyst(access: DatabaseAccess) -> Repository:
    return Repository(Database(access))


def test_a_typed_query_returns_columns_and_rows(roles: Roles) -> None:
    select = analyst(roles.analyst).select
    assert select("SELECT 1 AS a, 'x%s' AS b") == (["a", "b"], [(1, "x%s")])
    assert len(select("SELECT generate_series(1, 9)", limit=4)[1]) == 4
    assert select("SELECT 1 AS a WHERE false") == (["a"], [])
    for other in (" -- a comment\n (VALUES (1), (2));", "/* a\n b */ WITH x AS (SELECT 1) TABLE x", "SHOW timezone"):
        assert len(select(other, limit=1)[1]) == 1
    assert select("EXPLAIN SELECT 1")[0] == ["QUERY PLAN"]


def test_only_the_rows_asked_for_leave_the_server(roles: Roles) -> None:
    assert analyst(roles.analyst).select("SELECT generate_series(1, 1000000000000)", limit=2)[1] == [(1,), (2,)]


@pytest.mark.parametrize("sql", ["SELECT pg_sleep(30)", "EXPLAIN ANALYZE SELECT pg_sleep(30)"])
def test_a_query_that_takes_too_long_is_given_up(roles: Roles, monkeypatch: pytest.MonkeyPatch, sql: str) -> None:
    monkeypatch.setattr(repository_module, "SELECT_TIMEOUT_S", 0.1)
    with pytest.raises(QueryError) as caught:
        analyst(roles.analyst).select(sql, limit=1)
    assert str(caught.value) == "Postgres took longer than 0.1 s over the query; narrow it, for example by date"


def test_a_server_that_falls_silent_is_noticed(roles: Roles) -> None:
    with Database(roles.app).connect() as connection:
        options = connection.info.dsn_parameters
    assert {name: options[name] for name in KEEPALIVE} == {name: str(value) for name, value in KEEPALIVE.items()}


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("SELEC 1", 'Postgres refused the query: syntax error at or near "SELEC"'),
        ("SELECT * FROM refund.photo", "Postgres refused the query: permission denied for schema refund"),
        ("SELECT * FROM reporting.nothing", 'Postgres refused the query: relation "reporting.nothing" does not exist'),
        ("SET timezone = 'UTC'", "expected a query that returns rows, such as SELECT; got \"SET timezone = 'UTC'\""),
        ("", "Postgres refused the query: can't execute an empty query"),
    ],
)
def test_a_refused_query_says_why(roles: Roles, sql: str, says: str) -> None:
    with pytest.raises(QueryError) as caught:
        analyst(roles.analyst).select(sql)
    assert str(caught.value).startswith(says)


def test_even_the_owner_only_reads_through_a_typed_query(roles: Roles) -> None:
    with pytest.raises(QueryError, match="cannot execute DELETE in a read-only transaction"):
        analyst(roles.owner).select("DELETE FROM refund.model RETURNING 1")


def test_a_dead_server_is_not_the_querys_fault(roles: Roles) -> None:
    with pytest.raises(DatabaseUnavailableError):
        analyst(replace(roles.analyst, port=free_port())).select("SELECT 1")
