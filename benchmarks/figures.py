"""What a run of the benchmark says: sums, ratios and targets, all made from the rounds that its JSON keeps.

The content of ``docs/performance.json``, which `content` makes:

- ``rounds``: by set and contender, a list of ``{photos, wall_s, cpu_s}``, one per round; ``classified`` where counted
- ``ratios``: by title, ``{median, low, high}``, each taken within a round
- ``accuracy``: ``{photos, top1: {contender: share}}``, or null; ``memory``: see `benchmarks.memory.peaks`
- ``targets``: what was wanted, what was measured, and whether it is reached (null: not measured)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from benchmarks.accuracy import ENLARGED, REFERENCE
from benchmarks.floor import PARTS, SUM
from benchmarks.machine import machine
from benchmarks.measure import Measurement, Spread
from benchmarks.stages import FURTHER, NAME, ONE, added

SMALL, LARGE, MIX = "500x375", "12 MP", "mix"
Measured = Mapping[str, Mapping[str, Sequence[Measurement]]]  # by set and contender
_RIVALS = ("tf_data", "one_predict", "ray_data")


def content(
    *,
    measured: Measured,
    sets: Mapping[str, Any],
    accuracy: Mapping[str, Any] | None,
    memory: Mapping[str, Any] | None,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that is kept of a run, as JSON values."""
    measured = {name: with_sums(of_set) for name, of_set in measured.items()}
    found = ratios(measured)
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **facts,
        "machine": machine(),
        "targets": targets(found, accuracy=accuracy, memory=memory),
        "ratios": {title: _short(spread) for title, spread in found.items()},
        "accuracy": accuracy,
        "memory": memory,
        "sets": dict(sets),
        "rounds": {
            name: {
                contender: [
                    {key: round(value, 4) for key, value in asdict(one).items() if value is not None} for one in rounds
                ]
                for contender, rounds in of_set.items()
            }
            for name, of_set in measured.items()
        },
    }


def with_sums(measured: Mapping[str, Sequence[Measurement]]) -> dict[str, list[Measurement]]:
    """Add, round by round, the sum of the bare loops, and our stages without what every shard costs once."""
    found = {name: list(rounds) for name, rounds in measured.items()}
    found[SUM] = [added(parts) for parts in zip(*(measured[name] for name in PARTS), strict=True)]
    found[FURTHER] = [
        replace(
            all_, photos=all_.photos - 1, wall_s=all_.wall_s - one.wall_s, cpu_s=all_.cpu_s - one.cpu_s, classified=None
        )
        for all_, one in zip(measured[NAME], measured[ONE], strict=True)
        if all_.photos > 1
    ]
    return found


def ratios(measured: Measured) -> dict[str, Spread]:
    """What is divided by what, each within a round; a contender that was not measured has none."""
    found = {}
    for name, of_set in measured.items():
        for rival in _RIVALS:
            for unit, field in (("photos/s", "wall_ms"), ("core-ms", "core_ms")):
                if rival in of_set:  # more photos a second is less time a photo
                    found[f"{name}: {rival} / our stages, {unit}"] = _within(of_set, rival, NAME, field)
        found[f"{name}: floor / our stages, core-ms"] = _within(of_set, SUM, NAME, "core_ms")
        if of_set[FURTHER]:
            found[f"{name}: floor / our stages per further photo, core-ms"] = _within(of_set, SUM, FURTHER, "core_ms")
        found[f"{name}: share of what a shard costs once, core-ms"] = Spread.of(
            [one.cpu_s / all_.cpu_s for one, all_ in zip(of_set[ONE], of_set[NAME], strict=True)]
        )
    return found


def _within(of_set: Mapping[str, Sequence[Measurement]], above: str, below: str, field: str) -> Spread:
    pairs = zip(of_set[above], of_set[below], strict=True)
    return Spread.of([getattr(mine, field) / getattr(other, field) for mine, other in pairs])


def targets(
    found: Mapping[str, Spread], *, accuracy: Mapping[str, Any] | None, memory: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """What was wanted of a run, beside what was measured; the bound is on the median."""
    rows = [
        _target(
            "our stages against tf.data and Keras, 500x375, photos/s", f"{SMALL}: tf_data / our stages, photos/s", 3.0
        ),
        _target(
            "our stages against one predict per photo, 500x375, photos/s",
            f"{SMALL}: one_predict / our stages, photos/s",
            20.0,
        ),
        _target(
            "our stages against tf.data and Keras, 12 megapixels, photos/s",
            f"{LARGE}: tf_data / our stages, photos/s",
            4.0,
        ),
        _target("floor over our stages, 500x375, core-ms a photo", f"{SMALL}: floor / our stages, core-ms", 0.85),
    ]
    for row in rows:
        spread = found.get(row.pop("of"))
        row |= {"measured": _short(spread) if spread else None, "reached": spread and spread.median >= row["wanted"]}
    grown = _single(memory["ratio"] if memory else None)
    rows.append(_bound("peak memory of the larger night over the smaller", 1.1, grown))
    rows.append(_bound("accuracy lost to speed, points of top-1", 0.5, _single(lost_points(accuracy))))
    return rows


def lost_points(accuracy: Mapping[str, Any] | None) -> float | None:
    """Points of top-1 that our stages lose to float32 with every pixel decoded; None where one was not measured.

    Of the photographs as they are and enlarged to 12 megapixels, where both were measured, that which loses more.
    """
    top1: Mapping[str, float] = accuracy["top1"] if accuracy is not None else {}
    lost = [
        top1[f"{REFERENCE}{suffix}"] - top1[f"{NAME}{suffix}"]
        for suffix in ("", ENLARGED)
        if f"{REFERENCE}{suffix}" in top1
    ]
    return round(100 * max(lost), 2) if lost else None


def _target(figure: str, of: str, wanted: float) -> dict[str, Any]:
    return {"figure": figure, "of": of, "wanted": wanted, "kind": "at least"}


def _bound(figure: str, wanted: float, measured: dict[str, float] | None) -> dict[str, Any]:
    reached = None if measured is None else measured["median"] <= wanted
    return {"figure": figure, "wanted": wanted, "kind": "at most", "measured": measured, "reached": reached}


def _single(value: float | None) -> dict[str, float] | None:
    return None if value is None else {"median": value, "low": value, "high": value}


def _short(spread: Spread) -> dict[str, float]:
    return {name: round(value, 4) for name, value in asdict(spread).items()}


def spread_of(rounds: Sequence[Mapping[str, float]], field: str) -> Spread:
    """The spread of a figure of `Measurement` over rounds as the JSON keeps them."""
    measured = [Measurement(photos=int(one["photos"]), wall_s=one["wall_s"], cpu_s=one["cpu_s"]) for one in rounds]
    return Spread.of([getattr(one, field) for one in measured])
