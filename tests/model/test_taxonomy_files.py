"""Taxonomy files: how they are read, and every fault that is refused with its line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from refund.errors import TaxonomyError
from refund.model.labels import load_labels
from refund.model.taxonomy import DEPARTMENTS, check_taxonomy, load_taxonomy
from refund.resources import include_path
from tests.model.factories import make_labels

LABELS = make_labels("tench", "running_shoe", "sandal")
HEAD = "# version: 7\nclass_id,class_name,department,product_id,product_path\n"
TENCH = "n00000000,tench,not_a_product,,\n"
SHOE = "n00000001,running_shoe,shoes,187,Apparel & Accessories > Shoes\n"
SANDAL = "n00000002,sandal,shoes,187,Apparel & Accessories > Shoes\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "taxonomy.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_matrix_has_one_category_per_class(tmp_path: Path) -> None:
    taxonomy = load_taxonomy(write(tmp_path, HEAD + SANDAL + TENCH + SHOE), labels=LABELS)
    matrix = taxonomy.matrix()
    assert matrix.shape == (3, len(DEPARTMENTS))
    assert matrix.dtype == np.float32
    assert matrix.sum(axis=1).tolist() == [1, 1, 1]
    assert matrix[:, taxonomy.categories.index("shoes")].tolist() == [0, 1, 1]


def test_a_class_nobody_knows_is_a_key_error(tmp_path: Path) -> None:
    taxonomy = load_taxonomy(write(tmp_path, HEAD + TENCH + SHOE + SANDAL), labels=LABELS)
    with pytest.raises(KeyError, match="n99999999"):
        taxonomy.category_of("n99999999")


def test_an_edit_is_another_version_even_where_the_version_line_stays(tmp_path: Path) -> None:
    before = load_taxonomy(write(tmp_path, HEAD + TENCH + SHOE + SANDAL), labels=LABELS)
    edited = load_taxonomy(write(tmp_path, HEAD + TENCH + SHOE + SANDAL.replace("shoes", "clothing")), labels=LABELS)
    assert before.declared_version == edited.declared_version == "7"
    assert before.version != edited.version
    reordered = load_taxonomy(write(tmp_path, HEAD + SANDAL + SHOE + TENCH), labels=LABELS)
    assert reordered.version == before.version, "the order of the lines means nothing"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HEAD.partition("\n")[2], "it begins with 'class_id,class_name"),
        (
            "# version: 7\nid,name\n",
            "line 2 must be class_id,class_name,department,product_id,product_path, it is 'id,name'",
        ),
        (HEAD + TENCH + SHOE, "has 1 fault, correct it: class n00000002 (sandal) is missing"),
        (HEAD + TENCH + SHOE + SANDAL + SHOE, "line 6: class n00000001 (running_shoe) is already on line 4"),
        (HEAD + TENCH + SHOE + SANDAL.replace("shoes", "sheos"), "line 5: 'sheos' is no department; known are: arts_"),
        (HEAD + TENCH + SHOE + SANDAL + "n9,x,shoes,1,y\n", "line 6: class 'n9' is not in the class list"),
        (HEAD + TENCH + SHOE + SANDAL.replace("sandal", "clog"), "line 5: class n00000002 is 'sandal', not 'clog'"),
        (HEAD + TENCH + SHOE + SANDAL.replace("187", "x"), "line 5: product_id must be a number"),
        (HEAD + TENCH.replace(",,", ",1,x") + SHOE + SANDAL, "line 3: not_a_product has no product_id"),
        (HEAD + TENCH + SHOE + "n00000002,sandal\n", "line 5 has 2 fields, expected 5; class n00000002"),
        (HEAD + TENCH + SHOE + '"n00000002,sandal', "is not valid CSV"),
    ],
)
def test_a_faulty_taxonomy_is_refused_with_its_line(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(TaxonomyError) as caught:
        load_taxonomy(write(tmp_path, text), labels=LABELS)
    assert expected in str(caught.value)


SHOES = "Apparel & Accessories > Shoes"


@pytest.mark.parametrize(
    ("shoe", "sandal", "expected"),
    [
        (
            f"shoes,187,{SHOES}",
            "shoes,187,Apparel & Accessories > Shoe Accessories",
            "line 5: product_id 187 has the path 'Apparel & Accessories > Shoe Accessories', on line 4 it is "
            "'Apparel & Accessories > Shoes'",
        ),
        (
            f"shoes,187,{SHOES}",
            f"shoes,188,{SHOES}",
            "line 5: 'Apparel & Accessories > Shoes' has the product_id '188', on line 4 it is '187'",
        ),
        (
            f"shoes,187,{SHOES}",
            "shoes,8,Arts & Entertainment",
            "line 5: 'Arts & Entertainment' belongs to arts_entertainment, it cannot stand under shoes",
        ),
        (
            f"shoes,187,{SHOES}",
            "shoes,166,Apparel & Accessories",
            "line 5: 'Apparel & Accessories' belongs to no department, it cannot stand under shoes",
        ),
        *(
            (
                f"shoes,187,{SHOES}",
                f"shoes,188,{path}",
                f"line 5: a product_path reads 'Top > Middle > Node', this one is {path!r}",
            )
            for path in (
                "Apparel & Accessories>Shoes",
                "Apparel & Accessories > ",
                " > Shoes",
                "Apparel & Accessories >  Shoes",
                "Apparel  & Accessories > Shoes",
                " Apparel & Accessories > Shoes",
                "Apparel & Accessories > Shoes\x1b[31m",
                "Apparel & Accessories > Shoes > > Boots",
            )
        ),
    ],
)
def test_nodes_that_disagree_are_refused_by_the_check_with_their_lines(
    tmp_path: Path, shoe: str, sandal: str, expected: str
) -> None:
    path = write(tmp_path, HEAD + TENCH + f"n00000001,running_shoe,{shoe}\nn00000002,sandal,{sandal}\n")
    with pytest.raises(TaxonomyError) as caught:
        check_taxonomy(path, labels=LABELS)
    assert str(caught.value) == f"{path} has 1 fault, correct it: {expected}"
    assert load_taxonomy(path, labels=LABELS).product_ids[1] == 187, "a night does not stop for a node"


def test_the_check_tells_gaps_and_nodes_together(tmp_path: Path) -> None:
    path = write(tmp_path, HEAD + TENCH + SHOE.replace("shoes", "sheos") + SHOE.replace("00001", "00003"))
    with pytest.raises(TaxonomyError) as caught:
        check_taxonomy(path, labels=LABELS)
    assert str(caught.value).startswith(f"{path} has 3 faults, correct them: line 4: 'sheos' is no department")
    assert "; line 5: class 'n00000003' is not in the class list; class n00000002 (sandal) is missing" in str(
        caught.value
    )


def test_of_many_faults_the_check_tells_fifty(tmp_path: Path) -> None:
    lines = include_path("taxonomy.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    with pytest.raises(TaxonomyError) as caught:
        check_taxonomy(write(tmp_path, "".join(lines[:-60])), labels=load_labels())
    assert "has 60 faults" in str(caught.value)
    assert str(caught.value).count("is missing") == 50
    assert str(caught.value).endswith("… and 10 more")


def test_of_many_faults_ten_are_told(tmp_path: Path) -> None:
    lines = include_path("taxonomy.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    with pytest.raises(TaxonomyError) as caught:
        load_taxonomy(write(tmp_path, "".join(lines[:-12])), labels=load_labels())
    assert "has 12 faults" in str(caught.value)
    assert str(caught.value).endswith("… and 2 more")


REMEDY = "save it as CSV in UTF-8 without a byte order mark"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (None, "the taxonomy {path} cannot be read: No such file or directory; restore it from the project"),
        ("folder", "the taxonomy {path} cannot be read: Is a directory; restore it from the project"),
        (
            b"",
            "{path} must begin with a line like '# version: 1' and nothing before or behind it, it begins with ''; "
            + REMEDY,
        ),
        (
            b"\xef\xbb\xbf" + HEAD.encode(),
            "{path} must begin with a line like '# version: 1' and nothing before or behind it, it begins with "
            "'\\ufeff# version: 7'; " + REMEDY,
        ),
        (
            b"# version: 1\n\xe9",
            "the taxonomy {path} is not UTF-8: 'utf-8' codec can't decode byte 0xe9 in position 13: unexpected end of "
            "data; save it as UTF-8",
        ),
        (
            b"\0" * 2**21,
            "the taxonomy {path} is larger than 1,048,576 bytes, so it is another file; name the right one",
        ),
        (
            HEAD.encode() + b"a" * 200_000,
            "{path} is not valid CSV: field larger than field limit (131072); correct the line, or restore the file "
            "from the project",
        ),
    ],
    ids=["missing", "folder", "empty", "mark", "latin", "large", "long field"],
)
def test_what_is_no_taxonomy_is_refused_in_words(body: bytes | str | None, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "taxonomy.csv"
    if isinstance(body, bytes):
        path.write_bytes(body)
    elif body:
        path.mkdir()
    with pytest.raises(TaxonomyError) as caught:
        load_taxonomy(path, labels=LABELS)
    assert str(caught.value) == expected.format(path=path)


def test_the_ends_of_lines_are_no_matter(tmp_path: Path) -> None:
    text = HEAD + TENCH + SHOE + SANDAL
    path = tmp_path / "dos.csv"
    path.write_bytes(text.replace("\n", "\r\n").encode())
    assert check_taxonomy(path, labels=LABELS) == check_taxonomy(write(tmp_path, text), labels=LABELS)


def test_the_departments_are_told_once(tmp_path: Path) -> None:
    text = HEAD + TENCH + SHOE.replace("shoes", "sheos") + SANDAL.replace("shoes", "schuhe")
    path = write(tmp_path, text)
    with pytest.raises(TaxonomyError) as caught:
        load_taxonomy(path, labels=LABELS)
    assert str(caught.value) == (
        f"{path} has 2 faults, correct them: line 4: 'sheos' is no department; known are: "
        f"{', '.join(sorted(DEPARTMENTS))}; line 5: 'schuhe' is no department"
    )
