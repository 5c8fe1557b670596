"""Keeps a run: ``performance.json``, ``performance.svg``, and the tables between the marks of ``performance.md``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import fill
from typing import Any

from benchmarks.chart import chart
from benchmarks.results import write_json
from benchmarks.tables import sheets, target_sheet

DOCS = Path(__file__).parent.parent / "docs"
NAME = "performance"
MARKS = {part: (f"<!-- {part}: begin -->", f"<!-- {part}: end -->") for part in ("targets", "figures")}


def keep(folder: Path, content: Mapping[str, Any]) -> None:
    """Write the JSON and the picture into the folder, and the tables of the page where one lies there."""
    write_json(folder / f"{NAME}.json", content)
    (folder / f"{NAME}.svg").write_text(chart(content), encoding="utf-8")
    page = folder / f"{NAME}.md"
    if page.is_file():
        page.write_text(replaced(page.read_text(encoding="utf-8"), content), encoding="utf-8")


def replaced(text: str, content: Mapping[str, Any]) -> str:
    """The page with this run between its marks.

    Raises:
        ValueError: the page has no such marks.
    """
    made = {"targets": f"{told(content)}\n\n{target_sheet(content).markdown()}", "figures": figures(content)}
    for part, (begin, end) in MARKS.items():
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            msg = f"the page has no marks {begin} and {end}, between which the run writes its tables"
            raise ValueError(msg)
        text = f"{before}{begin}\n{made[part]}\n{end}{after}"
    return text


def told(content: Mapping[str, Any]) -> str:
    """When, where and with what it was measured."""
    machine = content["machine"]
    ours = ", ".join(f"{name} {number}" for name, number in machine["libraries"].items())
    theirs = {f"{name} {number}" for one in content["rival_versions"].values() for name, number in one.items()}
    parts = [
        f"Measured on {content['measured_at'][:10]}: {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['memory_gb']:g} GB, {machine['system']}, Python {machine['python']}; "
        f"{content['rounds_run']} interleaved rounds, load average {content['load_before']} before and "
        f"{content['load_after']} after, ours included. {content['photographs']}; model "
        f"{content['model']}. Ours: {ours}."
    ]
    if theirs:
        parts.append(f"Theirs: {', '.join(sorted(theirs))}.")
    parts += [f"{reason}." for reason in content["left_out"].values()]
    return fill(" ".join(parts), 120)


def figures(content: Mapping[str, Any]) -> str:
    """All tables but the targets."""
    return "\n\n".join(f"**{sheet.title}**\n\n{sheet.markdown()}" for sheet in list(sheets(content))[1:])
