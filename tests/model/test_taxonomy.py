from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from refund.errors import TaxonomyError
from refund.model.labels import load_labels
from refund.model.taxonomy import (
    DEPARTMENT_BRANCHES,
    DEPARTMENTS,
    NOT_A_PRODUCT,
    check_taxonomy,
    department_of_path,
    find_classes,
    load_taxonomy,
    similar_names,
)
from refund.resources import include_path
from tests.conftest import REPOSITORY
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
        ("mosquito_net", "home_garden"),
        ("bow_tie", "clothing"),
        ("vestment", "clothing"),
        ("parachute", "sporting_goods"),
        ("pot", "home_garden"),
        ("plate", "food_beverages"),
        ("car_wheel", "vehicles_parts"),
        ("crib", "baby_toddler"),
        ("apron", "kitchen_dining"),
        ("goldfish", NOT_A_PRODUCT),
        ("tabby", NOT_A_PRODUCT),
        ("castle", NOT_A_PRODUCT),
        ("pier", NOT_A_PRODUCT),
        ("aircraft_carrier", NOT_A_PRODUCT),
        ("crane", NOT_A_PRODUCT),
        ("bakery", NOT_A_PRODUCT),
        ("groom", NOT_A_PRODUCT),
        ("volcano", NOT_A_PRODUCT),
        ("daisy", NOT_A_PRODUCT),
        ("web_site", NOT_A_PRODUCT),
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


@pytest.mark.parametrize(
    ("class_id", "product_id", "product_path"),
    [
        ("n02883205", 176, "Apparel & Accessories > Clothing Accessories > Neckties"),
        ("n03788365", 505803, "Home & Garden > Linens & Bedding > Bedding > Bed Canopies"),
        ("n03642806", 328, "Electronics > Computers > Laptops"),
        ("n03991062", 721, "Home & Garden > Lawn & Garden > Gardening > Pots & Planters"),
        ("n03888257", 4023, "Sporting Goods > Outdoor Recreation > Hang Gliding & Skydiving > Parachutes"),
        ("n07873807", 499988, "Food, Beverages & Tobacco > Food Items > Prepared Foods > Prepared Meals & Entrées"),
    ],
)
def test_classes_are_filed_under_fine_nodes(class_id: str, product_id: int, product_path: str) -> None:
    taxonomy = load_taxonomy(labels=load_labels())
    assert (taxonomy.product_id(class_id), taxonomy.product_path(class_id)) == (product_id, product_path)


def test_the_shipped_taxonomy_passes_every_check() -> None:
    labels = load_labels()
    taxonomy = check_taxonomy(labels=labels)
    assert taxonomy == load_taxonomy(labels=labels)
    assert len(taxonomy.nodes()) == len({product_id for product_id, _ in taxonomy.nodes()}), "one department a node"


def test_hardly_a_class_stays_at_a_top_level() -> None:
    paths = load_taxonomy(labels=load_labels()).product_paths
    top = [path for path in paths if path is not None and " > " not in path]
    assert sorted(top) == ["Food, Beverages & Tobacco", "Sporting Goods"]


def test_every_department_has_branches_and_no_branch_has_two() -> None:
    assert set(DEPARTMENT_BRANCHES) == DEPARTMENTS - {NOT_A_PRODUCT}
    branches = [branch for taken in DEPARTMENT_BRANCHES.values() for branch in taken]
    assert all(branches)
    assert len(set(branches)) == len(branches)


@pytest.mark.parametrize(
    ("path", "department"),
    [
        ("Home & Garden > Decor > Vases", "home_garden"),
        ("Home & Garden > Kitchen & Dining", "kitchen_dining"),
        ("Home & Garden > Kitchen & Dining > Barware > Corkscrews", "kitchen_dining"),
        ("Home & Gardening", None),
        ("Furniture > Baby & Toddler Furniture > Cribs & Toddler Beds", "baby_toddler"),
        ("Furniture", "furniture"),
        ("Animals & Pet Supplies > Live Animals", None),
        ("Apparel & Accessories", None),
        ("Shoes", None),
        ("", None),
    ],
)
def test_the_longest_branch_decides_the_department_of_a_path(path: str, department: str | None) -> None:
    assert department_of_path(path) == department


def test_the_page_lists_the_branches_of_every_department() -> None:
    page = (REPOSITORY / "docs" / "taxonomy.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| `")]
    documented = {row[0].strip("`"): tuple(row[2].split("<br>")) for row in rows if len(row) == 3}
    assert documented == DEPARTMENT_BRANCHES | {NOT_A_PRODUCT: ("none",)}


def test_the_classes_that_the_page_names_are_filed_as_it_says() -> None:
    """A rule's row names the classes it decides, each as `class` → department."""
    page = (REPOSITORY / "docs" / "taxonomy.md").read_text(encoding="utf-8")
    labels = load_labels()
    taxonomy = load_taxonomy(labels=labels)
    filed: dict[str, set[str]] = {}
    for class_id, name in zip(labels.class_ids, labels.class_names, strict=True):
        filed.setdefault(name, set()).add(taxonomy.category_of(class_id))
    told = [
        (name, department)
        for names, department in re.findall(r"((?:`[^`\n]+`,? )+)→ `([a-z_]+)`", page)
        for name in re.findall(r"`([^`]+)`", names)
    ]
    assert len(told) >= 150
    assert [(name, department) for name, department in told if filed.get(name) != {department}] == []


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
    assert str(caught.value) == f"{path} has 1 fault, correct them: {expected}"
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


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("n04120489", ["running_shoe"]),
        ("N04120489", ["running_shoe"]),
        ("running_shoe", ["running_shoe"]),
        (" Running-Shoe ", ["running_shoe"]),
        ("maillot", ["maillot", "maillot"]),
        ("cardigan", ["Cardigan", "cardigan"]),
        ("shoe", ["running_shoe", "shoe_shop"]),
        ("jack-o'-lantern", ["jack-o'-lantern"]),
        ("n0412048", []),
        ("sneaker", []),
        ("", []),
        (" _ ", []),
    ],
)
def test_a_class_is_found_by_id_then_name_then_part_of_a_name(text: str, names: list[str]) -> None:
    labels = load_labels()
    name_of = dict(zip(labels.class_ids, labels.class_names, strict=True))
    assert [name_of[class_id] for class_id in find_classes(text, labels=labels)] == names


def test_names_that_are_spelt_alike_are_suggested() -> None:
    labels = load_labels()
    assert similar_names("runing shoe", labels=labels)[0] == "running_shoe"
    assert similar_names("xqzw", labels=labels) == []


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
