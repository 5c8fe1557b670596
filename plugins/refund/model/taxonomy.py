"""From ImageNet's classes to the bins that refund clerks sort by, read from ``include/taxonomy.csv``."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from refund.errors import TaxonomyError
from refund.model.labels import Labels
from refund.resources import include_path

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NOT_A_PRODUCT = "not_a_product"  # animals, scenery, people's surroundings: always reviewed
DEPARTMENTS = frozenset(
    {
        "arts_entertainment",
        "baby_toddler",
        "bags_luggage",
        "business_industrial",
        "cameras_optics",
        "clothing",
        "electronics",
        "food_beverages",
        "furniture",
        "hardware_tools",
        "health_beauty",
        "home_garden",
        "jewellery_watches",
        "kitchen_dining",
        "media",
        "office_supplies",
        "pet_supplies",
        "religious_ceremonial",
        "shoes",
        "sporting_goods",
        "toys_games",
        "vehicles_parts",
        NOT_A_PRODUCT,
    }
)
# The branches of the Google product taxonomy that a department sorts; of a path, the longest branch decides. Between
# them they cover its top levels but for live animals and erotica, which come back through no refund department.
DEPARTMENT_BRANCHES: dict[str, tuple[str, ...]] = {
    "arts_entertainment": ("Arts & Entertainment",),
    "baby_toddler": ("Baby & Toddler", "Furniture > Baby & Toddler Furniture"),
    "bags_luggage": (
        "Luggage & Bags",
        "Apparel & Accessories > Handbags, Wallets & Cases",
        "Apparel & Accessories > Handbag & Wallet Accessories",
    ),
    "business_industrial": ("Business & Industrial",),
    "cameras_optics": ("Cameras & Optics",),
    "clothing": (
        "Apparel & Accessories > Clothing",
        "Apparel & Accessories > Clothing Accessories",
        "Apparel & Accessories > Costumes & Accessories",
    ),
    "electronics": ("Electronics",),
    "food_beverages": ("Food, Beverages & Tobacco",),
    "furniture": ("Furniture",),
    "hardware_tools": ("Hardware",),
    "health_beauty": ("Health & Beauty",),
    "home_garden": ("Home & Garden",),
    "jewellery_watches": ("Apparel & Accessories > Jewelry",),
    "kitchen_dining": ("Home & Garden > Kitchen & Dining",),
    "media": ("Media", "Software"),
    "office_supplies": ("Office Supplies",),
    "pet_supplies": ("Animals & Pet Supplies > Pet Supplies",),
    "religious_ceremonial": ("Religious & Ceremonial",),
    "shoes": ("Apparel & Accessories > Shoes", "Apparel & Accessories > Shoe Accessories"),
    "sporting_goods": ("Sporting Goods", "Mature > Weapons"),
    "toys_games": ("Toys & Games",),
    "vehicles_parts": ("Vehicles & Parts",),
}
_DEPARTMENT_OF_BRANCH = {branch: department for department, taken in DEPARTMENT_BRANCHES.items() for branch in taken}
_LOAD_TELLS, _CHECK_TELLS = 10, 50  # faults named in one error
_MAX_BYTES = 1024 * 1024  # the shipped file has 68 kB
_HEADER = ["class_id", "class_name", "department", "product_id", "product_path"]
_VERSION_LINE = re.compile(r"# version: ([A-Za-z0-9][A-Za-z0-9._-]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Taxonomy:
    """Which category and which node of the Google product taxonomy every class belongs to, in label order."""

    declared_version: str  # as the file's first line gives it
    sha256: str  # of the mapping
    class_ids: tuple[str, ...]
    class_categories: tuple[str, ...]  # same order
    product_ids: tuple[int | None, ...]  # None for not_a_product
    product_paths: tuple[str | None, ...]

    @property
    def version(self) -> str:
        """The declared version and the start of the mapping's SHA-256, as ``2-f7c98aaa``; decisions are stored with it.

        So an edit is another version even where its author left the first line as it was.
        """
        return f"{self.declared_version}-{self.sha256[:8]}"

    @property
    def categories(self) -> tuple[str, ...]:
        """All categories in alphabetical order, ``not_a_product`` included; the columns of `matrix`."""
        return tuple(sorted(DEPARTMENTS))

    def category_of(self, class_id: str) -> str:
        """The category of a class; KeyError for an unknown id."""
        return self.class_categories[self._index(class_id)]

    def product_path(self, class_id: str) -> str | None:
        """The full path in the Google product taxonomy, or None for what is no product; KeyError for an unknown id."""
        return self.product_paths[self._index(class_id)]

    def product_id(self, class_id: str) -> int | None:
        """The number of the node in the Google product taxonomy; see `product_path`."""
        return self.product_ids[self._index(class_id)]

    def nodes(self) -> set[tuple[int, str]]:
        """Every node of the Google product taxonomy that is used, with the category it is used under."""
        pairs = zip(self.product_ids, self.class_categories, strict=True)
        return {(product_id, category) for product_id, category in pairs if product_id is not None}

    def matrix(self) -> NDArray[np.float32]:
        """``(n_classes, n_categories)`` of 0 and 1: probabilities times this are category scores."""
        import numpy as np

        column = {category: index for index, category in enumerate(self.categories)}
        matrix = np.zeros((len(self.class_ids), len(column)), dtype=np.float32)
        matrix[np.arange(len(self.class_ids)), [column[category] for category in self.class_categories]] = 1.0
        return matrix

    def _index(self, class_id: str) -> int:
        try:
            return self.class_ids.index(class_id)
        except ValueError:
            raise KeyError(class_id) from None


def department_of_path(product_path: str) -> str | None:
    """The department whose branch of the Google product taxonomy a path lies in; None where no department takes it."""
    steps = product_path.split(" > ")
    branches = (" > ".join(steps[:length]) for length in range(len(steps), 0, -1))
    return next((_DEPARTMENT_OF_BRANCH[branch] for branch in branches if branch in _DEPARTMENT_OF_BRANCH), None)


def find_classes(text: str, *, labels: Labels) -> list[str]:
    """The ids of the classes that a person may mean, in label order.

    A WordNet id; else the classes of exactly this name; else those whose name contains it. Case plays no part, and
    blanks, hyphens and underscores are one.
    """
    wanted = _spoken(text)
    if not wanted:
        return []
    spoken = [(class_id, _spoken(name)) for class_id, name in zip(labels.class_ids, labels.class_names, strict=True)]
    return (
        [class_id for class_id in labels.class_ids if class_id == wanted]
        or [class_id for class_id, name in spoken if name == wanted]
        or [class_id for class_id, name in spoken if wanted in name]
    )


def similar_names(text: str, *, labels: Labels, count: int = 3) -> list[str]:
    """The names of classes that are spelt most like a text, best first; none where nothing comes near."""
    from difflib import get_close_matches

    names = {_spoken(name): name for name in labels.class_names}
    return [names[close] for close in get_close_matches(_spoken(text), names, n=count)]


def load_taxonomy(path: Path | None = None, *, labels: Labels) -> Taxonomy:
    """Read and check the taxonomy, by default the one in ``include/``, against the classes it must cover.

    What a night needs is checked: `check_taxonomy` looks at the nodes of the product taxonomy too.

    Raises:
        TaxonomyError: no version line, another header, a class missing, unknown or twice, or an unknown department;
            the text lists every fault found, ten at most.
    """
    path = path or include_path("taxonomy.csv")
    version, rows = _read_file(path)
    by_class, _, faults = _read_rows(rows, labels)
    if faults:
        raise _refusal(path, faults, tells=_LOAD_TELLS)
    return _taxonomy(version, by_class, labels)


def check_taxonomy(path: Path | None = None, *, labels: Labels) -> Taxonomy:
    """Check all that `load_taxonomy` checks, and that the nodes agree with each other and with the departments.

    A path reads ``A > B > C``; an id has one path and a path one id; and a path lies in a branch of its department
    (`DEPARTMENT_BRANCHES`). Whether Google's list has the node cannot be seen here: the list is not ours to ship.

    Raises:
        TaxonomyError: as `load_taxonomy`, and for each of these; the text lists every fault found, fifty at most.
    """
    path = path or include_path("taxonomy.csv")
    version, rows = _read_file(path)
    by_class, line_of, faults = _read_rows(rows, labels)
    faults += _node_faults(by_class, line_of)
    if faults:
        raise _refusal(path, faults, tells=_CHECK_TELLS)
    return _taxonomy(version, by_class, labels)


def _spoken(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _refusal(path: Path, faults: list[str], *, tells: int) -> TaxonomyError:
    more = [f"… and {len(faults) - tells} more"] if len(faults) > tells else []
    told = "; ".join([*faults[:tells], *more])
    what = "1 fault, correct it" if len(faults) == 1 else f"{len(faults)} faults, correct them"
    return TaxonomyError(f"{path} has {what}: {told}")


def _read_file(path: Path) -> tuple[str, list[list[str]]]:
    """The declared version and the rows below the header, unchecked."""
    try:
        with path.open("rb") as stream:
            body = stream.read(_MAX_BYTES + 1)
        if len(body) > _MAX_BYTES:
            msg = f"the taxonomy {path} is larger than {_MAX_BYTES:,} bytes, so it is another file; name the right one"
            raise TaxonomyError(msg)
        lines = body.decode("utf-8").splitlines()
    except OSError as exc:
        msg = f"the taxonomy {path} cannot be read: {exc.strerror}; restore it from the project"
        raise TaxonomyError(msg) from exc
    except UnicodeDecodeError as exc:
        msg = f"the taxonomy {path} is not UTF-8: {exc}; save it as UTF-8"
        raise TaxonomyError(msg) from exc
    version = _VERSION_LINE.fullmatch(lines[0].strip()) if lines else None
    if version is None:
        seen = lines[0] if lines else ""
        msg = (
            f"{path} must begin with a line like '# version: 1' and nothing before or behind it, it begins with "
            f"{seen[:60]!r}; save it as CSV in UTF-8 without a byte order mark"
        )
        raise TaxonomyError(msg)
    try:
        rows = list(csv.reader(lines[1:], strict=True))
    except csv.Error as exc:
        msg = f"{path} is not valid CSV: {exc}; correct the line, or restore the file from the project"
        raise TaxonomyError(msg) from exc
    if not rows or rows[0] != _HEADER:
        seen = ",".join(rows[0]) if rows else ""
        msg = f"{path} line 2 must be {','.join(_HEADER)}, it is {seen[:120]!r}; restore that line"
        raise TaxonomyError(msg)
    return version[1], rows[1:]


def _taxonomy(version: str, by_class: dict[str, list[str]], labels: Labels) -> Taxonomy:
    ordered = [by_class[class_id] for class_id in labels.class_ids]
    return Taxonomy(
        declared_version=version,
        sha256=sha256("\n".join("\t".join(row) for row in ordered).encode()).hexdigest(),
        class_ids=labels.class_ids,
        class_categories=tuple(row[2] for row in ordered),
        product_ids=tuple(int(row[3]) if row[3] else None for row in ordered),
        product_paths=tuple(row[4] or None for row in ordered),
    )


def _read_rows(rows: list[list[str]], labels: Labels) -> tuple[dict[str, list[str]], dict[str, int], list[str]]:
    """Rows by class, the line each stands on, and the faults; the rows are whole only where there are none."""
    names = dict(zip(labels.class_ids, labels.class_names, strict=True))
    by_class: dict[str, list[str]] = {}
    line_of: dict[str, int] = {}
    faults = []
    known = f"; known are: {', '.join(sorted(DEPARTMENTS))}"
    for line, row in enumerate(rows, start=3):
        if len(row) != len(_HEADER):
            faults.append(f"line {line} has {len(row)} fields, expected {len(_HEADER)}")
            continue
        class_id, name, department, product_id, product_path = row
        if class_id not in names:
            faults.append(f"line {line}: class {class_id!r} is not in the class list")
            continue
        if class_id in by_class:
            faults.append(f"line {line}: class {class_id} ({names[class_id]}) is already on line {line_of[class_id]}")
            continue
        by_class[class_id], line_of[class_id] = row, line
        if name != names[class_id]:
            faults.append(f"line {line}: class {class_id} is {names[class_id]!r}, not {name!r}")
        if department not in DEPARTMENTS:
            faults.append(f"line {line}: {department!r} is no department{known}")
            known = ""  # told once
        elif department == NOT_A_PRODUCT:
            if product_id or product_path:
                faults.append(f"line {line}: {NOT_A_PRODUCT} has no product_id and no product_path")
        elif not (re.fullmatch(r"[1-9]\d{0,8}", product_id, re.ASCII) and product_path):
            faults.append(f"line {line}: product_id must be a number and product_path a text, got {product_id!r}")
    faults += [f"class {class_id} ({name}) is missing" for class_id, name in names.items() if class_id not in by_class]
    return by_class, line_of, faults


def _node_faults(by_class: dict[str, list[str]], line_of: dict[str, int]) -> list[str]:
    """What is wrong with the product ids and paths; lines where one is lacking are left to `_read_rows`."""
    faults = []
    path_of: dict[str, tuple[str, int]] = {}
    id_of: dict[str, tuple[str, int]] = {}
    for class_id, (_, _, department, product_id, product_path) in by_class.items():
        line = line_of[class_id]
        if department == NOT_A_PRODUCT or not (product_id and product_path):
            continue
        if not _is_path(product_path):
            faults.append(f"line {line}: a product_path reads 'Top > Middle > Node', this one is {product_path!r}")
            continue
        first_path, at = path_of.setdefault(product_id, (product_path, line))
        if first_path != product_path:
            faults.append(
                f"line {line}: product_id {product_id} has the path {product_path!r}, on line {at} it is {first_path!r}"
            )
        first_id, at = id_of.setdefault(product_path, (product_id, line))
        if first_id != product_id:
            faults.append(
                f"line {line}: {product_path!r} has the product_id {product_id!r}, on line {at} it is {first_id!r}"
            )
        home = department_of_path(product_path)
        if department in DEPARTMENTS and home != department:
            belongs = f"belongs to {home}" if home else "belongs to no department"
            faults.append(f"line {line}: {product_path!r} {belongs}, it cannot stand under {department}")
    return faults


def _is_path(text: str) -> bool:
    """Names joined by ``" > "``, none of them empty, with blanks at its ends or two together, or unprintable."""
    return all(
        name and name == " ".join(name.split()) and ">" not in name and name.isprintable() for name in text.split(" > ")
    )
