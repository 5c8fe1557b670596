"""The tables of a run, for the terminal and for docs/performance.md, both made from what its JSON keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.figures import lost_points, spread_of
from benchmarks.measure import Spread
from benchmarks.results import spread_text

RIVALS = {
    "tf_data": "tf.data + Keras, batches of 64",
    "one_predict": "one `model.predict` per photo",
    "ray_data": "Ray Data + Keras",
}
_STATE = "state"
_STATES = {True: "reached", False: "**not reached**, see [what holds it](#what-holds-it)", None: "not measured"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """One table: a heading, names of columns, and rows of Markdown text."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """With numbers to the right."""
        rule = ["---" if number == 0 or name == _STATE else "---:" for number, name in enumerate(self.head)]
        return "\n".join(f"| {' | '.join(line)} |" for line in (self.head, rule, *self.rows))


def sheets(content: Mapping[str, Any]) -> Iterator[Sheet]:
    """All tables, in order: targets, one per set, ratios, accuracy, memory."""
    yield target_sheet(content)
    for name in content["rounds"]:
        yield _set_sheet(content, name)
    yield Sheet(
        title="Ratios, each taken within a round",
        head=("what", "median (min to max)"),
        rows=[(title, _ratio(spread)) for title, spread in content["ratios"].items()],
    )
    if content["accuracy"]:
        yield _accuracy_sheet(content["accuracy"])
    if content["memory"]:
        yield _memory_sheet(content["memory"])


def target_sheet(content: Mapping[str, Any]) -> Sheet:
    """What was wanted and what came of it."""
    return Sheet(
        title="Targets",
        head=("figure", "wanted", "measured", _STATE),
        rows=[
            (
                row["figure"],
                f"{row['kind']} {row['wanted']:g}",
                "–" if row["measured"] is None else _ratio(row["measured"]),
                _STATES[row["reached"]],
            )
            for row in content["targets"]
        ],
    )


def _set_sheet(content: Mapping[str, Any], name: str) -> Sheet:
    facts = content["sets"][name]
    rejected = f", {facts['rejected']} of them to be rejected" if facts["rejected"] else ""
    rows = []
    for contender, rounds in content["rounds"][name].items():
        if not rounds:
            continue
        counted = rounds[0].get("classified")
        photos = f"{rounds[0]['photos']:,}" + (f", {counted:,} classified" if counted is not None else "")
        figures = [spread_text(spread_of(rounds, field)) for field in ("photos_per_s", "core_ms")]
        rows.append((RIVALS.get(contender, contender), photos, *figures))
    return Sheet(
        title=f"{name}: {facts['photos']:,} photos{rejected}, {facts['mean_bytes'] / 1000:,.0f} kB on average",
        head=("what", "photos a round", "photos/s", "core-ms a photo"),
        rows=rows,
    )


def _accuracy_sheet(accuracy: Mapping[str, Any]) -> Sheet:
    lost = lost_points(accuracy)
    told = "" if lost is None else f"; lost to speed: {lost:.1f} points"
    return Sheet(
        title=f"Top-1 on {accuracy['photos']} labelled photographs{told}",
        head=("what", "right"),
        rows=[(RIVALS.get(name, name), f"{100 * share:.1f} %") for name, share in accuracy["top1"].items()],
    )


def _memory_sheet(memory: Mapping[str, Any]) -> Sheet:
    nights = memory["nights"]
    stages = next(iter(nights.values()))["stages"]
    heads = [f"{int(photos):,} photos in {night['shards']} shard(s)" for photos, night in nights.items()]
    return Sheet(
        title=f"Peak memory of a task, MB: {memory['ratio']:.2f} times as much for the larger night",
        head=("task", *heads),
        rows=[
            (
                stage,
                *(_peak(night["stages"][stage]) for night in nights.values()),
            )
            for stage in stages
        ],
    )


def _peak(stage: Mapping[str, Any]) -> str:
    return f"{stage['peak_mb']:.0f} ({stage['anonymous_mb']:.0f} not of files)"


def show(console: Console, content: Mapping[str, Any]) -> None:
    """Print all tables."""
    for sheet in sheets(content):
        table = Table(title=sheet.title, title_justify="left")
        for number, name in enumerate(sheet.head):
            table.add_column(name, justify="right" if number else "left")
        for row in sheet.rows:
            table.add_row(*(_plain(cell) for cell in row))
        console.print(table)
    for reason in content["left_out"].values():
        console.print(reason)


def _plain(cell: str) -> str:
    return cell.partition(", see [")[0].replace("*", "").replace("`", "")


def _ratio(spread: Mapping[str, float]) -> str:
    found = Spread(**spread)
    if found.low == found.high:
        return f"{found.median:.2f}"
    return f"{found.median:.2f} ({found.low:.2f} to {found.high:.2f})"
