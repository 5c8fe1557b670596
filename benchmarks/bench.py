"""The benchmark of a night: our stages, the floor and the rivals, on three sets, round after round, in one run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import accuracy, figures, floor, memory, stages
from benchmarks.arena import LONE_PREFIX, Arena, open_arena
from benchmarks.measure import Contender, Measurement, interleave
from benchmarks.photographs import PhotoSet, enlarged, find_photographs, labelled_photographs, repeated, with_rejects
from benchmarks.rivals.client import INTERPRETER, Rival, RivalFailedError, RivalLeftOutError, rival
from benchmarks.units import find_units, weights_file

_WARM_UP = 64  # photos: a batch of the rivals
_FLOOR_PHOTOS = 1_000  # a round: bare loops have nothing that is paid once


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How many photos each contender gets per round in each set, and how many rounds."""

    rounds: int
    ours: Mapping[str, int]  # our stages and the floor, by set
    rivals: Mapping[str, Mapping[str, int]]  # by rival and set; a rival that is not named is not measured
    memory: tuple[int, int]  # photos of the small and of the large night
    enlarge: int  # labelled photographs at 12 megapixels, at most


# The rivals are warm before their clock starts, so that what a photo costs them does not depend on how many there are.
# Several batches each all the same, for a pipeline with one batch has nothing to decode meanwhile.
_BATCHED = {figures.SMALL: 512, figures.LARGE: 192, figures.MIX: 256}
FULL = Sizes(
    rounds=5,
    # a whole shard, as most photos of a night lie in, of the set that the targets speak of first
    ours={figures.SMALL: 4_000, figures.LARGE: 480, figures.MIX: 1_000},
    rivals={
        "tf_data": _BATCHED,
        "one_predict": {figures.SMALL: 64, figures.LARGE: 24, figures.MIX: 32},
        "ray_data": _BATCHED,
    },
    memory=(memory.SMALL, memory.LARGE),
    enlarge=1_000,
)
QUICK = Sizes(
    rounds=2,
    ours={figures.SMALL: 64, figures.LARGE: 8, figures.MIX: 64},
    rivals={
        "tf_data": {figures.SMALL: 64, figures.LARGE: 8, figures.MIX: 64},
        "one_predict": {figures.SMALL: 8, figures.LARGE: 4, figures.MIX: 16},
    },
    memory=(40, 80),
    enlarge=8,
)


def run(*, sizes: Sizes, model: Path | None, progress: Callable[[str], None]) -> dict[str, Any]:
    """Prepare, measure, clean up; all that was found, as JSON values (`benchmarks.figures` says what they are)."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="refund-bench-")))
        photographs, source = find_photographs(scratch / "samples")
        units = find_units(model, scratch / "models", progress=progress)
        arena = stack.enter_context(
            open_arena(photographs=photographs, photos=_WARM_UP, model_folder=units.served, progress=progress)
        )
        sets = _sets(arena, photographs, sizes.ours, progress)
        rivals, left_out = _rivals(stack, arena, sizes.rivals, progress)
        stages.run_stages(arena, LONE_PREFIX)  # what is imported once must not fall into the first round
        load_before = _load()
        measured = {}
        for photos in sets:
            contenders = [
                stages.our_stages(arena, photos),
                stages.one_photo(arena),
                *floor.floor(arena, photos.first(_FLOOR_PHOTOS)),
                *(of_rival(one, photos, sizes.rivals[name][photos.name], left_out) for name, one in rivals.items()),
            ]
            found = interleave(contenders, rounds=sizes.rounds, progress=_prefixed(photos.name, progress))
            measured[photos.name] = {name: rounds for name, rounds in found.items() if len(rounds) == sizes.rounds}
        alive = {name: one for name, one in rivals.items() if name not in left_out}
        labelled = labelled_photographs()
        right = (
            accuracy.top1(
                arena,
                labelled=labelled,
                enlarge=sizes.enlarge,
                float32=units.float32,
                rivals=alive,
                progress=progress,
            )
            if labelled
            else None
        )
        return figures.content(
            measured=measured,
            sets={
                photos.name: {
                    "photos": len(photos.keys),
                    "rejected": len(photos.keys) - photos.good_count,
                    "mean_bytes": photos.mean_bytes,
                }
                for photos in sets
            },
            accuracy=right,
            memory=memory.peaks(arena, photographs, sizes=sizes.memory, progress=progress),
            facts={
                "photographs": source,
                "model": arena.services.registry.resolve("champion").model,
                "rounds_run": sizes.rounds,
                "left_out": left_out,
                "rival_versions": {name: dict(one.versions) for name, one in rivals.items()},
                "load_before": load_before,
                "load_after": _load(),
            },
        )


def run_memory(*, sizes: Sizes, model: Path | None, progress: Callable[[str], None]) -> dict[str, Any]:
    """Only the peaks of memory, as `benchmarks.memory.peaks` tells them."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="refund-bench-")))
        photographs, _ = find_photographs(scratch / "samples")
        units = find_units(model, scratch / "models", progress=progress)
        arena = stack.enter_context(
            open_arena(photographs=photographs, photos=1, model_folder=units.served, progress=progress)
        )
        return memory.peaks(arena, photographs, sizes=sizes.memory, progress=progress)


