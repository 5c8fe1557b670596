"""Files with wrong bytes: single ones, single bits, and bursts."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tests.corpus.bases import bases, format_of
from tests.corpus.specimen import ANY, FOREIGN, SEED, Specimen

SINGLES, BITS, BURSTS, HEADERS = 18, 14, 14, 18  # per picture


def flips(pictures: dict[str, bytes]) -> Iterator[Specimen]:
    for source, body in pictures.items():
        rng = random.Random(f"{SEED} flips {source}")
        kinds = ["byte"] * SINGLES + ["bit"] * BITS + ["burst"] * BURSTS + ["header"] * HEADERS
        for number, kind in enumerate(kinds):
            wrong = bytearray(body)
            at = rng.randrange(min(len(body), 80) if kind == "header" else len(body))
            if kind == "bit":
                wrong[at] ^= 1 << rng.randrange(8)
            else:
                count = rng.randint(2, 64) if kind == "burst" else 1
                wrong[at : at + count] = rng.randbytes(count)
            wrong = wrong[: len(body)]
            # A PNG's checksums cover its pixels: a changed one is refused, or the change was beside the picture.
            covered = format_of(source) == "PNG" and wrong[:8] == body[:8]
            yield Specimen(
                family="flip" if source in bases() else "photograph, flip",
                name=f"{kind}-{number}-at-{at}-{source}",
                body=bytes(wrong),
                allowed=ANY - {FOREIGN, "empty_file"} if covered else ANY,
                same_as=body if covered else None,
            )
