"""The corpus: every hostile file, made by seed, and a sample of it that has every family in it."""

from __future__ import annotations

import random
from collections import defaultdict
from functools import cache
from pathlib import Path

from tests.corpus.bases import bases
from tests.corpus.cuts import cuts
from tests.corpus.disguises import disguises
from tests.corpus.flips import flips
from tests.corpus.frames import frames
from tests.corpus.kinds import kinds
from tests.corpus.metadata import metadata
from tests.corpus.sizes import sizes
from tests.corpus.specimen import ANY, SEED, Specimen
from tests.corpus.splices import polyglots, splices

ODD = "odd"
_PHOTOGRAPHS = 3
_MUTATED_ODD = ("hopper.jpg", "hopper.png", "hopper.gif", "hopper.webp", "dispose_op_none.png", "mode_16bit.png")


def corpus(shared: Path | None = None) -> tuple[Specimen, ...]:
    """Every file; with ``shared`` also the odd files and photographs beside the checkout, as they are and mutated.

    Raises:
        ValueError: two files have one name.
    """
    found = (*_self_made(), *(_beside(shared) if shared is not None else ()))
    if len({specimen.name for specimen in found}) != len(found):
        names = [specimen.name for specimen in found]
        msg = f"names that are there twice: {sorted({name for name in names if names.count(name) > 1})[:5]}"
        raise ValueError(msg)
    return found


@cache
def _self_made() -> tuple[Specimen, ...]:
    families = (sizes, splices, polyglots, disguises, frames, kinds, metadata)
    return (*cuts(bases()), *flips(bases()), *(specimen for family in families for specimen in family()))


@cache
def _beside(shared: Path) -> tuple[Specimen, ...]:
    images = shared / "images"
    odd = [
        Specimen(family=ODD, name=path.name, body=path.read_bytes(), allowed=ANY)
        for path in sorted((images / "odd").iterdir())
    ]
    photographs = sorted((images / "imagenet").iterdir(), key=lambda path: path.stat().st_size)
    chosen = {name: (images / "odd" / name).read_bytes() for name in _MUTATED_ODD}
    # the smallest: hundreds of mutants of each go over HTTP
    chosen |= {f"{path.stem}.jpg": path.read_bytes() for path in photographs[:_PHOTOGRAPHS]}
    return (*odd, *cuts(chosen), *flips(chosen))


def sample(specimens: tuple[Specimen, ...], count: int, *, seed: int = SEED) -> tuple[Specimen, ...]:
    """``count`` files by seed: the same share of every family, some of each, and what needs the most memory."""
    families = defaultdict(list)
    for specimen in specimens:
        families[specimen.family].append(specimen)
    rng = random.Random(seed)
    chosen = []
    largest = [specimen for specimen in specimens if specimen.name.startswith("size-largest")]
    for members in families.values():
        chosen += rng.sample(members, min(len(members), max(20, count * len(members) // len(specimens))))
    rng.shuffle(chosen)
    others = [specimen for specimen in chosen if specimen not in largest]
    return tuple(sorted([*largest, *others][:count], key=lambda specimen: specimen.name))
