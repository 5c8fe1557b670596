"""What one run of a DAG can be told to do: records behind Airflow's trigger form, the command line and the API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import date
from typing import Any, Self

from refund.errors import SettingsError


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """The parameters of one run of a DAG; every field has a default and a ``help`` in its metadata.

    The metadata may hold ``min`` and ``max``, ``choices`` (all values that are allowed) and ``format`` (``date``). A
    default of None means a text that may be left out.

    Raises:
        SettingsError: a value is out of its range; the text names field, value and range.
    """

    def __post_init__(self) -> None:
        for spec in fields(self):
            value = getattr(self, spec.name)
            if "min" in spec.metadata:
                low, high = spec.metadata["min"], spec.metadata["max"]
                if not low <= value <= high:  # also refuses NaN
                    msg = f"{spec.name} must lie in {low}..{high}, got {value!r}"
                    raise SettingsError(msg)
            if "choices" in spec.metadata and value not in spec.metadata["choices"]:
                msg = f"{spec.name} must be one of {', '.join(map(str, spec.metadata['choices']))}, got {value!r}"
                raise SettingsError(msg)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Build from what a form, a command line or JSON gives; texts are read as the field's type.

        Raises:
            SettingsError: an unknown name, or a value that cannot be read.
        """
        known = {spec.name: spec for spec in fields(cls)}
        unknown = sorted(set(values) - set(known))
        if unknown:
            msg = f"unknown parameter {unknown[0]!r}; known are: {', '.join(known)}"
            raise SettingsError(msg)
        read = {name: _read(name, value, known[name].default) for name, value in values.items()}
        return cls(**read)

    @classmethod
    def describe(cls) -> list[dict[str, Any]]:
        """One entry per parameter (``name, default, help`` and what else the metadata hold), to build forms from."""
        return [{"name": spec.name, "default": spec.default, **spec.metadata} for spec in fields(cls)]


@dataclass(frozen=True, slots=True, kw_only=True)
class NightParams(Params):
    """The parameters of one run of ``refund_nightly``; every field has a default, so an empty form is a normal night.

    Raises:
        SettingsError: a value is of the wrong type or out of its range; the text names field, value and range.
    """

    run_date: str | None = field(
        default=None,
        metadata={
            "help": "Night to run, YYYY-MM-DD. Empty: the scheduled date, or yesterday for a run by hand.",
            "format": "date",
        },
    )
    prefix: str = field(default="incoming/", metadata={"help": "Where the warehouse drops photos; ends with a slash."})
    model: str = field(default="champion", metadata={"help": "Model to use: an alias or name@version."})
    batch_size: int = field(
        default=8,
        metadata={
            "help": "Photos handed to an inference thread at once; results do not depend on it.",
            "min": 1,
            "max": 256,
        },
    )
    shard_size: int = field(
        default=4000, metadata={"help": "Photos per shard (mapped task).", "min": 1, "max": 100_000}
    )
    top_k: int = field(default=5, metadata={"help": "Classes kept per photo.", "min": 1, "max": 10})
    review_threshold: float = field(
        default=0.5, metadata={"help": "A category score below this sends the photo to review.", "min": 0.0, "max": 1.0}
    )
    late_days: int = field(
        default=2, metadata={"help": "Earlier photo dates to look at again for late photos.", "min": 0, "max": 60}
    )
    force: bool = field(default=False, metadata={"help": "Classify again photos whose outcome would be unchanged."})
    dry_run: bool = field(default=False, metadata={"help": "Do everything but publish: no rows, no report."})

    def __post_init__(self) -> None:
        if self.run_date is not None:
            parse_run_date(self.run_date)
        if not self.prefix.endswith("/") or self.prefix.startswith("/"):
            msg = f"prefix must end with a slash and not start with one, got {self.prefix!r}"
            raise SettingsError(msg)
        if not self.model:
            msg = "model must be an alias or name@version, got an empty text"
            raise SettingsError(msg)
        Params.__post_init__(self)  # super() does not work in a slotted dataclass


EARLIEST_DATE = date(1971, 1, 1)  # no night's late_days reach the day that undated photos are kept under


def parse_run_date(text: str) -> date:
    """Read ``YYYY-MM-DD``, from `EARLIEST_DATE` on.

    Raises:
        SettingsError: it is no date of that form, or before the earliest.
    """
    try:
        parsed = date.fromisoformat(text)
    except (ValueError, TypeError):
        parsed = None
    if parsed is None or parsed.isoformat() != text:  # fromisoformat also takes 20260102 and 2026-W01-5
        msg = f"run date must read YYYY-MM-DD, for example 2026-11-21; got {text!r}"
        raise SettingsError(msg)
    if parsed < EARLIEST_DATE:
        msg = f"run date must be {EARLIEST_DATE} or later (1970-01-01 stands for photos without a date); got {text!r}"
        raise SettingsError(msg)
    return parsed


def _read(name: str, value: Any, default: Any) -> Any:
    if default is None:
        if value is not None and not isinstance(value, str):
            msg = f"{name} must be of type str, got {value!r}"
            raise SettingsError(msg)
        return (value or "").strip() or None
    if default is MISSING or not isinstance(value, str):
        wanted = type(default)
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if type(value) is not wanted:
            msg = f"{name} must be of type {wanted.__name__}, got {value!r}"
            raise SettingsError(msg)
        return value
    text = value.strip()
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}[text.lower()]
        if isinstance(default, int):
            return int(text)
        if isinstance(default, float):
            return float(text)
    except (ValueError, KeyError):
        msg = f"{name} must be of type {type(default).__name__}, got {value!r}"
        raise SettingsError(msg) from None
    return text
