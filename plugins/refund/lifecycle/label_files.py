"""What a photograph truly shows, read from a CSV's rows or from the names of folders and files."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from refund.errors import LabelledSetError
from refund.model.labels import Labels
from refund.model.taxonomy import Taxonomy

MAX_FAULTS = 10  # told in one message
_CLASS_ID = re.compile(r"n\d{8}")
_HEADER = "path and class_id, category or both"


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """The truth about one photograph: its category and, where the label says so much, its class."""

    category: str
    class_id: str | None  # WordNet id


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledRow:
    """One row of a CSV."""

    path: str  # as it is written there
    label: Label


@dataclass(frozen=True, slots=True, kw_only=True)
class Truths:
    """The classes and categories that a label may name."""

    labels: Labels
    taxonomy: Taxonomy

    def label(self, *, class_id: str, category: str) -> Label:
        """The label that a class id, a category or both give; an empty text is none.

        Raises:
            ValueError: neither is given, one is unknown, or they contradict each other.
        """
        if category and category not in self.taxonomy.categories:
            msg = f"{category!r} is no category; expected one of {', '.join(self.taxonomy.categories)}"
            raise ValueError(msg)
        if not class_id:
            if not category:
                msg = "it has neither class_id nor category"
                raise ValueError(msg)
            return Label(category=category, class_id=None)
        if class_id not in self.labels.class_ids:
            msg = f"{class_id!r} is no class of the class list; expected an id like n01440764"
            raise ValueError(msg)
        filed = self.taxonomy.category_of(class_id)
        if category and category != filed:
            name = self.labels.class_names[self.labels.class_ids.index(class_id)]
            msg = f"class {class_id} ({name}) is filed under {filed}, the row says {category}; leave one of the two out"
            raise ValueError(msg)
        return Label(category=filed, class_id=class_id)

    def label_of_path(self, relative: str) -> Label | None:
        """The label in a path with ``/``: its innermost folder named as a class id or category, else ``<class id>_…``.

        None where no part names one.

        Raises:
            ValueError: a part reads like a class id that the class list does not have.
        """
        *folders, name = relative.split("/")
        for folder in reversed(folders):
            if folder in self.taxonomy.categories:
                return self.label(class_id="", category=folder)
            if _CLASS_ID.fullmatch(folder):
                return self.label(class_id=folder, category="")
        head = name.partition("_")[0]
        return self.label(class_id=head, category="") if _CLASS_ID.fullmatch(head) else None


def read_rows(body: bytes, *, place: str, truths: Truths) -> list[LabelledRow]:
    """The rows of a CSV with header (UTF-8, with or without byte order mark); other columns are left alone.

    Raises:
        LabelledSetError: it is no such CSV, or rows have no path or a label that is not to be had; names ten lines.
    """
    try:
        reader = csv.DictReader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True, restval="")
        header = reader.fieldnames or []
        counts = [header.count(name) for name in ("path", "class_id", "category")]
        if counts[0] != 1 or max(counts[1:]) != 1:
            begins = ",".join(header)[:80]
            msg = f"{place} must begin with a header that names {_HEADER}, each once; it begins with {begins!r}"
            raise LabelledSetError(msg)
        rows, faults = [], []
        for row in reader:
            path = row["path"].strip()
            try:
                if not path or "\0" in path:
                    msg = f"{path!r} is no path" if path else "it has no path"
                    raise ValueError(msg)
                label = truths.label(
                    class_id=(row.get("class_id") or "").strip(), category=(row.get("category") or "").strip()
                )
                rows.append(LabelledRow(path=path, label=label))
            except ValueError as exc:
                faults.append(f"line {reader.line_num}: {exc}")
    except (UnicodeDecodeError, csv.Error) as exc:
        msg = f"{place} is no CSV in UTF-8: {exc}; expected a header that names {_HEADER}"
        raise LabelledSetError(msg) from exc
    refuse(faults, place=place)
    if not rows:
        msg = f"{place} has a header and no rows; expected a row for each photograph"
        raise LabelledSetError(msg)
    return rows


def refuse(faults: Sequence[str], *, place: str) -> None:
    """Raise LabelledSetError with the first ten faults, where there are any."""
    if faults:
        more = [f"… and {len(faults) - MAX_FAULTS} more"] if len(faults) > MAX_FAULTS else []
        msg = f"{place} has {len(faults)} fault{'s' if len(faults) > 1 else ''}, correct the labels: " + "; ".join(
            [*faults[:MAX_FAULTS], *more]
        )
        raise LabelledSetError(msg)
