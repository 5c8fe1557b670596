"""Evaluations are only ever added, whole, and two models meet on the set that both were evaluated on last."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from refund.errors import AccessDeniedError, FatalRunError
from refund.settings import S3Access
from refund.store.database import Database
from refund.store.evaluations import latest_common_evaluations, save_evaluation
from refund.store.objects import ObjectStore
from refund.store.registry import Registry
from tests.conftest import Roles
from tests.monitor.factories import make_verdict
from tests.store.factories import rows
from tests.store.test_registry import model_folder, version

FIGURES = {"accuracy": {"value": 0.5, "low": 0.1, "high": 0.9}, "macro_f1": {"value": 0.25, "low": 0.0, "high": 0.5}}
VERDICTS = [make_verdict(1, "shoes", "shoes", score=0.75), make_verdict(2, "media", "shoes", true_class_id=None)]


@pytest.fixture(scope="module")
def registry(database: Roles, s3_moto: S3Access) -> Registry:
    """The registry of this module, by one client of S3: making one takes half a second."""
    return Registry(objects=ObjectStore(s3_moto), database=Database(database.app))


@pytest.fixture
def models(registry: Registry, tmp_path: Path) -> tuple[str, str]:
    """Two registered models of this test alone."""
    numbers = (secrets.token_hex(4), secrets.token_hex(4))
    first, second = (
        registry.register(model_folder(tmp_path / number, version(number)), created_by="t").model for number in numbers
    )
    return first, second


def save(roles: Roles, model: str, *, of: str = "a", **overrides: Any) -> int:
    values: dict[str, Any] = {
        "model": model,
        "set_name": "photos/",
        "set_sha256": of * 64,
        "taxonomy_version": "1-abc",
        "threshold": 0.7,
        "photos": 3,
        "figures": FIGURES,
        "verdicts": VERDICTS,
        "plot_uri": None,
        "code_version": "0.1.0",
        "evaluated_by": "ada",
    }
    return save_evaluation(Database(roles.app), **values | overrides)


def common(roles: Roles, candidate: str, current: str, **wanted: Any) -> tuple[int, int] | None:
    found = latest_common_evaluations(Database(roles.app), candidate=candidate, current=current, **wanted)
    return None if found is None else (found[0].evaluation_id, found[1].evaluation_id)


def test_what_was_said_of_each_photograph_comes_back(database: Roles, models: tuple[str, str]) -> None:
    save(database, models[0])
    save(database, models[1], plot_uri="s3://b/p.png")
    candidate, current = latest_common_evaluations(  # type: ignore[misc]
        Database(database.app), candidate=models[1], current=models[0]
    )
    assert (candidate.model, candidate.plot_uri, current.model, current.plot_uri) == (
        models[1], "s3://b/p.png", models[0], None,
    )  # fmt: skip
    assert (current.set_name, current.photos, current.classified, current.threshold) == ("photos/", 3, 2, 0.7)
    assert (current.figures, current.evaluated_by) == (FIGURES, "ada")
    said = [replace(row, category_score=round(row.category_score, 6), confidence=0.0) for row in current.verdicts]
    assert said == [replace(row, confidence=0.0) for row in VERDICTS]


def test_analysts_see_accuracy_and_macro_f1(database: Roles, models: tuple[str, str]) -> None:
    save(database, models[0])
    sql = f"SELECT accuracy, macro_f1, photos, classified FROM reporting.evaluations WHERE model = '{models[0]}'"
    assert rows(database.analyst, sql) == [(0.5, 0.25, 3, 2)]


def test_evaluating_again_adds_a_row_and_nobody_may_change_one(database: Roles, models: tuple[str, str]) -> None:
    first, second = save(database, models[0]), save(database, models[0])
    assert second > first
    assert rows(database.app, f"SELECT count(*) FROM refund.evaluation WHERE model = '{models[0]}'") == [(2,)]
    for statement in ("UPDATE refund.evaluation SET photos = 9", "DELETE FROM refund.evaluation_photo"):
        with (
            pytest.raises(AccessDeniedError, match="permission denied"),
            Database(database.app).connect() as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)


def test_an_evaluation_is_kept_whole_or_not_at_all(database: Roles, models: tuple[str, str]) -> None:
    with pytest.raises(FatalRunError, match="evaluation_photo_pkey"):
        save(database, models[0], verdicts=[VERDICTS[0], VERDICTS[0]])
    with pytest.raises(FatalRunError, match="violates foreign key"):
        save(database, "nosuch@1")
    assert rows(database.app, f"SELECT count(*) FROM refund.evaluation WHERE model = '{models[0]}'") == [(0,)]


def test_models_meet_on_the_newest_common_set_and_its_newest_evaluations(
    database: Roles, models: tuple[str, str]
) -> None:
    candidate, current = models
    assert common(database, candidate, current) is None
    save(database, current, of="a")
    save(database, candidate, of="b")
    assert common(database, candidate, current) is None
    old = save(database, candidate, of="a"), save(database, current, of="b")
    newer = save(database, candidate, of="b")
    assert common(database, candidate, current) == (newer, old[1])
    newest = save(database, current, of="a")
    assert common(database, candidate, current) == (old[0], newest)


def test_another_taxonomy_or_threshold_is_not_common(database: Roles, models: tuple[str, str]) -> None:
    candidate, current = models
    ours = save(database, current)
    save(database, candidate, taxonomy_version="2-def")
    save(database, candidate, threshold=0.5)
    assert common(database, candidate, current) is None
    theirs = save(database, candidate)
    assert common(database, candidate, current) == (theirs, ours)
    assert common(database, candidate, current, taxonomy_version="2-def") is None
    assert common(database, candidate, current, taxonomy_version="1-abc") == (theirs, ours)