def _sets(
    arena: Arena, photographs: Sequence[bytes], counts: Mapping[str, int], progress: Callable[[str], None]
) -> list[PhotoSet]:
    progress("making and storing the three sets")
    mixed, good = with_rejects(photographs, photos=counts[figures.MIX])
    return [
        arena.lay_out(figures.SMALL, repeated(photographs, photos=counts[figures.SMALL]), prefix="small/"),
        arena.lay_out(figures.LARGE, enlarged(photographs, photos=counts[figures.LARGE]), prefix="large/"),
        arena.lay_out(figures.MIX, mixed, prefix="mix/", good=good),
    ]


def _rivals(
    stack: ExitStack, arena: Arena, wanted: Mapping[str, object], progress: Callable[[str], None]
) -> tuple[dict[str, Rival], dict[str, str]]:
    """Those that could be started, and why the others are left out."""
    started, left_out = {}, {}
    for name in wanted:
        progress(f"starting the rival {name}")
        entered = rival(
            name,
            python=INTERPRETER,
            access=arena.services.objects.access,
            weights=weights_file(),
            warm_up=arena.keys[:_WARM_UP],
        )
        try:
            started[name] = stack.enter_context(entered)
        except (RivalLeftOutError, RivalFailedError) as exc:
            left_out[name] = str(exc)
            progress(left_out[name])
    return started, left_out


def of_rival(one: Rival, photos: PhotoSet, count: int, left_out: dict[str, str]) -> Contender:
    """A rival over the first photos of a set; it must classify all that are good, and may classify more.

    One that dies is noted in ``left_out`` and asked no more: a quarter of an hour of the others is not lost with it.
    """
    keys, good = photos.keys[:count], sum(photos.good[:count])

    def run() -> dict[str, Measurement]:
        if one.name in left_out:
            return {}
        try:
            found = one.run(keys)
        except RivalFailedError as exc:
            left_out[one.name] = f"{one.name} is left out from {photos.name} on: {exc}"
            return {}
        if not good <= one.classified <= len(keys):
            msg = f"{one.name} classified {one.classified} of {len(keys)} photos, of which {good} are good"
            raise RuntimeError(msg)
        return {one.name: replace(found, classified=one.classified)}

    return Contender(name=one.name, run=run)


def _prefixed(name: str, progress: Callable[[str], None]) -> Callable[[str], None]:
    return lambda text: progress(f"{name}, {text}")


def _load() -> float:
    return round(os.getloadavg()[0], 2)
