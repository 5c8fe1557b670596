"""Month partitions: made ahead by the night and by `refund migrate`, and what is told where one is in the way."""

from __future__ import annotations

import logging
from datetime import date

import psycopg2
import pytest

from refund.errors import PartitionError
from refund.store.database import Database
from refund.store.migrate import migrate
from refund.store.partitions import MONTHS_AHEAD, ensure_partitions, ensure_partitions_ahead, try_partitions_ahead
from refund.store.publish import publish
from tests.conftest import Roles
from tests.store.factories import NOON, Photo, begin, counts, night, rows, shard

TABLES = ("photo", "run_photo", "prediction", "decision")
PHOTO = Photo(key="incoming/2026-11-21/R1/a.jpg", refund_id="R1")
PARTITIONS = """
SELECT i.inhparent::regclass::text, i.inhrelid::regclass::text, pg_get_expr(c.relpartbound, c.oid)
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE c.relkind = 'r' ORDER BY 1, 2
"""


def months_of(roles: Roles, table: str) -> list[str]:
    names = [name for parent, name, _ in rows(roles.owner, PARTITIONS) if parent == f"refund.{table}"]
    return [name.removeprefix(f"refund.{table}_") for name in names]


def by_hand(roles: Roles, *statements: str) -> None:
    with Database(roles.owner).connect() as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def take_away(roles: Roles, month: str) -> None:
    """Drop a month that the migration made ahead."""
    for table in reversed(TABLES):
        if month in months_of(roles, table):
            part = f"refund.{table}_{month}"
            by_hand(roles, f"ALTER TABLE refund.{table} DETACH PARTITION {part}", f"DROP TABLE {part}")


def test_migrating_makes_the_months_ahead_also_where_no_migration_is_missing(roles: Roles) -> None:
    ((today,),) = rows(roles.owner, "SELECT current_date")
    ahead = [
        month for (month,) in rows(
            roles.owner,
            "SELECT to_char(date_trunc('month', current_date) + n * interval '1 month', 'YYYYMM') "
            "FROM generate_series(0, %s) n", MONTHS_AHEAD,
        )
    ]  # fmt: skip
    for table in TABLES:
        assert months_of(roles, table) == ["197001", *ahead]
    take_away(roles, ahead[-1])
    assert migrate(roles.owner) == []
    assert months_of(roles, "decision") == ["197001", *ahead]
    assert ensure_partitions_ahead(Database(roles.app), today=today) == 0


