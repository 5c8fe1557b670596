"""Made-up nights on a real Postgres and an S3 server: they add up, say what they are, and leave the real ones alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from refund.cli import demo as cli_demo
from refund.cli import load_app
from refund.cli.app import app
from refund.errors import NoModelError, SettingsError
from refund.lifecycle import demo as lifecycle_demo
from refund.lifecycle.demo import DemoLoaded, load_demo, remove_demo
from refund.lifecycle.demo_plan import SHIFTED_CATEGORY, DemoPlan
from refund.local.demo_pictures import cup_pictures
from refund.night.services import Services
from refund.store.alerts import raise_alert
from refund.store.database import Database
from refund.store.demo import DemoError, alone, begin_demo_run
from refund.store.drift import reference_nights
from refund.store.examples import example_photos
from refund.store.progress import night_progress
from refund.store.records import Alert
from tests.conftest import Roles
from tests.night.conftest import World, fill, new_world

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
LAST = date(2026, 11, 21)
SHIFTED = date(2026, 11, 19)
PLAN = DemoPlan(nights=6, photos=120, ending=LAST, seed=1)
MARKED = """
SELECT c.table_name FROM information_schema.columns c JOIN information_schema.tables t USING (table_schema, table_name)
WHERE c.table_schema = 'refund' AND c.column_name = 'synthetic' AND t.table_type = 'BASE TABLE'
  AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = ('refund.' || c.table_name)::regclass)
ORDER BY 1
"""
TABLES = """
SELECT t.table_name FROM information_schema.tables t
WHERE t.table_schema = 'refund' AND t.table_type = 'BASE TABLE'
  AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = ('refund.' || t.table_name)::regclass)
ORDER BY 1
"""


def load(world: World, plan: DemoPlan = PLAN, **over: Any) -> DemoLoaded:
    services = replace(world.services, now=lambda: NOON)
    return load_demo(plan, services, **{"pictures": cup_pictures(2), "by": "ada", **over})


def everything(world: World) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table but the audit, which only grows."""
    return {
        table: sorted(world.rows(f"SELECT * FROM refund.{table}"), key=str)
        for (table,) in world.rows(TABLES)
        if table not in ("audit", "alembic_version")
    }


def objects(world: World) -> set[str]:
    return {item.key for item in world.services.objects.list("")}


