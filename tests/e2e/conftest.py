"""The nights of the live end-to-end tests, each run once and asked by several tests.

Each night depends on the one before it, so that their order never depends on which tests are chosen.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from refund.local.samples import REJECTED_SAMPLES, SAMPLES, write_samples
from tests.conftest import REPOSITORY
from tests.e2e.driver import DAG, Driver, Night, await_that, make_champion
from tests.imaging.test_odd_files import VERDICTS
from tests.local.live import LiveStack

SHARED_IMAGES = REPOSITORY.parent / "shared" / "images"
# The day on which the schedule fired last (02:00), read once: a session may pass midnight.
TODAY = (datetime.now(UTC) - timedelta(hours=2)).date()


def day(ago: int) -> str:
    """The date so many days before the schedule fired last."""
    return (TODAY - timedelta(days=ago)).isoformat()


YESTERDAY = day(1)


@pytest.fixture(scope="session")
def driver(live_stack: LiveStack, request: pytest.FixtureRequest) -> Iterator[Driver]:
    """The session's stack with a champion: MobileNetV2 of the stand-in weights, else the packaged network."""
    name = "standin_model" if SHARED_IMAGES.is_dir() else "fallback_model"
    made = make_champion(live_stack.home, request.getfixturevalue(name))
    yield made
    made.close()


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos in refund folders: the labelled and the odd ones beside the checkout, else the samples of the package."""
    folder = tmp_path_factory.mktemp("photos")
    if not SHARED_IMAGES.is_dir():
        write_samples(folder)
        return folder
    for number, path in enumerate(sorted((SHARED_IMAGES / "imagenet").iterdir())):
        _link(path, folder / f"R-{2001 + number // 5}" / path.name)
    for path in (SHARED_IMAGES / "odd").iterdir():
        _link(path, folder / "R-odd" / path.name)
    return folder


@pytest.fixture(scope="session")
def verdicts(photos: Path) -> dict[str, str | None]:
    """The reason code expected of every photo by its path below ``photos``; None: it is classified."""
    if not SHARED_IMAGES.is_dir():
        return {sample.path: None for sample in SAMPLES} | REJECTED_SAMPLES
    found = [path.relative_to(photos).as_posix() for path in photos.rglob("*") if path.is_file()]
    return {path: VERDICTS[Path(path).name] if path.startswith("R-odd/") else None for path in found}


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    shutil.copyfile(source, target)


# --- the nights, in the order in which they run --------------------------------------------------------------------


@pytest.fixture(scope="session")
def first_night(driver: Driver, photos: Path, verdicts: dict[str, str | None]) -> Night:
    """The night of yesterday on a stack whose DAG was never unpaused."""
    assert driver.api("GET", DAG)["is_paused"], "another test ran a night first: the first one is to be this"
    uploaded = driver.refund("upload", photos, "--date", YESTERDAY, "--json").json
    assert uploaded == {"date": YESTERDAY, "uploaded": len(verdicts), "skipped": 0, "refused": []}
    return driver.night(YESTERDAY)


@pytest.fixture(scope="session")
def rows_after_first(driver: Driver, first_night: Night) -> dict[str, str]:
    """A digest of each table once the first night was published."""
    return digests(driver)


@pytest.fixture(scope="session")
def runs_after_first(driver: Driver, first_night: Night) -> list[dict[str, Any]]:
    """Every run that Airflow had after the first night."""
    runs: list[dict[str, Any]] = driver.api("GET", f"{DAG}/dagRuns")["dag_runs"]
    return runs


@pytest.fixture(scope="session")
def second_night(driver: Driver, rows_after_first: dict[str, str], runs_after_first: list[dict[str, Any]]) -> Night:
    """The same date again."""
    return driver.night(YESTERDAY)


@pytest.fixture(scope="session")
def rows_after_second(driver: Driver, second_night: Night) -> dict[str, str]:
    """A digest of each table after the second night."""
    return digests(driver)


@pytest.fixture(scope="session")
def strict_night(driver: Driver, rows_after_second: dict[str, str]) -> Night:
    """The same date with a threshold that hardly a photo reaches."""
    return driver.night(YESTERDAY, "review_threshold=0.99")


BACKFILLED = (day(12), day(11), day(10))  # the first has no photos


@pytest.fixture(scope="session")
def backfill(driver: Driver, strict_night: Night, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """A backfill of three dates through Airflow's REST API; returns its runs."""
    folder = tmp_path_factory.mktemp("backfill")
    write_samples(folder)
    for date, refund in zip(BACKFILLED[1:], ("R-1001", "R-1010"), strict=True):
        driver.refund("upload", folder / refund, "--refund-id", refund, "--date", date)
    body = {
        "dag_id": "refund_nightly",
        "from_date": f"{BACKFILLED[0]}T00:00:00Z",
        "to_date": f"{BACKFILLED[-1]}T23:59:59Z",
        "max_active_runs": 1,
    }
    driver.api("POST", "/api/v2/backfills", json=body)

    def runs() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = driver.api("GET", f"{DAG}/dagRuns", params={"run_type": "backfill"})["dag_runs"]
        return sorted(found, key=lambda run: str(run["partition_key"]))

    await_that(lambda: bool(runs()) and all(run["state"] in {"success", "failed"} for run in runs()))
    return runs()


@pytest.fixture(scope="session")
def unknown_model_night(driver: Driver, backfill: list[dict[str, Any]]) -> Night:
    """A night that is told to use a model that nobody registered."""
    return driver.night(day(9), "model=nosuch@1", code=1)


@pytest.fixture(scope="session")
def altered_model_night(driver: Driver, unknown_model_night: Night) -> Iterator[Night]:
    """A night whose model was altered in the bucket, on a worker without a copy of its own; mended afterwards."""
    with driver.services() as services:
        row = services.registry.resolve("champion")
        key = row.uri.removeprefix(services.objects.uri("")) + row.card.artefact_file
        whole = services.objects.get(key)
        services.objects.put(key, whole[:-1] + bytes([whole[-1] ^ 1]), content_type="application/octet-stream")
        shutil.rmtree(driver.home / "cache" / row.model)
        try:
            night = driver.night(day(9), code=1)
        finally:
            services.objects.put(key, whole, content_type="application/octet-stream")
    return night


@pytest.fixture(scope="session")
def late_night(driver: Driver, altered_model_night: Night, tmp_path_factory: pytest.TempPathFactory) -> Night:
    """The night after the backfilled ones; meanwhile a photo came in for a date that was published already."""
    folder = tmp_path_factory.mktemp("late")
    write_samples(folder)
    driver.refund("upload", folder / "R-1002", "--refund-id", "R-late", "--date", BACKFILLED[-1])
    return driver.night(day(9))


def digests(driver: Driver) -> dict[str, str]:
    """MD5 of every row, in key order, of the tables that a night publishes to; the log of runs is left out."""
    return {
        table: driver.sql(
            f"SELECT md5(coalesce(string_agg(t::text, E'\\n' ORDER BY t::text), '')) FROM refund.{table} t {where}"
        )[0][0]
        for table, where in (
            ("photo", ""),
            ("prediction", ""),
            ("decision", ""),
            ("run_photo", "WHERE outcome <> 'unchanged'"),
        )
    }
