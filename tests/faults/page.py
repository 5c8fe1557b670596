"""Writes docs/reliability.md from the faults that tests cause: ``python -m tests.faults.page``."""

from __future__ import annotations

import re
from itertools import groupby

from tests.conftest import REPOSITORY
from tests.faults.catalogue import faults

PAGE = REPOSITORY / "docs" / "reliability.md"
BEGIN, END = "<!-- faults: written by tests/faults/page.py -->", "<!-- end of faults -->"


def table() -> str:
    """The part of the page between the two marks."""
    found = faults()
    slow = sum(fault.slow for fault in found)
    counted = f"{len(found)} faults; `make test` causes {len(found) - slow} of them, `make test-all` the other {slow}."
    lines = [BEGIN, "", counted, ""]
    for part, group in groupby(found, key=lambda fault: fault.part):
        lines += [f"### {part[0].upper()}{part[1:]}", ""]
        lines += [
            "| what happens | the person on call reads | recovery, and what the tables hold then | test |",
            "|---|---|---|---|",
        ]
        for fault in group:
            cells = (
                fault.what,
                f"`{fault.seen}`",
                f"{fault.recovery}. Then: {fault.after}",
                f"`{fault.test}`" + (" (slow)" if fault.slow else ""),
            )
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join([*lines, END])


def written(text: str) -> str:
    """The page with its part between the marks made anew."""
    return re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: table(), text, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