@pytest.fixture(scope="module")
def both(postgres: Roles, s3_moto: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Two real nights, then the demo on the same dates: what was there before, and what the demo said."""
    with new_world(postgres, s3_moto, tmp_path_factory.mktemp("demo")) as world:
        for day in (LAST - timedelta(days=1), LAST):
            fill(world, 4, day=day)
            world.night(f"real-{day}", day=day)
        before = {"rows": everything(world), "objects": objects(world), "views": views(world)}
        yield {"world": world, "before": before, "loaded": load(world)}


@pytest.fixture
def world(postgres: Roles, s3_moto: Any, tmp_path: Path) -> Iterator[World]:
    """A world without any night."""
    with new_world(postgres, s3_moto, tmp_path) as made:
        yield made


def views(world: World) -> dict[str, list[tuple[Any, ...]]]:
    """What people and later nights read of real nights."""
    queue = "SELECT count(*) FROM reporting."
    return {
        "last_complete_night": world.rows("SELECT run_id, photos FROM reporting.last_complete_night"),
        **{view: world.rows(queue + view) for view in ("review_queue", "audit_queue", "model_accuracy")},
        "model_quality": world.rows(f"{queue}model_quality"),
    }


def test_every_made_up_night_adds_up_and_is_reported(both: dict[str, Any]) -> None:
    world, loaded = both["world"], both["loaded"]
    sums = world.rows(
        "SELECT run_date, manifest, adds_up FROM reporting.reconciliation WHERE run_id LIKE 'demo%' ORDER BY 1"
    )
    assert [(night.run_date, night.counts.photos, True) for night in loaded.nights] == sums
    assert [night.run_date for night in loaded.nights] == list(PLAN.dates)
    assert all(night.counts.rejected + night.counts.unchanged > 0 for night in loaded.nights[2:])
    assert 0.5 * 720 < loaded.photos < 1.5 * 720
    late = "SELECT count(*) FROM refund.run_photo o JOIN refund.run r USING (run_id) WHERE r.synthetic AND "
    assert world.rows(late + "o.outcome = 'classified' AND o.photo_date < r.run_date")[0][0] > 0
    for night in loaded.nights:
        page = Path(world.services.report_copy(night.report)).read_text(encoding="utf-8")
        assert "made up" in page.lower()


def test_every_table_that_can_say_so_marks_them(both: dict[str, Any]) -> None:
    """By the catalogue: a table that is added later is looked at as well."""
    world = both["world"]
    alert = Alert(rule="drift", dedupe_key="x", severity="info", run_id=f"demo__{LAST}", run_date=LAST, message="m")
    raise_alert(world.services.database, alert, at=NOON)  # so few photos raise none of their own
    marked = [table for (table,) in world.rows(MARKED)]
    assert {"run", "photo", "run_photo", "prediction", "decision", "review", "drift", "alert", "report"} <= set(marked)
    after = everything(world)
    for table in marked:
        made_up, real = (
            world.rows(f"SELECT count(*) FROM refund.{table} WHERE synthetic = {flag}")[0][0]
            for flag in ("true", "false")
        )
        assert made_up > 0, table
        assert real == len(both["before"]["rows"][table]), table
    unmarked = set(after) - set(marked) - {"notification"}
    assert {table: after[table] for table in unmarked} == {table: both["before"]["rows"][table] for table in unmarked}
    assert world.rows("SELECT count(*) FROM refund.notification") == [(0,)]  # nobody is told


def test_real_nights_are_neither_touched_nor_mixed_with_them(both: dict[str, Any]) -> None:
    world, before = both["world"], both["before"]
    after = everything(world)
    for table, found in before["rows"].items():
        assert set(map(str, found)) <= set(map(str, after[table])), table
    assert views(world) == before["views"]
    assert not [key for key in objects(world) - before["objects"] if not key.startswith(("demo/", "reports/"))]
    services = world.services
    model = services.registry.resolve("champion").model
    window = reference_nights(services.database, run_date=LAST + timedelta(days=1), model=model, count=28)
    assert [(night.run_date, night.classified) for night in window] == [(LAST - timedelta(days=1), 4), (LAST, 4)]
    assert night_progress(services.database, SHIFTED).published_at is None
    assert (services.repository.get_report() or pytest.fail("no report")).run_id == f"real-{LAST}"
    row = services.repository.require_run(f"demo__{LAST}")
    standing = services.repository.standing_outcomes(
        list(PLAN.dates), model=model, taxonomy_version=row.taxonomy_version, threshold=0.5, exclude_run_id="x"
    )
    assert len(standing) == 8  # the real ones alone are unchanged tonight
    assert {day for day, _ in services.repository.looked_at_dates()} == {LAST - timedelta(days=1), LAST}
    assert services.repository.night_figures(f"real-{LAST}").model_categories.keys() == {model}
    night = services.repository.night_figures(f"real-{LAST}")
    assert sum(night.model_categories[model].values()) == 4


def test_the_category_that_grows_has_pictures_and_its_night_a_verdict(both: dict[str, Any]) -> None:
    world, loaded = both["world"], both["loaded"]
    assert (loaded.shifted, loaded.shifted_category) == (SHIFTED, SHIFTED_CATEGORY)
    (night,) = [night for night in loaded.nights if night.run_date == SHIFTED]
    assert set(night.drift.values()) <= {"ok", "drift", "insufficient_data"}
    assert loaded.nights[0].drift["category_shares"] == "no_reference"
    (window,) = world.rows(
        f"SELECT reference_nights FROM refund.drift WHERE run_id = 'demo__{SHIFTED}' AND measure = 'category_shares'"
    )
    assert window == (3,)
    shown = example_photos(
        world.services.database, run_date=SHIFTED, category=SHIFTED_CATEGORY, count=2, synthetic=True
    )
    for photo in shown:
        assert photo.key.startswith(f"demo/{SHIFTED}/DEMO-")
        assert world.services.objects.get(photo.key, etag=photo.etag, size_bytes=photo.size_bytes)[:2] == b"\xff\xd8"
    assert len(shown) == 2


def test_a_second_load_finds_the_same_rows_and_another_plan_is_refused(both: dict[str, Any]) -> None:
    world = both["world"]
    before, stored = everything(world), objects(world)
    again = load(world)
    assert not any(night.new for night in again.nights)
    assert (everything(world), objects(world)) == (before, stored)
    with pytest.raises(DemoError) as caught:
        load(world, replace(PLAN, seed=2))
    assert str(caught.value) == (
        "made-up nights are there already, of: refund demo --nights 6 --photos 120 --ending 2026-11-21 --seed 1; asked "
        "for: refund demo --nights 6 --photos 120 --ending 2026-11-21 --seed 2. Two demos are never mixed: remove the "
        "one that is there first, with: refund demo --remove"
    )
    with alone(world.services.database), pytest.raises(DemoError, match="another refund demo is at work"):
        load(world)


@pytest.fixture
def command(both: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """``refund demo`` on these stores; which ones it reaches otherwise is `find_access`'s affair."""
    world = both["world"]

    @contextmanager
    def services() -> Iterator[Services]:
        yield world.services

    monkeypatch.setattr(cli_demo, "command_services", services)
    monkeypatch.setattr(cli_demo, "role_access", lambda role: {"owner": world.roles.owner}[role])
    load_app()
    return lambda *args: CliRunner().invoke(app, ["demo", *args], catch_exceptions=False)


def test_the_command_says_what_is_there_and_where_to_look(both: dict[str, Any], command: Callable[..., Result]) -> None:
    told = command("--nights", "6", "--photos", "120", "--ending", "2026-11-21")
    lines = told.stdout.splitlines()
    assert lines[0].startswith("6 made-up nights from 2026-11-16 to 2026-11-21, ")
    assert lines[0].endswith(" photos; 6 of them were there already")
    assert lines[1].startswith("On 2026-11-19 kitchen_dining was drawn ten points more often: ")
    assert lines[3].endswith("/2026-11-21/demo__2026-11-21/report.html")
    assert lines[4].startswith("Report of 2026-11-19")
    assert lines[-1] == "Every row says synthetic = true; remove them with: refund demo --remove"
    loaded = json.loads(command("--nights", "6", "--photos", "120", "--ending", "2026-11-21", "--json").stdout)
    assert [night["new"] for night in loaded["nights"]] == [False] * 6
    assert loaded["shifted"] == "2026-11-19"


def test_removal_takes_the_made_up_rows_and_objects_and_nothing_else(
    both: dict[str, Any], command: Callable[..., Result]
) -> None:
    """The last test of this file's demo; a person has reviewed a made-up photo meanwhile."""
    world, before = both["world"], both["before"]
    world.services.objects.put("demo/mine.jpg", b"x")
    with Database(world.roles.app).connect() as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO refund.review (photo_date, photo_id, category, reviewed_by, chosen_by) "
            "SELECT photo_date, photo_id, 'shoes', 'clerk', 'search' FROM refund.photo WHERE synthetic LIMIT 1"
        )
    told = command("--remove").stdout
    assert re.fullmatch(r"Removed 6 made-up nights: [\d,]+ rows, 14 objects\n", told)  # 2 pictures, 6 pages, 6 tables
    assert everything(world) == before["rows"]
    assert objects(world) == before["objects"] | {"demo/mine.jpg"}
    assert [path.name for path in Path(str(world.services.settings.report_dir)).rglob("demo__*")] == []
    assert command("--remove").stdout == "There are no made-up nights, so nothing was removed\n"
    audited = world.rows("SELECT action FROM refund.audit WHERE action LIKE 'demo%' ORDER BY audit_id")
    assert audited == [("demo_load",), ("demo_remove",)]


