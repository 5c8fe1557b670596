"""Rejected photos put back after a fix: what is marked, what is told, what the next run does."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from refund.errors import (
    AccessDeniedError,
    BucketMissingError,
    DatabaseUnavailableError,
    ObjectStoreUnavailableError,
    ReasonCode,
    SettingsError,
)
from refund.lifecycle.requeue import NothingToRequeueError, requeue
from refund.night.fetch import fetch_manifest
from refund.settings import S3Access
from refund.store.database import Database
from refund.store.objects import ListedObject, ObjectStore
from refund.store.parallel import AT_ONCE
from tests.lifecycle.rejects import BODY, Rejects, WatchedStore, etag
from tests.night.conftest import DAY, World, world  # noqa: F401  (a fixture)
from tests.night.factories import jpeg
from tests.store.factories import MODEL, Photo, night, rows


def test_the_whole_circle_from_a_wrong_setting_to_a_verdict(world: World) -> None:  # noqa: F811
    wrong = replace(world, services=replace(world.services, settings=replace(world.services.settings, max_side_px=200)))
    long_name = "R-3/" + "é" * 490 + ".jpg"  # 1,009 bytes with its folder: too long for quarantine
    large = [world.put(name, jpeg(seed)) for seed, name in enumerate(("R-1/a.jpg", "R-2/gone.jpg", long_name))]
    small = world.put("R-4/small.jpg", jpeg(9, width=100, height=100))
    world.put("R-5/notes.txt", b"no image")
    run = wrong.start("r1", shard_size=10)
    (shard,) = fetch_manifest(run, wrong.services)
    taken = world.services.objects.get(small)
    world.services.objects.delete(small)
    wrong.shard(shard, run)
    assert wrong.finish(run) == {"photos": 5, "classified": 0, "rejected": 5, "unchanged": 0}

    for key in large[1:]:
        world.services.objects.delete(key)  # somebody tidied up
    back = requeue(reason="too_large", run_date=DAY, services=world.services, by="anna", why="max_side_px is 4096")
    assert (back.found, back.there, back.restored, back.renewed, back.put_back) == (3, 1, 2, 0, 3)
    assert back.next_runs == ({"run_date": "2026-11-21"},)
    assert [world.services.objects.get(key) for key in large] == [jpeg(seed) for seed in range(3)]
    world.services.objects.put(small, taken)  # vanished, and restored by hand
    restored = requeue(reason="vanished", run_date=DAY, services=world.services, by="anna")
    assert (restored.found, restored.there, restored.put_back) == (1, 1, 1)
    marked = "SELECT reason, count(*) FROM reporting.rejections WHERE requeued_at IS NOT NULL GROUP BY 1 ORDER BY 1"
    assert world.rows(marked) == [("too_large", 3), ("vanished", 1)]
    assert world.rows("SELECT actor, subject, details ->> 'why' FROM refund.audit WHERE action = 'requeue'") == [
        ("anna", "2026-11-21/too_large", "max_side_px is 4096"),
        ("anna", "2026-11-21/vanished", None),
    ]
    again = requeue(reason="too_large", run_date=DAY, services=world.services, by="anna")
    assert (again.found, again.already, again.put_back, again.next_runs) == (3, 3, 0, back.next_runs)

    assert world.night("r2") == {"photos": 5, "classified": 4, "rejected": 0, "unchanged": 1}
    assert world.rows("SELECT reason FROM reporting.rejections") == [("not_an_image",)]
    superseded = "SELECT run_id, superseded_by, count(*) FROM refund.run_photo WHERE superseded_by <> '' GROUP BY 1, 2"
    assert world.rows(superseded) == [("r1", "r2", 4)]
    assert world.rows("SELECT run_id, adds_up, packed, predicted FROM reporting.reconciliation ORDER BY 1") == [
        ("r1", True, 5, 0),
        ("r2", True, 4, 4),
    ]
    with pytest.raises(
        NothingToRequeueError, match=r"no rejection by 'too_large' .*; standing there: 1 not_an_image\."
    ):
        requeue(reason="too_large", run_date=DAY, services=world.services, by="anna")


# --- what lies in the bucket, case by case --------------------------------------------------------------------------


def test_a_photo_overwritten_since_is_told_and_not_marked(rejects: Rejects) -> None:
    same, other = rejects.publish("a.jpg", "b.jpg")
    rejects.services.objects.put(other, b"another version")
    done = rejects.requeue()
    assert (done.found, done.there, done.put_back, done.overwritten) == (2, 1, 1, (other,))
    assert rejects.marked() == [same]
    assert rejects.services.objects.get(other) == b"another version"


def test_a_dry_run_writes_nothing(rejects: Rejects) -> None:
    _, gone = rejects.publish("a.jpg", "b.jpg")
    rejects.services.objects.delete(gone)
    done = rejects.requeue(dry_run=True)
    assert (done.dry_run, done.there, done.restored, done.put_back) == (True, 1, 1, 2)
    assert rejects.services.objects.head(gone) is None
    assert rejects.marked() == []
    assert rows(rejects.roles.app, "SELECT FROM refund.audit WHERE subject = %s", f"{rejects.run_date}/corrupt") == []


def test_killed_between_the_copies_and_the_marks_it_does_the_rest_when_run_again(rejects: Rejects) -> None:
    class NoWrites(Database):
        def connect(self, *, readonly: bool = False) -> Any:
            if not readonly:
                raise DatabaseUnavailableError("gone")
            return super().connect(readonly=True)

    there, gone = rejects.publish("a.jpg", "b.jpg")
    rejects.services.objects.delete(gone)
    with pytest.raises(DatabaseUnavailableError):
        rejects.requeue(services=replace(rejects.services, database=NoWrites(rejects.roles.app)))
    assert rejects.services.objects.get(gone) == BODY
    assert rejects.marked() == []
    done = rejects.requeue()
    assert (done.there, done.restored, done.put_back) == (2, 0, 2)
    assert rejects.marked() == [there, gone]


def test_what_a_night_decides_meanwhile_stays_decided(rejects: Rejects) -> None:
    first, second = rejects.publish("a.jpg", "b.jpg")
    decided = threading.Event()

    def decide(key: str) -> None:
        if key == first:
            photo = Photo(key=first, etag=etag(BODY), day=rejects.run_date)
            params = {"review_threshold": 0.5, "force": True}
            night(rejects.roles.app, f"later-{rejects.run_date}", photo, run_date=rejects.run_date, params=params)
            decided.set()
        assert decided.wait(30)

    done = rejects.requeue(objects=WatchedStore(rejects.services.objects, decide))
    assert (done.found, done.there, done.decided, done.put_back) == (2, 2, 1, 1)
    assert rejects.marked() == [second]


def test_only_keys_that_begin_so(rejects: Rejects) -> None:
    rejects.publish("a_1.jpg", "ab1.jpg", "100%.jpg")
    done = rejects.requeue(key_prefix=rejects.key("a_"))
    assert (done.found, rejects.marked()) == (1, [rejects.key("a_1.jpg")])
    assert rejects.requeue(key_prefix=rejects.key("100%")).put_back == 1
    with pytest.raises(NothingToRequeueError, match=r"3 corrupt\. Expected --key-prefix with which one of the 3 keys"):
        rejects.requeue(key_prefix="incoming/elsewhere/")


def test_the_next_run_reaches_back_and_decides_nothing_else_anew(rejects: Rejects) -> None:
    rejects.publish("a.jpg", review_threshold=0.6, model=MODEL)
    assert rejects.requeue().next_runs == (
        {"run_date": str(rejects.run_date), "model": MODEL, "review_threshold": 0.6},
    )
    rejects.publish("b.jpg", days_before=5, prefix="other/")
    assert rejects.requeue().next_runs[1] == {"run_date": str(rejects.run_date), "prefix": "other/", "late_days": 5}


def test_undated_photos_are_always_listed(rejects: Rejects) -> None:
    rejects.publish("a.jpg", days_before=(rejects.run_date - date(1970, 1, 1)).days)
    assert rejects.requeue().next_runs == ({"run_date": str(rejects.run_date)},)


def test_photos_are_looked_at_side_by_side_and_boundedly(rejects: Rejects) -> None:
    limit = AT_ONCE
    rejects.publish(*(f"{number}.jpg" for number in range(2 * limit)))
    together = threading.Barrier(limit, timeout=30)  # breaks unless so many look at once
    lock, now, most = threading.Lock(), [0], [0]

    class Counting(WatchedStore):
        def head(self, key: str, *, ask_bucket: bool = True) -> ListedObject | None:
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            together.wait()
            try:
                return ObjectStore.head(self, key, ask_bucket=ask_bucket)
            finally:
                with lock:
                    now[0] -= 1

    assert rejects.requeue(objects=Counting(rejects.services.objects, lambda _: None)).put_back == 2 * limit
    assert most[0] == limit


# --- what cannot be done --------------------------------------------------------------------------------------------


def refusing(objects: ObjectStore, *refused: str) -> ObjectStore:
    def refuse(key: str) -> None:
        if key in refused:
            raise AccessDeniedError("403")

    return WatchedStore(objects, refuse)


def test_a_photo_that_the_store_refuses_to_show_is_told(rejects: Rejects) -> None:
    refused, there, other = rejects.publish("a.jpg", "b.jpg", "c.jpg")
    done = rejects.requeue(objects=refusing(rejects.services.objects, refused))
    assert (done.refused, done.put_back, rejects.marked()) == ((refused,), 2, [there, other])


def test_a_store_that_refuses_to_show_any_is_a_fault_of_rights(rejects: Rejects) -> None:
    keys = rejects.publish("a.jpg", "b.jpg", "c.jpg")
    with pytest.raises(AccessDeniedError, match="refuses to look at every one of the 3 photos, so none was put back"):
        rejects.requeue(objects=refusing(rejects.services.objects, *keys))


def test_without_s3_nothing_is_marked(rejects: Rejects, monkeypatch: pytest.MonkeyPatch) -> None:
    rejects.publish("a.jpg")
    monkeypatch.setattr(time, "sleep", lambda _: None)  # botocore's pauses between its tries
    down = ObjectStore(replace(rejects.services.objects.access, endpoint_url="http://127.0.0.1:9"))
    with pytest.raises(ObjectStoreUnavailableError, match=r"did not look at 'incoming/"):
        rejects.requeue(objects=down)
    assert rejects.marked() == []


def test_a_bucket_that_is_missing_loses_no_photo(rejects: Rejects, s3_nanio: S3Access) -> None:
    gone = ObjectStore(replace(s3_nanio, bucket=rejects.services.objects.bucket))
    rejects.publish("a.jpg")
    with pytest.raises(BucketMissingError, match="create it, or correct"):
        rejects.requeue(objects=gone)
    assert rejects.marked() == []


def test_without_postgres_it_says_so(rejects: Rejects) -> None:
    nowhere = replace(rejects.roles.app, host="127.0.0.1", port=9)
    with pytest.raises(DatabaseUnavailableError, match=r"Postgres at .* could not be reached"):
        rejects.requeue(services=replace(rejects.services, database=Database(nowhere)))


def test_an_unknown_reason_is_answered_with_the_list(rejects: Rejects) -> None:
    with pytest.raises(SettingsError) as caught:
        rejects.requeue(reason="to_large")
    assert str(caught.value) == (
        f"'to_large' is no reason code; expected one of {', '.join(ReasonCode)} (docs/reason_codes.md)"
    )


def test_a_date_in_the_future_is_refused(rejects: Rejects) -> None:
    tomorrow = rejects.services.now().date() + timedelta(days=1)
    with pytest.raises(SettingsError, match=rf"run date {tomorrow} lies in the future; expected .* up to "):
        rejects.requeue(run_date=tomorrow)


def test_a_date_without_such_rejections_is_answered_with_those_that_stand(rejects: Rejects) -> None:
    with pytest.raises(NothingToRequeueError) as caught:
        rejects.requeue()
    assert str(caught.value) == (
        f"no rejection by 'corrupt' of run date {rejects.run_date} stands in bucket "
        f"{rejects.services.objects.bucket!r}; standing there: none. Expected --date as the run date, not the photo "
        f"date; what was put back and run again stands no more: see reporting.rejections"
    )
    rejects.publish("a.jpg", "b.jpg")
    with pytest.raises(NothingToRequeueError, match=r"standing there: 2 corrupt\. Expected --reason and --date among"):
        rejects.requeue(reason="too_large")
