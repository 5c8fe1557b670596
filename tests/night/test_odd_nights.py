"""Nights with too little to judge, and input that no table may take: each has a status or an error in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from refund.cli import reports
from refund.cli.app import app
from refund.errors import FatalRunError
from refund.monitor.drift import CATEGORY_SHARES
from refund.night.services import Services
from refund.settings import S3Access
from tests.conftest import Roles
from tests.night.conftest import DAY, World, fill, new_world
from tests.night.factories import jpeg, plain

FIRST, ONE_CATEGORY, OF_THREE, EMPTY, OTHER_TAXONOMY = (DAY + timedelta(days=step) for step in range(5))
MIN_PHOTOS = 4


@pytest.fixture(scope="module")
def nights(postgres: Roles, s3_moto: S3Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Five nights, one after the other: three of one category, one of them small, then none, then another taxonomy."""
    with new_world(postgres, s3_moto, tmp_path_factory.mktemp("odd")) as world:
        settings = replace(world.services.settings, drift_min_photos=MIN_PHOTOS)
        world = replace(world, services=replace(world.services, settings=settings))
        for day, photos in {FIRST: 4, ONE_CATEGORY: 4, OF_THREE: 3, EMPTY: 0}.items():
            for number in range(photos):
                world.put(f"R-{number}/a.jpg", jpeg(1), day=day)  # the same picture: one category
            world.night(f"night of {day}", day=day, late_days=0)
        with world.services.database.connect() as connection, connection.cursor() as cursor:
            cursor.execute("UPDATE refund.run SET taxonomy_version = '2025-01-01-older'")
        fill(world, 4, day=OTHER_TAXONOMY)
        world.night(f"night of {OTHER_TAXONOMY}", day=OTHER_TAXONOMY, late_days=0)
        yield world


def ask_for_report(services: Services, day: date, monkeypatch: pytest.MonkeyPatch, *, code: int = 0) -> str:
    """What ``refund report`` says, in one line."""

    @contextmanager
    def command_services() -> Iterator[Services]:
        yield services

    monkeypatch.setattr(reports, "command_services", command_services)
    answer = CliRunner().invoke(app, ["report", "--date", day.isoformat()])
    assert answer.exit_code == code, answer.output
    return " ".join(answer.output.split())


@pytest.mark.parametrize(
    ("day", "status", "said"),
    [
        (FIRST, "no_reference", "nothing to compare with: no earlier night with photos by this model."),
        (ONE_CATEGORY, "ok", "is like"),
        (OF_THREE, "insufficient_data", "too few photos to tell (3 tonight, 8 in the 2 nights before)."),
        (EMPTY, "insufficient_data", "No photos arrived for"),
        (OTHER_TAXONOMY, "no_reference", "nothing to compare with: no earlier night with photos by this model."),
    ],
)
def test_a_night_with_little_to_judge_has_a_status_and_says_so(
    nights: World, monkeypatch: pytest.MonkeyPatch, day: date, status: str, said: str
) -> None:
    assert nights.rows(
        f"SELECT status FROM reporting.drift WHERE run_date = '{day}' AND measure = '{CATEGORY_SHARES}'"
    ) == [(status,)]
    assert said in ask_for_report(nights.services, day, monkeypatch)


def test_nothing_is_said_of_a_threshold_that_was_not_applied(nights: World) -> None:
    unjudged = "status IN ('no_reference', 'insufficient_data')"
    assert nights.rows(f"SELECT DISTINCT distance, threshold, p_value FROM reporting.drift WHERE {unjudged}") == [
        (None, None, None)
    ]
    judged = nights.rows(f"SELECT distance, threshold FROM reporting.drift WHERE NOT {unjudged}")
    assert all(distance is not None and threshold is not None for distance, threshold in judged)


def test_a_report_for_a_date_that_never_ran_says_so(nights: World, monkeypatch: pytest.MonkeyPatch) -> None:
    day = FIRST - timedelta(days=30)
    assert ask_for_report(nights.services, day, monkeypatch, code=1) == (
        f"No report for {day}: no night was published for that date; reporting.runs lists those that were"
    )


def test_a_model_that_gives_no_numbers_is_stopped_and_named_with_the_photo(world: World) -> None:
    (key,) = fill(world, 1)
    world.promote(world.register("2", spoilt=True))
    run = world.start("r1")
    with pytest.raises(FatalRunError) as caught:
        world.stage(run)
    assert str(caught.value).startswith(
        f"row 0 of 1 of model tiny@2, for '{key}', is no probability distribution: it adds up to nan"
    )
    assert "refund model rollback" in str(caught.value)
    assert world.rows("SELECT count(*) FROM refund.prediction") == [(0,)]
    world.rollback()
    assert world.night("r2")["classified"] == 1  # what the text advises


@pytest.mark.slow
def test_a_plain_grey_photo_goes_to_review_and_stops_nobodys_night(world: World, fallback_model: Path) -> None:
    world.promote(world.services.registry.register(fallback_model, created_by="test").model)
    fill(world, 2)
    grey = world.put("R-9/grey.jpg", plain(128))
    assert world.night("r1") == {"photos": 3, "classified": 3, "rejected": 0, "unchanged": 0}
    decided = "SELECT d.kind, d.reasons FROM refund.decision d JOIN refund.photo USING (photo_date, photo_id)"
    assert world.rows(f"{decided} WHERE key = '{grey}'") == [("review", ["not_a_product"])]
