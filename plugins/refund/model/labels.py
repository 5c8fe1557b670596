"""The classes that the networks tell apart, in the order of their outputs."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from refund.errors import ConfigurationError
from refund.resources import include_path

CLASS_COUNT = 1000  # ImageNet; the shipped list is complete or it is refused
_HEADER = ["index", "class_id", "class_name"]
_CLASS_ID = re.compile(r"n\d{8}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Class ids (WordNet, unique) and names (not unique: ImageNet has two cranes and two maillots), by output index."""

    class_ids: tuple[str, ...]
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.class_ids) != len(self.class_names) or len(set(self.class_ids)) != len(self.class_ids):
            msg = (
                f"{len(self.class_ids)} class ids ({len(set(self.class_ids))} distinct), {len(self.class_names)} names"
            )
            raise ValueError(msg)

    def __len__(self) -> int:
        return len(self.class_ids)

    @property
    def sha256(self) -> str:
        """Hex digest of ids and names in order; line ends of the file play no part."""
        rows = zip(self.class_ids, self.class_names, strict=True)
        return sha256("".join(f"{class_id}\t{name}\n" for class_id, name in rows).encode()).hexdigest()


def load_labels(path: Path | None = None, *, count: int = CLASS_COUNT) -> Labels:
    """Read the class list (``index,class_id,class_name``), by default the one in ``include/``.

    Raises:
        ConfigurationError: the file is missing, has another header, a gap, a duplicate, or another number of classes.
    """
    path = path or include_path("imagenet_classes.csv")
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.reader(stream))
    except OSError as exc:
        msg = f"the class list {path} cannot be read: {exc.strerror}; restore it from the project"
        raise ConfigurationError(msg) from exc
    except (UnicodeDecodeError, csv.Error) as exc:
        msg = f"the class list {path} is not UTF-8 CSV: {exc}; restore it from the project"
        raise ConfigurationError(msg) from exc
    if not rows or rows[0] != _HEADER:
        seen = ",".join(rows[0]) if rows else "nothing"
        msg = f"{path} must begin with {','.join(_HEADER)}, it begins with {seen!r}; restore it from the project"
        raise ConfigurationError(msg)
    seen_at: dict[str, int] = {}
    for index, row in enumerate(rows[1:]):
        line = index + 2
        if len(row) != len(_HEADER) or not row[2]:
            msg = f"{path} line {line} must have an index, a class id and a name, it has {','.join(row)!r}"
            raise ConfigurationError(msg)
        if row[0] != str(index):
            msg = f"{path} line {line} must have index {index}, it has {row[0]!r}: indices count up from 0 without gaps"
            raise ConfigurationError(msg)
        if not _CLASS_ID.fullmatch(row[1]):
            msg = f"{path} line {line}: a class id reads like n01440764, this one is {row[1]!r}"
            raise ConfigurationError(msg)
        if row[1] in seen_at:
            msg = f"{path} names class {row[1]} twice, on lines {seen_at[row[1]]} and {line}"
            raise ConfigurationError(msg)
        seen_at[row[1]] = line
    if len(rows) - 1 != count:
        msg = f"{path} lists {len(rows) - 1} classes, expected {count}; restore it from the project"
        raise ConfigurationError(msg)
    return Labels(class_ids=tuple(row[1] for row in rows[1:]), class_names=tuple(row[2] for row in rows[1:]))
