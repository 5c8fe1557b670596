"""S3 that answers with errors, too slowly, too short or not at all: what a night makes of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from refund.errors import AccessDeniedError, BucketMissingError, ObjectStoreUnavailableError
from refund.night.fetch import fetch_manifest
from refund.night.generate_report import write_report
from refund.night.persist import persist_run
from refund.night.services import NightRun, RunLayout, open_services
from refund.store.objects import ObjectStore
from tests.faults.catalogue import Watch, fault
from tests.faults.s3_proxy import QUICK, Rule, S3Proxy, s3_proxy
from tests.faults.tables import night_tables
from tests.faults.undisturbed import RUN_ID, check_clean, fill, said, undisturbed
from tests.night.conftest import World

RETRIES = "the task retries by itself; if its retries ran out, clear it"
EQUAL = "as in an undisturbed night"
NEXT_NIGHT = "the next night looks at the photo again"
BUT_ONE = "as in an undisturbed night but for that photo, which is `rejected: {reason}`"
PHOTO = "R-1/2.jpg"


@contextmanager
def broken(world: World) -> Iterator[tuple[World, S3Proxy]]:
    """The world, nine photos in it, behind a proxy that breaks nothing yet."""
    fill(world)
    with (
        s3_proxy(world.s3) as proxy,
        open_services(settings=world.services.settings, s3=proxy.access, database=world.roles.app) as services,
    ):
        yield (
            replace(world, services=replace(services, objects=ObjectStore(proxy.access, patience=QUICK))),
            proxy,
        )


def recover(world: World, proxy: S3Proxy, run: NightRun, *, fetch: bool = False) -> None:
    """The server is well again and the failed task runs again, and those after it: all as if nothing had been."""
    assert proxy.broke() > 0 or not proxy.rules  # none: the server was down
    proxy.rules.clear()
    assert world.rows("SELECT count(*) FROM refund.run_photo") == [(0,)]  # nothing published until now
    layout = RunLayout(staging=world.services.staging, run_id=RUN_ID)
    if fetch:
        assert not world.services.staging.exists(layout.plan)
        world.stage(run)
    else:
        world.shard(layout.shard(0), run)
    assert world.finish(run) == {"photos": 9, "classified": 6, "rejected": 3, "unchanged": 0}
    check_equal(world)


def check_equal(world: World) -> None:
    assert night_tables(world.roles.app) == undisturbed(world)
    check_clean(world)


def check_photos_fail(
    world: World, watch: Watch, *rules: Rule, error: type[Exception] = ObjectStoreUnavailableError
) -> None:
    """The task validate fails over these rules, rejects nothing, and after recovery the tables are equal."""
    with broken(world) as (behind, proxy):
        run = behind.start(RUN_ID)
        (shard,) = fetch_manifest(run, behind.services)
        proxy.rules.extend(rules)
        with pytest.raises(error) as caught:
            behind.shard(shard, run)
        watch.check_seen(said(caught.value))
        recover(behind, proxy, run)


def check_one_photo_fails(world: World, watch: Watch, rule: Rule, *, reason: str) -> None:
    """The night is published without that photo, and the next night takes it."""
    with broken(world) as (behind, proxy):
        proxy.rules.append(rule)
        assert behind.night(RUN_ID) == {"photos": 9, "classified": 5, "rejected": 4, "unchanged": 0}
        assert proxy.broke() >= 3
        sql = f"SELECT reason || ': ' || detail FROM reporting.rejections WHERE reason = '{reason}'"
        watch.check_seen("\n".join(text for (text,) in behind.rows(sql)))
        ((photo_id,),) = behind.rows(f"SELECT photo_id FROM refund.photo WHERE key LIKE '%{PHOTO}'")
        found, wanted = night_tables(behind.roles.app), undisturbed(behind)
        for table in ("photo", "run_photo", "prediction", "decision"):
            differing = set(map(repr, found[table])) ^ set(map(repr, wanted[table]))
            assert differing
            assert all(str(photo_id) in row for row in differing)
        assert behind.rows("SELECT adds_up FROM reporting.reconciliation") == [(True,)]
        proxy.rules.clear()
        assert behind.night("the next one") == {"photos": 9, "classified": 1, "rejected": 0, "unchanged": 8}


@fault(
    part="S3",
    what="it answers 503 Slow Down to the first requests for every object, then as ever",
    seen="Validated 9 photos for tiny@1, rejected 3",
    recovery="none needed: it is asked again within the task",
    after=EQUAL,
)
def test_errors_that_pass_within_the_task(world: World, watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    with broken(world) as (behind, proxy):
        run = behind.start(RUN_ID)
        (shard,) = fetch_manifest(run, behind.services)
        names = ["0.jpg", "1.jpg", "2.jpg", "notes.jpg"]
        proxy.rules += [Rule(do="status", key=f"/{name}", times=2) for name in names]
        proxy.rules.append(Rule(do="status", method="PUT", key="quarantine/", times=1))
        with caplog.at_level(logging.INFO):
            behind.shard(shard, run)
        watch.check_seen(caplog.text)
        assert proxy.broke() == 2 * len(names) + 1
        behind.finish(run)
        check_equal(behind)


@pytest.mark.slow
@fault(
    part="S3",
    what="it lists, but answers 500 Internal Error for every object, for long",
    seen="ObjectStoreUnavailableError: S3 at http://… lists bucket …, but … of 9 photos could not be read, too many "
    "for a fault of theirs, for example 'incoming/…': An error occurred (InternalError) … The task retries",
    recovery=RETRIES,
    after=EQUAL,
)
def test_errors_for_long(world: World, watch: Watch) -> None:
    check_photos_fail(world, watch, Rule(do="status", key="/incoming/", status=500, code="InternalError"))


@pytest.mark.slow
@fault(
    part="S3",
    what="one object is answered with 500 Internal Error for ever",
    seen="unreadable: bucket … answers and gives out other photos, but this object could not be read in … rounds: "
    "An error occurred (InternalError) when calling the GetObject operation",
    recovery=NEXT_NIGHT,
    after=BUT_ONE.format(reason="unreadable"),
)
def test_one_object_in_error(world: World, watch: Watch) -> None:
    rule = Rule(do="status", key=PHOTO, status=500, code="InternalError")
    check_one_photo_fails(world, watch, rule, reason="unreadable")


@pytest.mark.slow
@fault(
    part="S3",
    what="one object's body stalls for ever",
    seen="unreadable: bucket … answers and gives out other photos, but this object could not be read in … rounds: "
    "only … bytes came in … s",
    recovery=NEXT_NIGHT,
    after=BUT_ONE.format(reason="unreadable"),
)
def test_one_body_that_stalls(world: World, watch: Watch) -> None:
    check_one_photo_fails(world, watch, Rule(do="stall", key=PHOTO, after_bytes=2000), reason="unreadable")


@pytest.mark.slow
@fault(
    part="S3",
    what="every body comes at a few bytes a second",
    seen="ObjectStoreUnavailableError: S3 at http://… could not be read, too many for a fault of theirs, for example "
    "…: only … bytes came in … s. The task retries",
    recovery=RETRIES,
    after=EQUAL,
)
def test_bodies_that_trickle(world: World, watch: Watch) -> None:
    check_photos_fail(world, watch, Rule(do="slow", key="/incoming/", bytes_per_s=200))


@pytest.mark.slow
@fault(
    part="S3",
    what="every connection is cut in the middle of a body",
    seen="ObjectStoreUnavailableError: S3 at http://… could not be read, too many for a fault of theirs, for example "
    "…: 1000 read, but total bytes expected is …. The task retries",
    recovery=RETRIES,
    after=EQUAL,
)
def test_connections_cut_in_every_body(world: World, watch: Watch) -> None:
    check_photos_fail(world, watch, Rule(do="cut", key="/incoming/", after_bytes=1000))


@pytest.mark.slow
@fault(
    part="S3",
    what="the connection is cut in the middle of one body, every time",
    seen="body_mismatch: bucket … answers and gives out other photos, but this object could not be read in … rounds: "
    "it came with a body that broke off",
    recovery=NEXT_NIGHT,
    after=BUT_ONE.format(reason="body_mismatch"),
)
def test_one_body_that_is_cut(world: World, watch: Watch) -> None:
    check_one_photo_fails(world, watch, Rule(do="cut", key=PHOTO, after_bytes=1000), reason="body_mismatch")


@pytest.mark.slow
@fault(
    part="S3",
    what="one body is one byte shorter than was listed, and announced so",
    seen="body_mismatch: … this object could not be read in … rounds: it came with … bytes, listed were …",
    recovery=NEXT_NIGHT,
    after=BUT_ONE.format(reason="body_mismatch"),
)
def test_one_body_that_is_too_short(world: World, watch: Watch) -> None:
    check_one_photo_fails(world, watch, Rule(do="shorter", key=PHOTO), reason="body_mismatch")


@pytest.mark.slow
@fault(
    part="S3",
    what="one body is one byte longer than was listed, and announced so",
    seen="body_mismatch: … this object could not be read in … rounds: it came with … bytes, listed were …",
    recovery=NEXT_NIGHT,
    after=BUT_ONE.format(reason="body_mismatch"),
)
def test_one_body_that_is_too_long(world: World, watch: Watch) -> None:
    check_one_photo_fails(world, watch, Rule(do="longer", key=PHOTO), reason="body_mismatch")


@pytest.mark.slow
@fault(
    part="S3",
    what="the bucket is removed in the middle of a shard",
    seen="BucketMissingError: bucket … does not exist at http://…; create it, or correct service_config.s3.bucket_name",
    recovery="put the bucket back, clear the task `validate`",
    after=EQUAL,
)
def test_a_bucket_that_goes(world: World, watch: Watch) -> None:
    rule = Rule(do="status", skip=4, status=404, code="NoSuchBucket")
    check_photos_fail(world, watch, rule, error=BucketMissingError)


@pytest.mark.slow
@fault(
    part="S3",
    what="the credentials are withdrawn in the middle of a shard",
    seen="AccessDeniedError: S3 at http://… refused to list bucket …: An error occurred (InvalidAccessKeyId) … Correct "
    "login and password of the Airflow connection refund_s3",
    recovery="correct the connection, clear the task `validate`",
    after=EQUAL,
)
def test_credentials_that_are_withdrawn(world: World, watch: Watch) -> None:
    rule = Rule(do="status", skip=4, status=403, code="InvalidAccessKeyId")
    check_photos_fail(world, watch, rule, error=AccessDeniedError)


@pytest.mark.slow
@fault(
    part="S3",
    what="the right to read objects is withdrawn in the middle of a shard",
    seen="AccessDeniedError: S3 at http://… refuses photos that it gave out a moment ago: … Give the user of the "
    "Airflow connection refund_s3 the right to read (s3:GetObject) back",
    recovery="give the right back, clear the task `validate`",
    after=EQUAL,
)
def test_a_right_that_is_withdrawn(world: World, watch: Watch) -> None:
    rule = Rule(do="status", key="/incoming/", skip=4, status=403, code="AccessDenied")
    check_photos_fail(world, watch, rule, error=AccessDeniedError)


@pytest.mark.slow
@fault(
    part="S3",
    what="the listing of the night's photos is cut in its middle",
    seen="ObjectStoreUnavailableError: S3 at http://… did not list 'incoming/2026-11-21/': … The task retries",
    recovery=RETRIES,
    after=EQUAL,
)
def test_a_listing_that_is_cut(world: World, watch: Watch) -> None:
    check_fetch_fails(world, watch, Rule(do="cut", key="prefix=incoming/2026-11-21/", after_bytes=400))


def check_fetch_fails(world: World, watch: Watch, *rules: Rule, down: bool = False) -> None:
    with broken(world) as (behind, proxy):
        run = behind.start(RUN_ID)
        proxy.rules.extend(rules)
        if down:
            proxy.down()
        with pytest.raises(ObjectStoreUnavailableError) as caught:
            fetch_manifest(run, behind.services)
        watch.check_seen(said(caught.value))
        if down:
            proxy.up()
        recover(behind, proxy, run, fetch=True)


@pytest.mark.slow
@fault(
    part="S3",
    what="the server is down when the task `fetch` runs",
    seen="ObjectStoreUnavailableError: S3 at http://… did not list 'incoming/…': Could not connect to the endpoint URL",
    recovery=RETRIES,
    after=EQUAL,
)
def test_a_server_that_is_down_in_fetch(world: World, watch: Watch) -> None:
    check_fetch_fails(world, watch, down=True)


@pytest.mark.slow
@fault(
    part="S3",
    what="the server goes down in the middle of the task `validate`",
    seen="ObjectStoreUnavailableError: S3 at http://… did not list bucket …: Connection was closed before we received "
    "a valid response",
    recovery=RETRIES,
    after=EQUAL,
)
def test_a_server_that_goes_down_in_validate(world: World, watch: Watch) -> None:
    check_photos_fail(world, watch, Rule(do="cut", method="", skip=4, after_bytes=-1))


@pytest.mark.slow
@fault(
    part="S3",
    what="the server goes down while rejected photos are copied to quarantine",
    seen="ObjectStoreUnavailableError: S3 at http://… did not copy 'incoming/…' to 'quarantine/…': Connection was "
    "closed before we received a valid response",
    recovery=RETRIES,
    after=EQUAL,
)
def test_a_server_that_goes_down_in_quarantine(world: World, watch: Watch) -> None:
    check_photos_fail(world, watch, Rule(do="cut", method="PUT", key="/quarantine/", skip=1, after_bytes=-1))


@pytest.mark.slow
@fault(
    part="S3",
    what="the server goes down while the report is written",
    seen="ObjectStoreUnavailableError: S3 at http://… did not write 'reports/…/report.csv': Connection was closed "
    "before we received a valid response",
    recovery=RETRIES,
    after="as in an undisturbed night; they were published before",
)
def test_a_server_that_goes_down_in_the_report(world: World, watch: Watch) -> None:
    with broken(world) as (behind, proxy):
        run = behind.start(RUN_ID)
        behind.stage(run)
        persist_run(run, behind.services)
        proxy.rules.append(Rule(do="cut", method="PUT", key="report.csv", after_bytes=-1))
        with pytest.raises(ObjectStoreUnavailableError) as caught:
            write_report(run, behind.services)
        watch.check_seen(said(caught.value))
        assert proxy.broke() > 0
        proxy.rules.clear()
        behind.finish(run)
        check_equal(behind)
