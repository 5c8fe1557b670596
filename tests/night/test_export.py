"""The export of a night, through the real stages: what lies in the bucket, and when it is written."""

from __future__ import annotations

import io
import json
import re
from datetime import timedelta
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from refund import __version__
from refund.errors import AccessDeniedError, ReconciliationError
from refund.keys import export_key
from refund.night.generate_report import write_report
from refund.schemas import decisions_schema
from tests.conftest import REPOSITORY
from tests.night.conftest import DAY, World, fill
from tests.night.factories import jpeg

KEY = f"exports/{DAY}/decisions.parquet"
NEXT_DAY = DAY + timedelta(days=1)


def frame(world: World, key: str = KEY) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(world.services.objects.get(key)))


def metadata(world: World, key: str = KEY) -> dict[str, str]:
    found = pq.read_schema(io.BytesIO(world.services.objects.get(key))).metadata
    return {name.decode(): value.decode() for name, value in found.items() if name.startswith(b"refund.")}


def exports(world: World) -> list[str]:
    return [item.key for item in world.services.objects.list("exports/")]


def test_the_file_has_one_row_per_refund_as_reporting_refunds_says(world: World) -> None:
    fill(world)
    world.put("R-0/broken.jpg", jpeg(50)[:900])
    world.put("loose.jpg", jpeg(51))
    world.night("r1", review_threshold=0.05)
    table = frame(world)
    columns = [
        "refund_id", "photos", "classified", "rejected", "category", "categories", "photos_agree", "needs_review",
    ]  # fmt: skip
    assert [tuple(row) for row in table[columns].itertuples(index=False)] == world.rows(
        f"SELECT {', '.join(columns)} FROM reporting.refunds ORDER BY refund_id"
    )
    assert table["run_date"].unique().tolist() == [DAY]
    assert table["run_id"].unique().tolist() == ["r1"]
    assert pq.read_schema(io.BytesIO(world.services.objects.get(KEY))).equals(decisions_schema())
    assert metadata(world) | {"refund.generated_at": "", "refund.taxonomy_version": ""} == {
        "refund.schema_version": "1",
        "refund.run_date": DAY.isoformat(),
        "refund.run_id": "r1",
        "refund.models": "tiny@1",
        "refund.taxonomy_version": "",
        "refund.code_version": __version__,
        "refund.generated_at": "",
        "refund.photos_without_refund": "1",
    }
    assert world.rows("SELECT export_uri FROM refund.report") == [(world.services.objects.uri(KEY),)]


def test_an_older_run_that_is_cleared_late_leaves_the_file_in_the_name_of_the_newest(world: World) -> None:
    fill(world, 2)
    older = world.start("r1")
    world.stage(older)
    world.put("R-9/new.jpg", jpeg(90))
    world.night("r2")
    before = frame(world).drop(columns="generated_at")
    world.finish(older)  # r1 fails before persist and is cleared after r2
    pd.testing.assert_frame_equal(frame(world).drop(columns="generated_at"), before)
    assert metadata(world)["refund.run_id"] == "r2"


def test_dry_runs_and_made_up_nights_write_none(world: World) -> None:
    fill(world, 2)
    world.night("dry", dry_run=True)
    assert exports(world) == []
    run = world.start("r1")
    world.stage(run)
    with world.services.database.connect() as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE refund.run SET synthetic = true")
    world.finish(run)
    assert exports(world) == []


def test_a_night_that_does_not_add_up_is_not_exported(world: World) -> None:
    fill(world, 2)
    run = world.start("r1")
    world.stage(run)
    from refund.night.persist import persist_run

    persist_run(run, world.services)
    with world.services.database.connect() as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE refund.run SET packed = 7")
    with pytest.raises(ReconciliationError):
        write_report(run, world.services)
    assert exports(world) == []


@pytest.mark.slow
def test_a_bucket_that_refuses_the_file_fails_the_task(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from moto.s3.models import S3Backend

    put = S3Backend.put_object

    def refuse(self: Any, bucket_name: str, key_name: str, *rest: Any, **more: Any) -> Any:
        if key_name.startswith("exports/"):
            from moto.s3.exceptions import S3AccessDeniedError

            raise S3AccessDeniedError
        return put(self, bucket_name, key_name, *rest, **more)

    world.night("r1")
    assert len(frame(world)) == 0  # a night without photos: a file without rows
    fill(world, 2)
    run = world.start("r2")
    world.stage(run)
    monkeypatch.setattr(S3Backend, "put_object", refuse)
    with pytest.raises(AccessDeniedError, match="exports/"):
        world.finish(run)
    assert metadata(world)["refund.run_id"] == "r1"  # the file of before is whole
    monkeypatch.undo()
    write_report(run, world.services)  # the task is tried again
    assert metadata(world)["refund.run_id"] == "r2"
    assert frame(world)["refund_id"].tolist() == ["R-0"]


@pytest.mark.slow
def test_the_next_night_has_a_file_of_its_own_with_all_photos_of_a_refund(world: World) -> None:
    fill(world, 2)
    world.night("r1")
    fill(world, 2, day=NEXT_DAY)
    world.put("R-7/late.jpg", jpeg(70))
    world.night("r2", day=NEXT_DAY)
    assert exports(world) == [KEY, export_key(run_date=NEXT_DAY)]
    table = frame(world, export_key(run_date=NEXT_DAY))
    assert dict(zip(table["refund_id"], table["photos"], strict=True)) == {"R-0": 4, "R-7": 1}


def test_the_page_shows_every_column_and_reads_the_file(world: World) -> None:
    page = (REPOSITORY / "docs" / "exports.md").read_text(encoding="utf-8")
    assert re.findall(r"(?m)^\| `(\w+)` \| ([^|]+) \|", page) == [
        (field.name, str(field.type)) for field in decisions_schema()
    ]
    fill(world, 4)
    world.night("r1", review_threshold=0.01)
    for block in re.findall(r"```json\n(.*?)```", page, re.DOTALL):
        json.loads(block)
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for shown, meant in {
        "https://s3.example.com": world.s3.endpoint_url,
        "refund-photos": world.s3.bucket,
        "2026-11-21": DAY.isoformat(),
    }.items():
        assert shown in code
        code = code.replace(shown, str(meant))
    found: dict[str, Any] = {}
    exec(code, found)  # noqa: S102 -- a block of our own page
    auto = {refund for (refund,) in world.rows("SELECT refund_id FROM reporting.refunds WHERE photos_agree")}
    assert set(found["refunds"]["refund_id"]) == {"R-0", "R-1"}
    assert set(found["to_pay"]["refund_id"]) == auto - set(found["to_look_at"]["refund_id"])
