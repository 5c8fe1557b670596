"""Writes the table of docs/corpus.md: ``python -m tests.corpus.page``. The slow test holds it to a real night."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from refund.errors import ReasonCode
from refund.imaging.examine import examine_photo
from refund.records import ImageLimits
from tests.conftest import REPOSITORY
from tests.corpus.mutants import corpus
from tests.corpus.specimen import ACCEPTED, Specimen

PAGE = REPOSITORY / "docs" / "corpus.md"
BEGIN, END = "<!-- table: written by tests/corpus/page.py -->", "<!-- end of table -->"
_WORDS = {
    "odd": "the odd files beside the checkout, as they are",
    "photograph, cut": "photographs beside the checkout, cut",
    "photograph, flip": "photographs beside the checkout, with wrong bytes",
    "cut": "cut at, before and after every boundary of the format",
    "flip": "wrong bytes: single ones, bits, bursts, in the header",
    "size": "sides and lengths from nothing to 2³², and pictures of every size",
    "splice": "the head of one file before the body of another",
    "polyglot": "files that are also ZIP, HTML, PDF, a script",
    "disguise": "names that lie, formats that are not for us",
    "frame": "animations with broken, empty or thousands of frames",
    "kind": "rare, forbidden and contradictory kinds of the formats",
    "metadata": "bombs, loops and nonsense in EXIF, profiles and text",
}
VERDICTS = (ACCEPTED, *(reason.value for reason in ReasonCode))


def rows(specimens: Sequence[Specimen], verdicts: Mapping[str, str]) -> dict[str, str]:
    """The table's line of each family that has specimens."""
    counted: dict[str, Counter[str]] = {}
    for specimen in specimens:
        counted.setdefault(specimen.family, Counter())[verdicts[specimen.name]] += 1
    lines = {}
    for family, counts in counted.items():
        told = ", ".join(f"{counts[verdict]:,} {verdict}" for verdict in VERDICTS if counts[verdict])
        lines[family] = f"| {_WORDS[family]} | {counts.total():,} | {told} |"
    return lines


def table(specimens: Sequence[Specimen], verdicts: Mapping[str, str]) -> str:
    """The part of the page between the marks."""
    lines = rows(specimens, verdicts)
    body = [lines[family] for family in _WORDS if family in lines]
    total = f"| **all** | **{len(specimens):,}** | |"
    return "\n".join([BEGIN, "", "| family | files | verdicts |", "|---|---|---|", *body, total, "", END])


if __name__ == "__main__":
    found = {}
    everything = corpus(REPOSITORY.parent / "shared")
    for each in everything:
        facts, _ = examine_photo(0, each.body, limits=ImageLimits())
        found[each.name] = facts.reason.value if facts.reason else ACCEPTED
    text = PAGE.read_text(encoding="utf-8")
    made = table(everything, found)
    PAGE.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: made, text, flags=re.DOTALL), encoding="utf-8")
