from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from refund.errors import TaxonomyError
from refund.model.labels import load_labels
from refund.model.taxonomy import DEPARTMENTS, NOT_A_PRODUCT, load_taxonomy
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


def test_the_shipped_taxonomy_files_every_class_and_uses_every_department() -> None:
    labels = load_labels()
    taxonomy = load_taxonomy(labels=labels)
    assert taxonomy.declared_version == "2"
    assert taxonomy.version == f"2-{taxonomy.sha256[:8]}"
    assert set(taxonomy.class_categories) == DEPARTMENTS == set(taxonomy.categories)
    assert len(taxonomy.class_categories) == 1000


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("running_shoe", "shoes"),
        ("Loafer", "shoes"),
        ("jersey", "clothing"),
        ("backpack", "bags_luggage"),
        ("digital_watch", "jewellery_watches"),
        ("cellular_telephone", "electronics"),
        ("mouse", "electronics"),
        ("reflex_camera", "cameras_optics"),
        ("coffee_mug", "kitchen_dining"),
        ("rocking_chair", "furniture"),
        ("power_drill", "hardware_tools"),
        ("tennis_ball", "sporting_goods"),
        ("teddy", "toys_games"),
        ("lipstick", "health_beauty"),
        ("diaper", "baby_toddler"),
        ("acoustic_guitar", "arts_entertainment"),
        ("pizza", "food_beverages"),
        ("goldfish", NOT_A_PRODUCT),
        ("castle", NOT_A_PRODUCT),
        ("crane", NOT_A_PRODUCT),
    ],
)
def test_common_goods_go_where_a_clerk_expects_them(name: str, category: str) -> None:
    labels = load_labels()
    taxonomy = load_taxonomy(labels=labels)
    class_ids = [i for i, n in zip(labels.class_ids, labels.class_names, strict=True) if n == name]
    assert class_ids
    assert {taxonomy.category_of(class_id) for class_id in class_ids} == {category}


def test_animals_are_no_products() -> None:
    taxonomy = load_taxonomy(labels=load_labels())
    assert set(taxonomy.class_categories[:398]) == {NOT_A_PRODUCT}


def test_products_have_a_node_of_the_product_taxonomy_and_others_none() -> None:
    taxonomy = load_taxonomy(labels=load_labels())
    for class_id in taxonomy.class_ids:
        is_product = taxonomy.category_of(class_id) != NOT_A_PRODUCT
        assert (taxonomy.product_id(class_id) is not None) == is_product
        assert (taxonomy.product_path(class_id) is not None) == is_product


def test_one_node_has_one_path() -> None:
    taxonomy = load_taxonomy(labels=load_labels())
    pairs = set(zip(taxonomy.product_ids, taxonomy.product_paths, strict=True))
    assert len({number for number, _ in pairs}) == len({path for _, path in pairs}) == len(pairs)


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
        ("", "must begin with a line like '# version: 1', it begins with ''"),
        (HEAD.partition("\n")[2], "it begins with 'class_id,class_name"),
        (
            "# version: 7\nid,name\n",
            "line 2 must be class_id,class_name,department,product_id,product_path, it is 'id,name'",
        ),
        (HEAD + TENCH + SHOE, "has 1 fault, correct them: class n00000002 (sandal) is missing"),
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


def test_of_many_faults_ten_are_told(tmp_path: Path) -> None:
    lines = include_path("taxonomy.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    with pytest.raises(TaxonomyError) as caught:
        load_taxonomy(write(tmp_path, "".join(lines[:-12])), labels=load_labels())
    assert "has 12 faults" in str(caught.value)
    assert str(caught.value).endswith("… and 2 more")


def test_a_missing_taxonomy_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaxonomyError, match=r"gone\.csv cannot be read: No such file or directory; restore it"):
        load_taxonomy(tmp_path / "gone.csv", labels=LABELS)


def test_a_taxonomy_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes(b"# version: 1\n\xe9")
    with pytest.raises(TaxonomyError, match="is not UTF-8"):
        load_taxonomy(path, labels=LABELS)
