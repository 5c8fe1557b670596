"""The faults that tests cause on purpose; docs/reliability.md is written from these and says what was tested."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import TypeVar

import tests.faults

Test = TypeVar("Test", bound=Callable[..., None])
PARTS = (
    "Postgres",
    "S3",
    "a worker",
    "the scheduler",
    "the API server",
    "the staging disk",
    "the model",
    "a staged file",
    "the clock",
    "photos",
    "two runs at once",
    "people",
)  # fmt: skip  (the order of the page)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One row of the page, and what its test must see."""

    part: str  # one of PARTS
    what: str  # what happens, in words
    seen: str  # what the person on call reads; "…" stands for any text
    recovery: str  # who does what: "the task retries by itself", "clear the run from fetch on"
    after: str  # what the tables hold then
    slow: bool = False  # whether `make test-all` runs it
    test: str = ""  # module and function, filled in by `faults`

    def __post_init__(self) -> None:
        if self.part not in PARTS:
            msg = f"part must be one of {PARTS}, got {self.part!r}"
            raise ValueError(msg)


class Watch:
    """What a test of a fault reports back: that the person on call saw what the page says."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.was_seen = False

    def check_seen(self, text: str) -> None:
        """Hold the page's words to what was really said."""
        said = " ".join(text.split())
        wanted = ".*".join(re.escape(" ".join(part.split())) for part in self.fault.seen.split("…"))
        assert re.search(wanted, said), f"the page says {self.fault.seen!r}, seen was {said!r}"
        self.was_seen = True


def fault(*, part: str, what: str, seen: str, recovery: str, after: str) -> Callable[[Test], Test]:
    """Mark a test as causing a fault; it takes the fixture ``watch`` and calls its ``check_seen``."""

    def mark(test: Test) -> Test:
        test.__fault__ = Fault(part=part, what=what, seen=seen, recovery=recovery, after=after)  # type: ignore[attr-defined]
        return test

    return mark


def faults() -> list[Fault]:
    """Every marked test's fault, in the order of the page."""
    found = []
    for module_info in pkgutil.iter_modules(tests.faults.__path__, "tests.faults."):
        if not module_info.name.rpartition(".")[2].startswith("test_"):
            continue
        module = importlib.import_module(module_info.name)
        marks = getattr(module, "pytestmark", [])
        module_slow = any(mark.name == "slow" for mark in (marks if isinstance(marks, list) else [marks]))
        for name, test in vars(module).items():
            if not isinstance(test, FunctionType) or not hasattr(test, "__fault__"):
                continue
            slow = module_slow or any(mark.name == "slow" for mark in getattr(test, "pytestmark", []))
            values = {field: getattr(test.__fault__, field) for field in ("part", "what", "seen", "recovery", "after")}
            found.append(Fault(**values, slow=slow, test=f"{module_info.name.rpartition('.')[2]}::{name}"))
    return sorted(found, key=lambda found_fault: PARTS.index(found_fault.part))
