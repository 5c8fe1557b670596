"""How many labelled photographs each contender gets right, and what our speed costs of that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.arena import Arena
from benchmarks.floor import bare_decode, full_decode
from benchmarks.photographs import enlarged
from benchmarks.rivals.client import Rival
from benchmarks.stages import NAME, run_stages
from refund.model.labels import load_labels
from refund.model.load import load_model

PREFIX, ENLARGED_PREFIX = "labelled/", "enlarged/"
ENLARGED = ", enlarged to 12 megapixels"  # where scaling while decoding has something to leave out
REFERENCE = "float32, every pixel decoded"
CROSSED = {"float32, scaled while decoding": bare_decode}  # tells the decoder's share from that of int8


def top1(
    arena: Arena,
    *,
    labelled: Sequence[tuple[str, bytes]],
    enlarge: int,
    float32: Path | None,
    rivals: Mapping[str, Rival],
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """The share of photographs whose class was found first, by contender; ``labelled`` are WordNet id and body.

    The first ``enlarge`` of them are asked for once more at 12 megapixels, of us alone. Photographs that a contender
    did not classify are wrong ones.
    """
    wanted = [wnid for wnid, _ in labelled]
    bodies = [body for _, body in labelled]
    photos = arena.lay_out("labelled", bodies, prefix=PREFIX)
    progress(f"enlarging {min(enlarge, len(bodies))} labelled photographs")
    large = enlarged(bodies[:enlarge], photos=len(bodies[:enlarge]), different=enlarge)
    layouts = {"": photos, ENLARGED: arena.lay_out("enlarged", large, prefix=ENLARGED_PREFIX)}
    found = {}
    for suffix, layout in layouts.items():
        progress(f"top-1 of {NAME}{suffix}")
        said = _published(arena, run_stages(arena, layout.prefix).run_id)
        found[f"{NAME}{suffix}"] = _share([said.get(key) for key in layout.keys], wanted[: len(layout.keys)])
        if float32 is None:
            continue
        for name, decode in ({REFERENCE: full_decode} | CROSSED).items():
            progress(f"top-1 of {name}{suffix}")
            pixels = np.stack([decode(body) for body in layout.bodies])
            found[f"{name}{suffix}"] = _share(_classes(float32, pixels), wanted[: len(layout.keys)])
    class_ids = load_labels().class_ids
    for name, rival in rivals.items():
        progress(f"top-1 of {name}")
        numbers = rival.classify(photos.keys)
        found[name] = _share([None if number is None else class_ids[number] for number in numbers], wanted)
    return {"photos": len(labelled), "top1": found}


def _published(arena: Arena, run_id: str) -> dict[str, str]:
    """What the night wrote into Postgres: class by key."""
    with arena.services.database.connect() as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT photo.key, prediction.class_id FROM refund.prediction "
            "JOIN refund.photo USING (photo_date, photo_id) WHERE run_id = %s",
            (run_id,),
        )
        return dict(cursor.fetchall())


def _classes(unit: Path, pixels: np.ndarray[Any, Any]) -> list[str]:
    with load_model(unit, threads=2) as model:
        return [model.labels.class_ids[number] for number in model.predict(pixels).argmax(axis=1)]


def _share(found: Sequence[str | None], wanted: Sequence[str]) -> float:
    return sum(mine == right for mine, right in zip(found, wanted, strict=True)) / len(wanted)
