"""Rejected photos that are gone: which come back from quarantine, and which are lost."""

from __future__ import annotations

import pytest

from refund.lifecycle.requeue import requeue
from refund.night.persist import persist_run
from refund.store.objects import ObjectStore
from tests.lifecycle.rejects import BODY, Rejects, WatchedStore, etag
from tests.night.conftest import DAY, World, world  # noqa: F401  (a fixture)


def test_of_two_versions_of_one_key_the_judged_one_comes_back(world: World) -> None:  # noqa: F811
    """Rejected in one night for one reason; then the first is uploaded again, and gone at last."""
    first, second = b"no image, the first", b"no image, the other"  # as long as each other
    for number, body in enumerate((first, second, first)):
        key = world.put("R-1/a.jpg", body)
        run = world.start(f"r{number}")
        world.stage(run)
        persist_run(run, world.services)
    copies = [item.key for item in world.services.objects.list("quarantine/")]
    assert sorted(map(world.services.objects.get, copies)) == [first, second]
    assert world.rows("SELECT etag FROM reporting.rejections JOIN refund.photo USING (photo_id)") == [(etag(first),)]
    world.services.objects.delete(key)
    back = requeue(reason="not_an_image", run_date=DAY, services=world.services, by="anna")
    assert (back.found, back.restored, back.renewed, back.put_back) == (1, 1, 0, 1)
    assert world.services.objects.get(key) == first


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


class Uploading(ObjectStore):
    """The real bucket, where somebody uploads a photo at the last moment before it is copied back."""

    def __init__(self, objects: ObjectStore, body: bytes | None) -> None:
        super().__init__(objects.access)
        self.body = body  # None: and deletes it at once

    def copy(self, source: str, target: str, *, etag: str | None = None, absent: bool = False) -> bool:
        self.put(target, self.body or b"")
        copied = super().copy(source, target, etag=etag, absent=absent)
        if self.body is None:
            self.delete(target)
        return copied


@pytest.mark.usefixtures("s3_heeding")
def test_what_is_uploaded_at_the_last_moment_is_not_overwritten_where_the_server_heeds_the_condition(
    rejects: Rejects,
) -> None:
    key, same, gone = rejects.publish("a.jpg", "b.jpg", "c.jpg")
    objects = rejects.services.objects
    for prefix, body in ((key, b"new"), (same, BODY), (gone, None)):
        objects.delete(prefix)
        done = rejects.requeue(objects=Uploading(objects, body), key_prefix=prefix)
        found = (done.overwritten, done.there, done.lost)
        assert found == {key: ((key,), 0, ()), same: ((), 1, ()), gone: ((), 0, (gone,))}[prefix]
    assert objects.get(key) == b"new"
    assert rejects.marked() == [same]
