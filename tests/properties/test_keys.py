"""Any key: what is read from it, and that the bucket gives back the same bytes under the same name."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from refund import keys
from refund.errors import AccessDeniedError, SettingsError
from refund.settings import S3Access
from refund.store.objects import ObjectStore
from tests.conftest import make_bucket
from tests.night.conftest import DAY, World
from tests.night.factories import jpeg
from tests.properties.conftest import examples
from tests.properties.hostile import FOLDER, KEYS

ODD = st.sampled_from([*("..", ".", "/", "//", "%", "%2F", "+"), *" \n\r\t\0\u202e\ud800\udcffé"])
DAY_LIKE = st.from_regex(r"\A\d{4}-\d{2}-\d{2}\Z") | st.sampled_from(["2026-11-21", "２０２６-11-21"])
PART = ODD | st.text(max_size=6) | DAY_LIKE
KEY = st.lists(PART, max_size=8).map("".join) | st.lists(PART, max_size=6).map("/".join)
ETAG = st.text("0123456789abcdef-", max_size=6)
PREFIX = st.sampled_from(["incoming/", "a/b/", "2026-11-21/"])
REASON = st.sampled_from(["corrupt", "unsupported_format"])
SAME = ("corrupt", "corrupt")


def marked(etag: str) -> str:
    return hashlib.sha256(etag.encode()).hexdigest()[:8]


# --- what is read from a key ----------------------------------------------------------------------------------------


@given(prefix=PREFIX, below=st.booleans(), tail=KEY)
@example(prefix="incoming/", below=True, tail="٢٠٢٦-١١-٢١/R/a.jpg")  # digits, but not those of a date folder
@example(prefix="incoming/", below=True, tail="2026-11-21\n/R/a.jpg")
@examples(120)
def test_a_date_is_read_exactly_from_a_date_folder(prefix: str, *, below: bool, tail: str) -> None:
    key = prefix + tail if below else tail
    day = keys.photo_date(key, prefix=prefix)
    refund = keys.refund_id(key, prefix=prefix)
    if day != keys.UNDATED:
        assert key.startswith(keys.date_prefix(prefix, day))  # a listing of that folder finds it
    else:
        assert refund is None
    if refund is not None:
        assert refund
        assert "/" not in refund
        assert key.startswith(f"{keys.date_prefix(prefix, day)}{refund}/")


@given(one=st.tuples(KEY, ETAG), other=st.tuples(KEY, ETAG))
@examples(80)
def test_only_the_same_version_has_the_same_identity(one: tuple[str, str], other: tuple[str, str]) -> None:
    ids = [keys.photo_id(bucket="b", key=key, etag=etag) for key, etag in (one, other)]
    assert (ids[0] == ids[1]) == (one == other)
    assert keys.photo_id(bucket="b2", key=one[0], etag=one[1]) != ids[0]


# what a copy's name may look like, dots and marks in any place
NAME = st.lists(
    st.sampled_from([".", "~", ".~", "a", "jpg", ".jpg", "%", "~6e340b9c", "~d41d8cd9.", "é", "\n", "/"]), max_size=6
).map("".join)


@given(
    one=st.tuples(KEY | NAME, ETAG),
    other=st.tuples(KEY | NAME, ETAG),
    reasons=st.tuples(REASON, REASON),
    long=st.integers(0, 1024),
    folders=st.booleans(),
)
@example(one=("a.~" + marked("2"), "1"), other=("a~" + marked("1") + ".", "2"), reasons=SAME, long=0, folders=False)
@example(one=("a", "1"), other=("a~" + marked("1"), "2"), reasons=SAME, long=0, folders=False)
@example(one=("a.jpg", "1"), other=("a.jpg", "2"), reasons=SAME, long=0, folders=False)
@example(one=("x" * 1000, "1"), other=("x" * 1000, "2"), reasons=SAME, long=0, folders=True)
@examples(150)
def test_quarantined_versions_never_meet_and_fit(
    one: tuple[str, str], other: tuple[str, str], reasons: tuple[str, str], long: int, *, folders: bool
) -> None:
    versions = [(f"incoming/{one[0]}", one[1]), (f"incoming/{other[0]}" + ("/x" if folders else "x") * long, other[1])]
    targets = [
        keys.quarantine_key(key, etag=etag, run_date=DAY, reason=reason)
        for (key, etag), reason in zip(versions, reasons, strict=True)
    ]
    for target, reason in zip(targets, reasons, strict=True):
        assert target.startswith(f"quarantine/2026-11-21/{reason}/")
        assert len(target.encode("utf-8", "surrogatepass")) <= keys.MAX_KEY_BYTES
        assert len(target.rpartition("/")[2].encode("utf-8", "surrogatepass")) <= keys.MAX_NAME_BYTES
    assert (targets[0] == targets[1]) == ((versions[0], reasons[0]) == (versions[1], reasons[1]))
    # nor does a key meet one that is named like its copy
    for folder in ("incoming/", ""):
        name = folder + targets[1].rpartition("/")[2]
        lookalike = keys.quarantine_key(name, etag=other[1], run_date=DAY, reason=reasons[1])
        assert lookalike != targets[1]


# --- the same at a server -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3_moto() -> Iterator[S3Access]:
    """Moto's server, mended: its routes do not match a line break, so it answers 404 to keys that S3 takes."""
    utilities = pytest.importorskip("moto.moto_server.utilities")
    server_module = pytest.importorskip("moto.server")
    plain = utilities.RegexConverter.__init__

    def over_lines(self: Any, url_map: Any, *items: Any) -> None:
        plain(self, url_map, *items)
        self.regex = f"(?s:{self.regex})"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utilities.RegexConverter, "__init__", over_lines)
        server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        access = S3Access(bucket="keys", endpoint_url=f"http://{host}:{port}", access_key="test", secret_key="test")
        make_bucket(access)
        yield access
        server.stop()


