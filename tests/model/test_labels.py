from __future__ import annotations

import csv
from pathlib import Path

import pytest

from refund.errors import ConfigurationError
from refund.model.labels import Labels, load_labels

HEADER = "index,class_id,class_name\n"
TWO = HEADER + "0,n01440764,tench\n1,n01443537,goldfish\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shipped_list_names_a_thousand_classes() -> None:
    labels = load_labels()
    assert len(labels) == 1000
    assert labels.class_ids[770] == "n04120489"
    assert labels.class_names[770] == "running_shoe"


def test_the_shipped_list_has_the_order_of_the_networks_outputs(shared: Path) -> None:
    with (shared / "models" / "imagenet_classes.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    labels = load_labels()
    assert list(labels.class_ids) == [row["wnid"] for row in rows]
    assert list(labels.class_names) == [row["label"] for row in rows]


def test_labels_in_the_names_of_photographs_are_ours(shared: Path) -> None:
    labels = load_labels()
    names = dict(zip(labels.class_ids, labels.class_names, strict=True))
    photographs = sorted((shared / "images" / "imagenet").glob("*.JPEG"))
    assert len(photographs) == 250
    for photograph in photographs:
        class_id, _, name = photograph.stem.partition("_")
        assert names[class_id].replace("'", "") == name.replace("'", "")


def test_the_digest_ignores_line_ends_but_not_order(tmp_path: Path) -> None:
    unix = load_labels(write(tmp_path, TWO), count=2)
    windows = tmp_path / "crlf.csv"
    windows.write_bytes(TWO.replace("\n", "\r\n").encode())
    assert load_labels(windows, count=2).sha256 == unix.sha256
    swapped = Labels(class_ids=unix.class_ids[::-1], class_names=unix.class_names[::-1])
    assert swapped.sha256 != unix.sha256


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "must begin with index,class_id,class_name, it begins with 'nothing'"),
        ("a,b\n", "it begins with 'a,b'"),
        (HEADER + "0,n01440764\n", "line 2 must have an index, a class id and a name, it has '0,n01440764'"),
        (HEADER + "1,n01440764,tench\n", "line 2 must have index 0, it has '1'"),
        (HEADER + "0,tench,tench\n", "line 2: a class id reads like n01440764, this one is 'tench'"),
        (TWO.replace("n01443537", "n01440764"), "names class n01440764 twice, on lines 2 and 3"),
        (TWO, "lists 2 classes, expected 1000; restore it from the project"),
    ],
)
def test_a_faulty_list_is_refused_with_its_line(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_labels(write(tmp_path, text))
    assert expected in str(caught.value)


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"gone\.csv cannot be read: No such file or directory; restore it"):
        load_labels(tmp_path / "gone.csv")


def test_a_list_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes(HEADER.encode() + b"0,n01440764,t\xe9nch\n")
    with pytest.raises(ConfigurationError, match="is not UTF-8 CSV"):
        load_labels(path)
