"""One hostile file of the corpus, and what may become of it."""

from __future__ import annotations

from dataclasses import dataclass

from refund.errors import ReasonCode

ACCEPTED = "accepted"
SEED = 20261122

EMPTY, NO_IMAGE, FOREIGN = "empty_file", "not_an_image", "unsupported_format"
CORRUPT, TRUNCATED, SMALL, LARGE = "corrupt", "truncated", "too_small", "too_large"
# What the photo itself can be rejected for. Time, memory and crashes are not among them: no file of the corpus may cost
# a child, so each that does is a check that is missing.
OF_THE_FILE = frozenset({EMPTY, NO_IMAGE, FOREIGN, CORRUPT, TRUNCATED, SMALL, LARGE, "file_too_large"})
BROKEN = frozenset({CORRUPT, TRUNCATED})
ANY = OF_THE_FILE | {ACCEPTED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Specimen:
    """A file and the verdicts that are right for it."""

    family: str
    name: str  # unique; its suffix may lie
    body: bytes
    allowed: frozenset[str] = ANY
    same_as: bytes | None = None  # accepted only if it shows, pixel for pixel, what this file shows

    def __post_init__(self) -> None:
        if not self.allowed or not self.allowed <= {ACCEPTED, *ReasonCode}:
            msg = f"{self.name}: {sorted(self.allowed)} are no verdicts"
            raise ValueError(msg)
