"""What drift is measured against, through whole nights: which nights count, and that a night is never its own."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from refund.night.drift_window import measure_drift
from refund.night.fetch import fetch_manifest
from refund.store.database import Database
from refund.store.drift import get_drift
from tests.night.conftest import DAY, World, fill


def measured(world: World, run_id: str, **over: Any) -> dict[str, tuple[int, int, int]]:
    """Photos of tonight, of the window, and the window's nights, by measure."""
    services = world.services
    row = replace(services.repository.require_run(run_id), **over)
    results = measure_drift(row, services.repository.night_figures(run_id), services)
    return {
        result.measure: (result.tonight_photos, result.reference_photos, result.reference_nights) for result in results
    }


def test_a_night_is_compared_with_the_nights_before_it_and_never_with_itself(world: World) -> None:
    yesterday = DAY - timedelta(days=1)
    fill(world, 6, day=yesterday)
    world.put("R-9/notes.jpg", b"this is not an image", day=yesterday)
    world.night("r1", day=yesterday)
    assert {row.status for row in get_drift(world.services.database, "r1")} == {"no_reference"}
    fill(world, 4)
    world.night("r2")
    assert measured(world, "r2")["category_shares"] == (4, 6, 1)
    assert measured(world, "r1")["category_shares"] == (6, 0, 0)  # a later night is no reference
    world.put("R-8/late.jpg", (world.services.objects.get(f"incoming/{DAY}/R-0/0.jpg")))
    world.night("r3")  # the same night once more
    assert measured(world, "r3")["category_shares"] == (5, 6, 1)


def test_nights_of_another_taxonomy_or_model_are_no_reference(world: World) -> None:
    fill(world, 4, day=DAY - timedelta(days=1))
    world.night("r1", day=DAY - timedelta(days=1))
    fill(world, 4)
    world.night("r2", late_days=0)
    assert measured(world, "r2")["category_shares"] == (4, 4, 1)
    assert measured(world, "r2", taxonomy_version="t2")["category_shares"] == (4, 0, 0)
    world.promote(world.register("2"))
    world.night("r3", late_days=0)  # decided anew by another model
    assert measured(world, "r3")["category_shares"] == (4, 0, 0)
    assert {row.status for row in get_drift(world.services.database, "r3")} == {"no_reference"}


def test_real_nights_and_made_up_ones_are_not_compared(world: World) -> None:
    fill(world, 4, day=DAY - timedelta(days=1))
    world.night("r1", day=DAY - timedelta(days=1))
    fill(world, 4)
    world.night("r2", late_days=0)
    with Database(world.roles.owner).connect() as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE refund.run SET synthetic = true WHERE run_id = 'r1'")
    assert measured(world, "r2")["category_shares"] == (4, 0, 0)
    assert measured(world, "r2", synthetic=True)["category_shares"] == (4, 4, 1)


def test_a_rollback_during_the_night_does_not_look_like_missing_photos(world: World) -> None:
    """Shares are those of the model that sorted most; photos and rejections are those of the whole night."""
    fill(world, 4, day=DAY - timedelta(days=1))
    world.night("r1", day=DAY - timedelta(days=1))
    world.promote(world.register("2"))
    fill(world, 6)
    run = world.start("r2", shard_size=4, late_days=0)
    first, second = fetch_manifest(run, world.services)
    world.shard(first, run)
    world.rollback()
    world.shard(second, run)
    world.finish(run)
    figures = world.services.repository.night_figures("r2")
    assert sorted(figures.model_counts.values()) in ([2, 4], [3, 3])
    tonight = measured(world, "r2")
    assert tonight["category_shares"][0] == max(figures.model_counts.values())
    assert {name: tonight[name][0] for name in ("volume", "rejection_rate")} == {"volume": 6, "rejection_rate": 6}


def test_no_photo_on_a_day_without_deliveries_is_not_judged(world: World) -> None:
    fill(world, 4, day=DAY - timedelta(days=1))
    world.night("r1", day=DAY - timedelta(days=1))
    world.night("r2", late_days=0)
    row, figures = world.services.repository.require_run("r2"), world.services.repository.night_figures("r2")

    def volume(weekdays: str) -> Any:
        settings = replace(world.services.settings, alert_no_photos=weekdays, drift_min_photos=1)
        results = measure_drift(row, figures, replace(world.services, settings=settings))
        return next(result for result in results if result.measure == "volume")

    expected = volume("mon, tue, wed, thu, fri, sat, sun")
    assert (expected.status, expected.distance) == ("drift", 1.0)
    without = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    without.pop(DAY.weekday())
    closed = volume(", ".join(without))
    assert (closed.status, closed.distance, closed.threshold) == ("insufficient_data", None, None)
