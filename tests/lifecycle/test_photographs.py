"""Photographs in folders, buckets and CSVs: what is found, in what order, what is left alone, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from refund.errors import AccessDeniedError, FatalRunError, LabelledSetError, ReasonCode, RejectedPhotoError
from refund.lifecycle.photographs import (
    LabelledSet,
    Photograph,
    decode_photographs,
    find_photographs,
    labelled_photographs,
    read_bodies,
)
from refund.model.labels import load_labels
from refund.model.taxonomy import load_taxonomy
from refund.night.decoding import decode_bodies
from refund.night.services import Services
from refund.store.objects import ObjectStore
from tests.conftest import make_bucket
from tests.faults.s3_proxy import QUICK, Rule, s3_proxy
from tests.night.factories import jpeg

LABELS = load_labels()
TAXONOMY = load_taxonomy(labels=LABELS)
SHOE, TENCH = "n04120489", "n01440764"  # running shoe, a fish


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


def fill(folder: Path, *names: str) -> None:
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg(seed))


def labelled(where: str | Path, services: Services) -> LabelledSet:
    return labelled_photographs(str(where), taxonomy=TAXONOMY, labels=LABELS, services=services)


def refused(where: str | Path, services: Services) -> str:
    with pytest.raises(LabelledSetError) as caught:
        labelled(where, services)
    return str(caught.value)


def table(folder: Path, text: str | bytes) -> Path:
    path = folder / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# --- finding ---------------------------------------------------------------------------------------------------------


def test_a_folder_is_searched_to_the_bottom_in_order_by_extension(photos: Path, services: Services) -> None:
    fill(photos, "b/2.JPEG", "b/1.jpg", "a.PNG", "z.webp", "notes.txt", "jpg", ".hidden")
    found = find_photographs(str(photos), services=services)
    assert [Path(photo.place).relative_to(photos).as_posix() for photo in found] == [
        "a.PNG", "b/1.jpg", "b/2.JPEG", "z.webp",
    ]  # fmt: skip


def test_links_are_followed_inside_the_folder_only(photos: Path, tmp_path: Path, services: Services) -> None:
    fill(tmp_path, "elsewhere/secret.jpg", "photos/real.jpg")
    (photos / "out.jpg").symlink_to(tmp_path / "elsewhere" / "secret.jpg")
    (photos / "folder").symlink_to(tmp_path / "elsewhere")
    (photos / "dead.jpg").symlink_to(photos / "nothing.jpg")
    (photos / "in.jpg").symlink_to(photos / "real.jpg")
    found = find_photographs(str(photos), services=services)
    assert [Path(photo.place).name for photo in found] == ["in.jpg", "real.jpg"]


def test_a_prefix_of_any_bucket_is_searched(services: Services) -> None:
    other = replace(services.objects.access, bucket=f"{services.objects.bucket}-other")
    make_bucket(other)
    store = ObjectStore(other)
    for key in ("set/b.jpg", "set/a b/../ü.JPG", "set/readme.md", "set/", "setting/c.jpg"):
        store.put(key, b"x")
    found = find_photographs(f"s3://{other.bucket}/set", services=services)
    assert [photo.place for photo in found] == [
        f"s3://{other.bucket}/set/a b/../ü.JPG", f"s3://{other.bucket}/set/b.jpg",
    ]  # fmt: skip


def test_places_without_photographs_say_what_they_are(photos: Path, services: Services) -> None:
    fill(photos, "notes.txt")
    bucket = services.objects.bucket
    expected = "expected at least one file named *.jpg, *.jpeg, *.png, *.gif, *.bmp, *.webp"
    wanted = "expected a folder with photographs or s3://bucket/prefix/"
    for where, text in {
        str(photos): f"{photos} holds no photograph (1 other files); {expected}",
        f"s3://{bucket}/none/": f"s3://{bucket}/none/ holds no photograph (0 other files); {expected}",
        f"{photos}/gone": f"{photos}/gone is not there; {wanted}",
        f"{photos}/notes.txt": f"{photos}/notes.txt is no folder; {wanted}",
        "s3:///x": "s3:///x names no bucket; expected s3://bucket/prefix/ or s3://bucket/key",
        "s3://no-such-bucket/x/": (
            f"s3://no-such-bucket/x/ is not there, S3 at {services.objects.access.place} has no bucket "
            f"'no-such-bucket'; correct the name"
        ),
    }.items():
        with pytest.raises(LabelledSetError) as caught:
            find_photographs(where, services=services)
        assert str(caught.value) == text


# --- reading and decoding --------------------------------------------------------------------------------------------


def test_bodies_come_from_files_and_buckets_each_with_its_index_or_its_fault(photos: Path, services: Services) -> None:
    fill(photos, "a.jpg")
    services = replace(services, settings=replace(services.settings, max_bytes=50_000))
    (photos / "big.jpg").write_bytes(bytes(50_001))
    services.objects.put("set/big.jpg", bytes(50_001))
    services.objects.put("set/b.jpg", b"b")
    bucket = services.objects.bucket
    places = [
        f"s3://{bucket}/set/b.jpg", str(photos / "a.jpg"), f"s3://{bucket}/set/gone.jpg", str(photos / "gone.jpg"),
        str(photos / "big.jpg"), f"s3://{bucket}/set/big.jpg", f"s3://{bucket}/",
    ]  # fmt: skip
    found = dict(read_bodies([Photograph(place=place) for place in places], services=services))
    assert sorted(found) == list(range(7))
    assert (found[0], found[1]) == (b"b", (photos / "a.jpg").read_bytes())
    faults = {index: str(body) for index, body in found.items() if isinstance(body, RejectedPhotoError)}
    assert faults == {
        2: f"vanished: there is no such object in bucket {bucket!r}",
        3: "vanished: there is no such file",
        4: "file_too_large: 50,001 bytes, at most 50,000 are allowed",
        5: "file_too_large: 50,001 bytes, at most 50,000 are taken",
        6: f"vanished: there is no such object in bucket {bucket!r}",
    }


@pytest.mark.parametrize("everything", [False, True])
def test_an_object_that_s3_refuses_costs_itself_unless_all_are_refused(everything: bool, services: Services) -> None:
    for name in ("a", "b"):
        services.objects.put(f"set/{name}.jpg", name.encode())
    bucket, access = services.objects.bucket, services.objects.access
    rule = Rule(do="status", method="", key="" if everything else "set/b.jpg", status=403, code="AccessDenied")
    with s3_proxy(access, rule) as proxy:
        store = ObjectStore(proxy.access, patience=QUICK)
        refusal = (
            f"S3 at {proxy.access.endpoint_url} refused to look at 'set/{{}}.jpg': An error occurred (403) "
            "when calling the HeadObject operation: Forbidden. Correct login and password of the Airflow connection "
            f"refund_s3, or the rights of that user on bucket '{bucket}'"
        )
        given = [Photograph(place=f"s3://{bucket}/set/{name}.jpg") for name in ("b", "a")]  # as a CSV names them
        bodies = read_bodies(given, services=replace(services, objects=store))
        if everything:
            with pytest.raises(AccessDeniedError) as caught:
                list(bodies)
            assert str(caught.value) == refusal.format("b")
            return
        found = dict(bodies)
    assert found[1] == b"a"
    assert str(found[0]) == f"unreadable: {refusal.format('b')}"


def test_photographs_are_decoded_in_order_to_the_size_asked_for(
    photos: Path, tmp_path: Path, services: Services
) -> None:
    fill(photos, "a.jpg", "b.jpg", "c.jpg")
    (photos / "b.jpg").write_bytes(b"no image")
    found = find_photographs(str(photos), services=services)
    decoded = decode_photographs(found, size=(96, 64), services=services, folder=tmp_path)
    assert decoded.pixels.shape == (3, 64, 96, 3)
    assert [fact.reason for fact in decoded.facts] == [None, ReasonCode.NOT_AN_IMAGE, None]
    assert [bool(np.any(row)) for row in decoded.pixels] == [True, False, True]


def test_a_photograph_that_is_never_given_is_no_rejected_one(tmp_path: Path, services: Services) -> None:
    with pytest.raises(FatalRunError) as caught:
        decode_bodies([(0, jpeg(1))], count=3, pixels_path=tmp_path / "pixels.npy", settings=services.settings)
    assert str(caught.value) == "2 of 3 photos got no verdict, the first at 1; run it again"


# --- labels by name --------------------------------------------------------------------------------------------------


def test_folders_and_file_names_give_class_or_category(photos: Path, services: Services) -> None:
    fill(photos, f"{TENCH}_tench.jpg", f"{SHOE}/1.jpg", "train/shoes/batch_1/2.jpg", f"shoes/{SHOE}/3.jpg", "read.me")
    found = labelled(photos, services)
    by_name = {
        Path(photo.place).name: (category, class_id)
        for photo, category, class_id in zip(found.photographs, found.categories, found.class_ids, strict=True)
    }
    assert by_name == {
        f"{TENCH}_tench.jpg": ("not_a_product", TENCH),
        "1.jpg": ("shoes", SHOE),
        "2.jpg": ("shoes", None),
        "3.jpg": ("shoes", SHOE),
    }
    assert (found.name, found.ignored) == (str(photos), 1)


def test_a_prefix_is_labelled_like_a_folder(services: Services) -> None:
    services.objects.put("eval/shoes/1.jpg", b"x")
    services.objects.put(f"eval/{TENCH}_x.jpg", b"x")
    found = labelled(f"s3://{services.objects.bucket}/eval", services)
    assert list(zip(found.categories, found.class_ids, strict=True)) == [("not_a_product", TENCH), ("shoes", None)]


def test_a_path_of_other_bytes_than_utf_8_gives_a_name_that_postgres_takes(photos: Path, services: Services) -> None:
    folder = photos / "caf\udce9"
    fill(folder, "shoes/1.jpg")
    found = labelled(folder, services)
    assert (found.name, found.categories) == (f"{photos}/caf\\udce9", ("shoes",))


def test_every_photograph_without_a_label_is_named_ten_at_most(photos: Path, services: Services) -> None:
    fill(photos, "n99999999_x.jpg", "a_shoe.jpg", "sheos/1.jpg")
    nothing = "no folder of it is named as a class id or category, nor does its name begin so"
    assert refused(photos, services) == (
        f"{photos} has 3 faults, correct the labels: a_shoe.jpg: {nothing}; n99999999_x.jpg: 'n99999999' is no class "
        f"of the class list; expected an id like n01440764; sheos/1.jpg: {nothing}"
    )
    fill(photos, *(f"{number:02}.jpg" for number in range(20)))
    assert refused(photos, services).endswith("; … and 13 more")


# --- labels by CSV ---------------------------------------------------------------------------------------------------


def test_a_csv_names_files_relative_to_itself_absolute_or_in_s3(photos: Path, services: Services) -> None:
    text = f"note,path,class_id,category\nx,a.jpg,{SHOE},\nx,/b.jpg,,shoes\nx,../c.jpg,{TENCH},not_a_product\n"
    path = table(photos, f"\ufeff{text}x,s3://bucket/a/../b.jpg,,shoes\r\n")
    found = labelled(path, services)
    assert [photo.place for photo in found.photographs] == [
        str(photos / "a.jpg"), "/b.jpg", str(photos / "../c.jpg"), "s3://bucket/a/../b.jpg",
    ]  # fmt: skip
    assert found.categories == ("shoes", "shoes", "not_a_product", "shoes")
    assert found.class_ids == (SHOE, None, TENCH, None)


def test_a_csv_in_s3_names_objects_only_by_keys_as_they_stand(services: Services) -> None:
    bucket = services.objects.bucket
    services.objects.put("sets/labels.csv", b"path,category\n../a.jpg,shoes\n/etc/hostname,shoes\n")
    found = labelled(f"s3://{bucket}/sets/labels.csv", services)
    assert [photo.place for photo in found.photographs] == [
        f"s3://{bucket}/sets/../a.jpg", f"s3://{bucket}/sets//etc/hostname",
    ]  # fmt: skip


def test_every_line_with_a_fault_is_named(photos: Path, services: Services) -> None:
    path = table(
        photos,
        f"path,class_id,category\na.jpg,,\n,{SHOE},\nb.jpg,n99999999,\nc.jpg,{SHOE},clothing\nd.jpg,,trainers\n"
        f"e\0.jpg,,shoes\n",
    )
    assert refused(path, services) == (
        f"{path} has 6 faults, correct the labels: line 2: it has neither class_id nor category; line 3: it has no "
        f"path; line 4: 'n99999999' is no class of the class list; expected an id like n01440764; line 5: class "
        f"{SHOE} (running_shoe) is filed under shoes, the row says clothing; leave one of the two out; line 6: "
        f"'trainers' is no category; expected one of {', '.join(TAXONOMY.categories)}; line 7: 'e\\x00.jpg' is no path"
    )


def test_foreign_addresses_are_refused(photos: Path, services: Services) -> None:
    path = table(photos, "path,category\nhttps://example.com/a.jpg,shoes\nfile:///etc/x.jpg,shoes\n")
    assert refused(path, services) == (
        f"{path} has 2 faults, correct the labels: https://example.com/a.jpg: only paths and s3://bucket/key can be "
        f"read; file:///etc/x.jpg: only paths and s3://bucket/key can be read"
    )


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            b"",
            "must begin with a header that names path and class_id, category or both, each once; it begins with ''",
        ),
        (
            b"a.jpg,shoes\n",
            "must begin with a header that names path and class_id, category or both, each once; it begins with "
            "'a.jpg,shoes'",
        ),
        (
            b"path,category,category\na.jpg,shoes,clothing\n",
            "must begin with a header that names path and class_id, category or both, each once; it begins with "
            "'path,category,category'",
        ),
        (b"path,category\n", "has a header and no rows; expected a row for each photograph"),
        (
            b"path,category\n\xff\xfe,shoes\n",
            "is no CSV in UTF-8: 'utf-8' codec can't decode byte 0xff in position 14: invalid start byte; expected a "
            "header that names path and class_id, category or both",
        ),
        (
            b'path,category\n"a.jpg,shoes\n',
            "is no CSV in UTF-8: unexpected end of data; expected a header that names path and class_id, category or "
            "both",
        ),
    ],
)
def test_what_is_no_csv_of_labels_is_refused(body: bytes, text: str, photos: Path, services: Services) -> None:
    path = table(photos, body)
    assert refused(path, services) == f"{path} {text}"


def test_labels_that_are_nowhere_are_refused(photos: Path, services: Services) -> None:
    bucket = services.objects.bucket
    wanted = "expected a CSV of labels, a folder or s3://bucket/prefix/"
    for where, why in {
        f"{photos}/gone.csv": "there is no such file",
        f"s3://{bucket}/gone.csv": f"there is no such object in bucket {bucket!r}",
    }.items():
        assert refused(where, services) == f"{where} cannot be read: {why}; {wanted}"
    assert refused("s3://no-such-bucket/l.csv", services) == (
        f"S3 at {services.objects.access.place} has no bucket 'no-such-bucket', which s3://no-such-bucket/l.csv names; "
        f"correct it"
    )


def test_a_set_has_a_truth_for_every_photograph() -> None:
    with pytest.raises(ValueError, match="as many photographs as categories and class ids, got 1, 0 and 0"):
        LabelledSet(name="x", photographs=(Photograph(place="a"),), categories=(), class_ids=())