@pytest.mark.slow
@pytest.mark.parametrize("place", ["publish", "write_report", "raise_alerts"])
def test_a_load_that_was_killed_is_finished_by_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    plan = replace(PLAN, nights=3, photos=20)
    real, calls = getattr(lifecycle_demo, place), []

    def dies_in_the_second_night(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(lifecycle_demo, place, dies_in_the_second_night)
        with pytest.raises(KeyboardInterrupt):
            load(world, plan)
    finished = load(world, plan)
    assert [night.new for night in finished.nights] == [False, True, True]
    killed = {table: len(found) for table, found in everything(world).items()}
    remove_demo(world.services, Database(world.roles.owner), by="ada")
    load(world, plan)
    assert {table: len(found) for table, found in everything(world).items()} == killed


def test_a_made_up_night_that_was_left_halfway_is_not_under_way_for_a_real_one(world: World) -> None:
    model = world.services.registry.resolve("champion").model
    begin_demo_run(
        world.services.database,
        run_id=f"demo__{LAST}",
        run_date=LAST,
        model=model,
        taxonomy_version="t1",
        code_version="0",
        params={},
        note=PLAN.note,
        at=NOON,
    )
    assert world.rows("SELECT state, synthetic FROM refund.run") == [("running", True)]
    assert world.services.repository.nights_under_way(exclude_run_id="x", at=NOON) == set()


def test_what_cannot_be_loaded_is_refused_before_anything_is_written(world: World) -> None:
    with pytest.raises(SettingsError) as caught:
        load(world, replace(PLAN, ending=NOON.date()))
    assert str(caught.value) == ("--ending must be a night that is over, 2026-11-21 (UTC) or before; got 2026-11-22")
    with Database(world.roles.owner).connect() as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE refund.model_alias_history SET ended_at = now()")
    with pytest.raises(NoModelError, match="no model is registered as 'champion'"):
        load(world)
    assert world.rows("SELECT count(*) FROM refund.run") == [(0,)]
