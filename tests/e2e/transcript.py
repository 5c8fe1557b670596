"""Replays a page's console transcript: every command is typed again, and what it prints must be what the page shows.

A line ``…`` stands for any number of lines. Times, dates and run ids are not compared; ratios may stray by two points
and counts of photographs by five, because processors round differently. So may the end of a version, which is the
SHA-256 of the bytes built here: what the page calls by one name and this machine by another is remembered and put into
the commands that follow.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

BLOCK = re.compile(r"^```console\n(.*?)^```", re.DOTALL | re.MULTILINE)
ELLIPSIS = "…"
RATIO_TOLERANCE = 0.021  # of ratios; two points of percentages
COUNT_TOLERANCE = 5  # of photographs that a model said something of
_VERSION = re.compile(r"\b((?:float32|int8)-)([0-9a-f]{8})\b")
_VOLATILE = (
    (re.compile(r"\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d(?::\d\d)?)?"), "<time>"),
    (re.compile(r"\S+__<time>\S*"), "<run>"),
    (re.compile(r"\b\d+(?:\.\d+)? (?:s|ms)\b"), "<duration>"),
    (re.compile(r"\b[0-9a-f]{12,64}\b"), "<digest>"),
)
_COUNT = re.compile(r"(?<![\w.])\d+(?= (?:of \d+ )?photographs)")
_RATIO = re.compile(r"(?<![\w.])[-+−±]?(?:\d+\.\d+%?|\d+%)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One command of a page and the lines below it."""

    command: str
    lines: tuple[str, ...]


@dataclass(slots=True)
class Replay:
    """Compares what commands print with what the page shows, and learns the versions of this machine."""

    versions: dict[str, str] = field(default_factory=dict)  # digits on the page -> digits here

    def command(self, step: Step) -> str:
        """The step's command with this machine's versions."""
        return _VERSION.sub(lambda found: found[1] + self.versions.get(found[2], found[2]), step.command)

    def difference(self, step: Step, printed: str) -> str | None:
        """What differs, or None."""
        actual = [line.rstrip() for line in printed.splitlines() if line.strip()]
        position, skipping = 0, False
        for expected in (line for line in step.lines if line.strip()):
            if expected.strip() == ELLIPSIS:
                skipping = True
                continue
            found = position
            while skipping and found < len(actual) and not self._alike(expected, actual[found]):
                found += 1
            if found >= len(actual) or not self._alike(expected, actual[found]):
                seen = actual[position] if position < len(actual) else "the end"
                return f"after {step.command!r} the page shows\n  {expected}\nand here comes\n  {seen}"
            position, skipping = found + 1, False
        if position < len(actual) and not skipping:
            return f"after {step.command!r} the page ends, and here comes\n  {actual[position]}"
        return None

    def _alike(self, expected: str, actual: str) -> bool:
        shown, here = _VERSION.findall(expected), _VERSION.findall(actual)
        if [prefix for prefix, _ in shown] != [prefix for prefix, _ in here]:
            return False
        learnt = dict(self.versions)
        for (_, page), (_, machine) in zip(shown, here, strict=True):
            if learnt.setdefault(page, machine) != machine:
                return False
        expected, actual = _settle(expected), _settle(actual)
        for pattern, tolerance in ((_RATIO, RATIO_TOLERANCE), (_COUNT, COUNT_TOLERANCE)):
            pairs = list(zip(pattern.findall(expected), pattern.findall(actual), strict=False))
            expected, actual = pattern.sub("<number>", expected), pattern.sub("<number>", actual)
            if any(abs(_value(one) - _value(other)) > tolerance for one, other in pairs):
                return False
        if expected != actual:
            return False
        self.versions = learnt
        return True


def steps(page: str) -> list[Step]:
    """Every command of the page's ``console`` blocks; a command ends where its line does not end in a backslash."""
    found: list[Step] = []
    for block in BLOCK.findall(page):
        lines = iter(block.splitlines())
        for line in lines:
            if line.startswith("$ "):
                command = line[2:]
                while command.endswith("\\"):
                    command = command[:-1].rstrip() + " " + next(lines).strip()
                found.append(Step(command=command, lines=()))
            else:
                found[-1] = Step(command=found[-1].command, lines=(*found[-1].lines, line))
    return found


def _settle(line: str) -> str:
    line = _VERSION.sub(r"\g<1><sha>", line)
    for pattern, name in _VOLATILE:
        line = pattern.sub(name, line)
    return re.sub(r"[█▉▊▋▌▍▎▏\s]+", " ", line).strip()


def _value(text: str) -> float:
    number = float(text.strip("%±").replace("−", "-").replace("+", ""))
    return number / 100 if text.endswith("%") else number
