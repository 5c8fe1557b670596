"""Rejected photos put back after a fix: what is marked, what comes back from quarantine, what the next run does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from hashlib import md5, sha256
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
from refund.lifecycle.requeue import NothingToRequeueError, Requeued, requeue
from refund.night.fetch import fetch_manifest
from refund.night.services import Services
from refund.settings import S3Access
from refund.store.database import Database
from refund.store.objects import ListedObject, ObjectStore
from refund.store.parallel import AT_ONCE
from tests.conftest import Roles
from tests.night.conftest import DAY, World, world  # noqa: F401  (a fixture)
from tests.night.factories import jpeg
from tests.store.factories import MODEL, Photo, night, register_models, rows

BODY = b"rejected by a setting that was wrong"


def etag(body: bytes) -> str:
    return md5(body, usedforsecurity=False).hexdigest()


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


def test_of_two_versions_of_one_key_the_judged_one_comes_back(world: World) -> None:  # noqa: F811
    """Rejected in one night for one reason; then the first is uploaded again, and gone at last."""
    first, second = b"no image, the first", b"no image, the other"  # as long as each other
    for number, body in enumerate((first, second, first)):
        key = world.put("R-1/a.jpg", body)
        world.night(f"r{number}")
    copies = [item.key for item in world.services.objects.list("quarantine/")]
    assert sorted(map(world.services.objects.get, copies)) == [first, second]
    assert world.rows("SELECT etag FROM reporting.rejections JOIN refund.photo USING (photo_id)") == [(etag(first),)]
    world.services.objects.delete(key)
    back = requeue(reason="not_an_image", run_date=DAY, services=world.services, by="anna")
    assert (back.found, back.restored, back.renewed, back.put_back) == (1, 1, 0, 1)
    assert world.services.objects.get(key) == first


# --- what lies in the bucket, case by case --------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Rejects:
    """Rejected photos of a run date of its own, in a real database and bucket."""

    services: Services
    roles: Roles
    run_date: date

    def key(self, name: str) -> str:
        return f"incoming/{self.run_date}/R-1/{name}"

    def publish(self, *names: str, days_before: int = 0, prefix: str = "incoming/", **params: Any) -> list[str]:
        """A night that rejected photos of these names as corrupt; all lie under their keys and in quarantine."""
        day = self.run_date - timedelta(days=days_before)
        found = [Photo(key=f"{prefix}{day}/R-1/{name}", etag=etag(BODY), day=day, reason="corrupt") for name in names]
        for photo in found:
            for key in (photo.key, f"quarantine/{photo.key}"):
                self.services.objects.put(key, BODY)
        params = {"review_threshold": 0.5, "prefix": prefix, **params}
        run_id = f"{self.run_date}-{prefix}-{days_before}"
        night(self.roles.app, run_id, *found, run_date=self.run_date, params=params)
        rows_changed = "UPDATE refund.photo SET bucket = %s, size_bytes = %s WHERE first_run_id = %s RETURNING key"
        rows(self.roles.app, rows_changed, self.services.objects.bucket, len(BODY), run_id)
        return [photo.key for photo in found]

    def hash_known(self, body: bytes) -> None:
        """As if the night had read this body of every photo."""
        change = "UPDATE refund.photo SET sha256 = %s WHERE first_run_id LIKE %s RETURNING key"
        assert rows(self.roles.app, change, sha256(body).hexdigest(), f"{self.run_date}-%")

    def requeue(self, **over: Any) -> Requeued:
        services = self.services
        if objects := over.pop("objects", None):
            services = replace(services, objects=objects)
        return requeue(**{"reason": "corrupt", "run_date": self.run_date, "services": services, "by": "anna", **over})

    def marked(self) -> list[str]:
        sql = "SELECT key FROM reporting.rejections WHERE requeued_at IS NOT NULL AND run_date = %s ORDER BY key"
        return [key for (key,) in rows(self.roles.app, sql, self.run_date)]


class WatchedStore(ObjectStore):
    """The real bucket, where something else happens when a key is looked at."""

    def __init__(self, objects: ObjectStore, when: Callable[[str], None]) -> None:
        super().__init__(objects.access)
        self.when = when

    def head(self, key: str, *, ask_bucket: bool = True) -> ListedObject | None:
        self.when(key)
        return super().head(key, ask_bucket=ask_bucket)


_dates = iter(date(2026, 3, 1) + timedelta(days=number) for number in range(200))


@pytest.fixture
def rejects(services: Services, database: Roles) -> Rejects:
    register_models(database)
    return Rejects(services=services, roles=database, run_date=next(_dates))


def test_a_photo_overwritten_since_is_told_and_not_marked(rejects: Rejects) -> None:
    same, other = rejects.publish("a.jpg", "b.jpg")
    rejects.services.objects.put(other, b"another version")
    done = rejects.requeue()
    assert (done.found, done.there, done.put_back, done.overwritten) == (2, 1, 1, (other,))
    assert rejects.marked() == [same]
    assert rejects.services.objects.get(other) == b"another version"


def test_a_photo_gone_here_and_in_quarantine_is_lost(rejects: Rejects) -> None:
    gone, cut, kept = rejects.publish("a.jpg", "b.jpg", "c.jpg")
    for key in (gone, f"quarantine/{gone}", cut):
        rejects.services.objects.delete(key)
    rejects.services.objects.put(f"quarantine/{cut}", BODY[:-1])  # not this photo
    done = rejects.requeue()
    assert (done.there, done.restored, done.lost) == (1, 0, (gone, cut))
    assert rejects.marked() == [kept]
    assert rejects.services.objects.head(cut) is None


def test_a_copy_with_other_bytes_is_not_this_photo(rejects: Rejects) -> None:
    """As many bytes, but not those of the hash that the night took."""
    (key,) = rejects.publish("a.jpg")
    rejects.services.objects.delete(key)
    rejects.services.objects.put(f"quarantine/{key}", BODY.upper())
    rejects.hash_known(BODY)
    assert rejects.requeue().lost == (key,)
    rejects.hash_known(BODY.upper())  # its ETag is another for another cause, say encryption
    assert rejects.requeue().renewed == 1
    assert rejects.services.objects.get(key) == BODY.upper()


def test_a_copy_with_another_etag_is_a_new_version(rejects: Rejects) -> None:
    """As of objects that were uploaded in parts or are encrypted; here other bytes, as many, stand for it."""
    (key,) = rejects.publish("a.jpg")
    rejects.services.objects.delete(key)
    rejects.services.objects.put(f"quarantine/{key}", BODY.upper())
    dry = rejects.requeue(dry_run=True)
    assert (dry.restored, dry.renewed, rejects.services.objects.head(key)) == (1, 1, None)
    done = rejects.requeue()
    assert (done.restored, done.renewed, done.put_back) == (1, 1, 1)
    assert rejects.services.objects.get(key) == BODY.upper()


def test_what_is_uploaded_meanwhile_is_never_overwritten(rejects: Rejects) -> None:
    (key,) = rejects.publish("a.jpg")
    objects = rejects.services.objects
    objects.delete(key)
    upload = WatchedStore(objects, lambda seen: objects.put(key, b"new") if seen.startswith("quarantine/") else None)
    done = rejects.requeue(objects=upload)
    assert (done.overwritten, done.put_back, rejects.marked()) == ((key,), 0, [])
    assert objects.get(key) == b"new"


def test_any_key_comes_back_from_quarantine(rejects: Rejects) -> None:
    names = ("a b.jpg", "100%.jpg", "%2e%2e/x.jpg", "a+b&c=d?.jpg", "é☃.jpg", "x//y.jpg", "../up.jpg")
    keys = rejects.publish(*names)
    for key in keys:
        rejects.services.objects.delete(key)
    done = rejects.requeue()
    assert (done.restored, done.renewed, done.lost, done.put_back) == (len(names), 0, (), len(names))
    assert [rejects.services.objects.get(key) for key in keys] == [BODY] * len(names)
    assert rejects.marked() == sorted(keys)


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