def body(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def test_every_hostile_key_comes_back_with_its_bytes_and_its_name(s3_moto: S3Access) -> None:
    objects = ObjectStore(s3_moto)
    assert len(set(KEYS)) == len(KEYS) >= 60
    for key in KEYS:
        objects.put(key, body(key))
    listed = {item.key: item for item in objects.list(FOLDER)}
    assert set(listed) == set(KEYS)
    for key, item in listed.items():
        assert objects.get(key, etag=item.etag, size_bytes=32) == body(key), key
        found = objects.head(key)
        assert found is not None
        assert (found.key, found.etag) == (key, item.etag)
        target = keys.quarantine_key(key, etag=item.etag, run_date=DAY, reason="corrupt")
        objects.copy(key, target)
        assert objects.get(target) == body(key), key
    assert {item.key for item in objects.list("quarantine/")} == {
        keys.quarantine_key(key, etag=item.etag, run_date=DAY, reason="corrupt") for key, item in listed.items()
    }
    for key in KEYS:
        objects.delete(key)
    assert list(objects.list(FOLDER)) == []


def test_a_key_that_is_no_text_is_refused_before_it_is_sent(s3_moto: S3Access) -> None:
    """S3's keys are UTF-8, which has no lone surrogates."""
    with pytest.raises(SettingsError, match=r"is malformed: .*surrogates not allowed"):
        ObjectStore(s3_moto).put(f"{FOLDER}\ud800.jpg", b"")


def test_a_server_that_refuses_a_key_is_named_with_the_key(s3_nanio: S3Access) -> None:
    """The embedded server keeps objects as files; `refund upload` shows this text."""
    with pytest.raises(AccessDeniedError) as caught:
        ObjectStore(s3_nanio).put(f"{FOLDER}R-1//b.jpg", b"x")
    assert str(caught.value).startswith(
        f"S3 at {s3_nanio.place} refused to write 'incoming/2026-11-21/R-1//b.jpg': "
        f"An error occurred (InvalidObjectName)"
    )


def test_a_night_of_hostile_keys_gives_each_its_verdict_under_exactly_its_name(world: World) -> None:
    bad = set(KEYS[::7])
    for number, key in enumerate(KEYS):
        content = b"not a picture" if key in bad else jpeg(number, width=64, height=48)
        world.services.objects.put(key, content, content_type="image/jpeg")
    counts = world.night("r1", shard_size=25)
    assert counts == {
        "photos": len(KEYS), "classified": len(KEYS) - len(bad), "rejected": len(bad), "unchanged": 0,
    }  # fmt: skip
    found = world.rows("SELECT key, photo_id::text, outcome, rejection_reason, refund_id FROM reporting.photos")
    etags = {item.key: item.etag for item in world.services.objects.list(FOLDER)}
    assert sorted(found) == sorted(
        (
            key.replace("\0", "\ufffd"),  # Postgres cannot store it; the identity is that of the real key
            str(keys.photo_id(bucket=world.s3.bucket, key=key, etag=etags[key])),
            *(("rejected", "not_an_image") if key in bad else ("classified", None)),
            (refund := keys.refund_id(key, prefix="incoming/")) and refund.replace("\0", "\ufffd"),
        )
        for key in KEYS
    )
    for key in bad:
        target = keys.quarantine_key(key, etag=etags[key], run_date=DAY, reason="not_an_image")
        assert world.services.objects.get(target) == b"not a picture"
    assert world.rows("SELECT adds_up FROM reporting.reconciliation") == [(True,)]
    report = world.services.repository.get_report(run_id="r1")
    assert report is not None
    bucket = f"s3://{world.s3.bucket}/"
    page, sheet = (
        world.services.objects.get(uri.removeprefix(bucket)).decode() for uri in (report.html_uri, report.csv_uri)
    )
    assert "<script>alert" not in page
    assert not {"\u202e", "\x1b", "\0"} & set(page + sheet)
    lines = list(csv.reader(io.StringIO(sheet, newline=""), strict=True))
    assert {len(line) for line in lines} == {6}
    examples_told = [line for line in lines if line[4] == "example_key"]
    assert examples_told
    assert world.night("r2") == {"photos": len(KEYS), "classified": 0, "rejected": 0, "unchanged": len(KEYS)}
    assert len(world.rows("SELECT key FROM reporting.photos")) == len(KEYS)