def test_a_published_night_makes_the_months_ahead_of_it_once(roles: Roles, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for month in ("202612", "202701", "202702"):
        take_away(roles, month)
    night(roles.app, "r1", PHOTO)  # on 2026-11-22
    assert {"202611", "202612", "202701", "202702"} <= set(months_of(roles, "photo"))
    assert [message for message in caplog.messages if "months ahead" in message] == [
        "Made 12 partitions for the months ahead"
    ]
    caplog.clear()
    night(roles.app, "r2", PHOTO)
    assert "months ahead" not in caplog.text


def test_a_dry_run_makes_none(roles: Roles) -> None:
    take_away(roles, "202702")
    begin(roles.app, "r1")
    publish(
        Database(roles.app), run_id="r1", shards=[shard(PHOTO)], unchanged=None, expected=counts(PHOTO),
        audit_share=0.0, at=NOON, dry_run=True,
    )  # fmt: skip
    assert "202702" not in months_of(roles, "photo")


@pytest.mark.parametrize(
    ("year", "made"),
    [
        pytest.param(2061, ["refund.photo_late_2061 {of} ('2061-12-01') TO ('2062-01-01')"], id="another name"),
        pytest.param(2062, ["refund.photo_2062 {of} ('2062-01-01') TO ('2063-01-01')"], id="wider"),
        pytest.param(
            2063,
            [
                "refund.photo_a {of} ('2063-12-01') TO ('2063-12-11')",
                "refund.photo_b {of} ('2063-12-11') TO ('2064-01-09')",
            ],
            id="in two",
        ),
    ],
)
def test_what_holds_the_whole_month_is_taken_as_it_is(database: Roles, year: int, made: list[str]) -> None:
    by_hand(database, *(f"CREATE TABLE {part.format(of='PARTITION OF refund.photo FOR VALUES FROM')}" for part in made))
    day = date(year, 12, 31)
    assert ensure_partitions(Database(database.app), [day]) == 3
    assert ensure_partitions(Database(database.app), [day]) == 0


def test_a_partition_of_other_bounds_is_told_with_what_it_holds(database: Roles) -> None:
    by_hand(
        database,
        "CREATE TABLE refund.decision_2081_1 PARTITION OF refund.decision "
        "FOR VALUES FROM ('2081-11-20') TO ('2081-12-11')",
    )
    with pytest.raises(PartitionError) as caught:
        ensure_partitions(Database(database.app), [date(2081, 12, 24)])
    assert str(caught.value) == (
        "refund.decision has no room for all of 2081-12: refund.decision_2081_1 there holds 10 of its 31 days; "
        "expected partitions that hold the whole month, or none of it. Make those for the other days by hand (CREATE "
        "TABLE … PARTITION OF refund.decision …), or detach refund.decision_2081_1"
    )
    assert "208112" not in months_of(database, "photo")  # all of a month or nothing


def test_a_table_of_the_name_that_is_no_partition_is_told_with_the_way_to_attach_it(database: Roles) -> None:
    ensure_partitions(Database(database.app), [date(2071, 12, 24)])
    by_hand(database, "ALTER TABLE refund.prediction DETACH PARTITION refund.prediction_207112")
    with pytest.raises(PartitionError) as caught:
        ensure_partitions(Database(database.app), [date(2071, 12, 24)])
    attach = (
        "ALTER TABLE refund.prediction ATTACH PARTITION refund.prediction_207112 FOR VALUES FROM ('2071-12-01') TO "
        "('2072-01-01')"
    )
    assert str(caught.value) == (
        f"refund.prediction_207112 is there but is no partition of refund.prediction for 2071-12; expected none of "
        f"that name, or one with these bounds. Attach it ({attach}), or give it another name"
    )
    by_hand(database, attach)
    assert ensure_partitions(Database(database.app), [date(2071, 12, 24)]) == 0


def test_rows_in_a_default_partition_are_told(roles: Roles) -> None:
    night(roles.app, "r1", PHOTO)
    by_hand(
        roles,
        "CREATE TABLE refund.photo_rest PARTITION OF refund.photo DEFAULT",
        "INSERT INTO refund.photo (photo_date, photo_id, bucket, key, etag, size_bytes, first_run_id) "
        "VALUES ('2091-12-24', gen_random_uuid(), 'b', 'k', 'e', 1, 'r1')",
    )
    with pytest.raises(PartitionError, match=r"default partition of refund\.photo holds rows of 2091-12; .*detach it"):
        ensure_partitions(Database(roles.app), [date(2091, 12, 24)])
    assert ensure_partitions(Database(roles.app), [date(2092, 1, 1)]) == 4  # an empty month beside it is made


def test_a_month_of_the_night_without_a_place_publishes_nothing(roles: Roles) -> None:
    take_away(roles, "202611")
    by_hand(roles, "CREATE TABLE refund.photo_202611 (photo_date date)")
    begin(roles.app, "r1")
    with pytest.raises(PartitionError, match=r"refund\.photo_202611 is there but is no partition of refund\.photo"):
        publish(
            Database(roles.app), run_id="r1", shards=[shard(PHOTO)], unchanged=None, expected=counts(PHOTO),
            audit_share=0.0, at=NOON,
        )  # fmt: skip
    assert rows(roles.analyst, "SELECT state FROM reporting.runs") == [("running",)]


def test_a_month_ahead_without_a_place_is_a_note_of_the_published_night(
    roles: Roles, caplog: pytest.LogCaptureFixture
) -> None:
    take_away(roles, "202702")
    by_hand(roles, "CREATE TABLE refund.photo_202702 (photo_date date)")
    night(roles.app, "r1", PHOTO)
    ((state, notes),) = rows(roles.analyst, "SELECT state, notes FROM reporting.runs")
    assert state == "published"
    assert len(notes) == 1
    assert "months ahead could not be made: refund.photo_202702 is there but is no partition" in notes[0]
    assert "could not be made" in caplog.text
    if rows(roles.owner, "SELECT current_date BETWEEN '2026-11-01' AND '2027-02-28'") == [(True,)]:
        with pytest.raises(PartitionError, match=r"photo_202702 is there"):
            migrate(roles.owner)


def test_readers_that_hold_the_tables_put_the_months_ahead_off_to_the_next_night(
    roles: Roles, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("refund.store.partitions.AHEAD_LOCK_TIMEOUT", "50ms")
    take_away(roles, "202702")
    reader = psycopg2.connect(
        host=roles.analyst.host, port=roles.analyst.port, user=roles.analyst.user, password=roles.analyst.password,
        dbname=roles.analyst.database,
    )  # fmt: skip
    try:
        reader.cursor().execute("SELECT count(*) FROM reporting.photos")
        assert try_partitions_ahead(Database(roles.app), today=date(2026, 11, 22)) is None
    finally:
        reader.close()
    assert "the next night tries again" in caplog.text
    assert try_partitions_ahead(Database(roles.app), today=date(2026, 11, 22)) is None
    assert "202702" in months_of(roles, "photo")
