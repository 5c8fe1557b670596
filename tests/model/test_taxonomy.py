from __future__ import annotations

import re

import pytest

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
from tests.conftest import REPOSITORY


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
