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
        """The declared version and the start of the mapping's SHA-256, as ``1-1b99baaf``; decisions are stored with it.

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


def load_taxonomy(path: Path | None = None, *, labels: Labels) -> Taxonomy:
    """Read and check the taxonomy, by default the one in ``include/``, against the classes it must cover.

    Raises:
        TaxonomyError: no version line, another header, a class missing, unknown or twice, or an unknown department;
            the text lists every fault found, ten at most.
    """
    path = path or include_path("taxonomy.csv")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as exc:
        msg = f"the taxonomy {path} cannot be read: {exc.strerror}; restore it from the project"
        raise TaxonomyError(msg) from exc
    except UnicodeDecodeError as exc:
        msg = f"the taxonomy {path} is not UTF-8: {exc}; save it as UTF-8"
        raise TaxonomyError(msg) from exc
    version = _VERSION_LINE.fullmatch(lines[0].strip()) if lines else None
    if version is None:
        seen = lines[0] if lines else ""
        msg = f"{path} must begin with a line like '# version: 1', it begins with {seen[:60]!r}"
        raise TaxonomyError(msg)
    try:
        rows = list(csv.reader(lines[1:], strict=True))
    except csv.Error as exc:
        msg = f"{path} is not valid CSV: {exc}"
        raise TaxonomyError(msg) from exc
    if not rows or rows[0] != _HEADER:
        msg = f"{path} line 2 must be {','.join(_HEADER)}, it is {','.join(rows[0]) if rows else ''!r}"
        raise TaxonomyError(msg)
    by_class, faults = _read_rows(rows[1:], labels)
    faults += [f"class {class_id} ({name}) is missing" for class_id, name in _missing(by_class, labels)]
    if faults:
        more = [f"… and {len(faults) - 10} more"] if len(faults) > 10 else []
        msg = f"{path} has {len(faults)} fault{'s' if len(faults) > 1 else ''}, correct them: " + "; ".join(
            [*faults[:10], *more]
        )
        raise TaxonomyError(msg)
    ordered = [by_class[class_id] for class_id in labels.class_ids]
    return Taxonomy(
        declared_version=version[1],
        sha256=sha256("\n".join("\t".join(row) for row in ordered).encode()).hexdigest(),
        class_ids=labels.class_ids,
        class_categories=tuple(row[2] for row in ordered),
        product_ids=tuple(int(row[3]) if row[3] else None for row in ordered),
        product_paths=tuple(row[4] or None for row in ordered),
    )


def _read_rows(rows: list[list[str]], labels: Labels) -> tuple[dict[str, list[str]], list[str]]:
    names = dict(zip(labels.class_ids, labels.class_names, strict=True))
    by_class: dict[str, list[str]] = {}
    line_of: dict[str, int] = {}
    faults = []
    for line, row in enumerate(rows, start=3):
        if len(row) != len(_HEADER):
            faults.append(f"line {line} has {len(row)} fields, expected {len(_HEADER)}")
            continue
        class_id, name, department, product_id, product_path = row
        if class_id not in names:
            faults.append(f"line {line}: class {class_id!r} is not in the class list")
            continue
        if class_id in by_class:
            faults.append(f"line {line}: class {class_id} ({name}) is already on line {line_of[class_id]}")
            continue
        by_class[class_id], line_of[class_id] = row, line
        if name != names[class_id]:
            faults.append(f"line {line}: class {class_id} is {names[class_id]!r}, not {name!r}")
        if department not in DEPARTMENTS:
            known = ", ".join(sorted(DEPARTMENTS))
            faults.append(f"line {line}: {department!r} is no department; known are: {known}")
        elif department == NOT_A_PRODUCT:
            if product_id or product_path:
                faults.append(f"line {line}: {NOT_A_PRODUCT} has no product_id and no product_path")
        elif not (re.fullmatch(r"[1-9]\d{0,8}", product_id, re.ASCII) and product_path):
            faults.append(f"line {line}: product_id must be a number and product_path a text, got {product_id!r}")
    return by_class, faults


def _missing(by_class: dict[str, list[str]], labels: Labels) -> list[tuple[str, str]]:
    pairs = zip(labels.class_ids, labels.class_names, strict=True)
    return [(class_id, name) for class_id, name in pairs if class_id not in by_class]
