"""Thousands of hostile files through a real night: each has one verdict, the right one, and costs only itself."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from pathlib import Path

import pytest

from refund.errors import ReasonCode
from refund.imaging.examine import examine_photo
from refund.records import ImageLimits
from tests.conftest import REPOSITORY
from tests.corpus.mutants import corpus, sample
from tests.corpus.nights import CorpusNight, run_night
from tests.corpus.page import PAGE, rows
from tests.corpus.specimen import ACCEPTED, Specimen
from tests.night.conftest import World

LIMITS = ImageLimits()
SAMPLE = 500
# The limits that docs/corpus.md states. Decoding: the interpreter and two children; the largest picture allowed (4096 x
# 4096) takes 16 million pixels of 4 bytes, and laying it on white takes four copies of them.
TASK_BYTES = 700_000_000
DECODING_BYTES = 1_000_000_000


@pytest.fixture
def beside() -> Path | None:
    """The folder of odd files and photographs, where it is; the corpus is large enough without."""
    folder = REPOSITORY.parent / "shared"
    return folder if (folder / "images").is_dir() else None


def pixels_sha256(body: bytes) -> str | None:
    _, pixels = examine_photo(0, body, limits=LIMITS)
    return None if pixels is None else hashlib.sha256(pixels.tobytes()).hexdigest()


def faults(night: CorpusNight, specimens: Sequence[Specimen]) -> list[str]:
    """Every verdict that is not right, in words."""
    shown: dict[bytes, str | None] = {}
    found = []
    for specimen in specimens:
        (verdict,) = night.verdicts[specimen.name]
        if verdict not in specimen.allowed:
            found.append(f"{specimen.name}: {verdict} ({night.details[specimen.name]}), not {sorted(specimen.allowed)}")
        elif verdict == ACCEPTED and specimen.same_as is not None:
            if specimen.same_as not in shown:
                shown[specimen.same_as] = pixels_sha256(specimen.same_as)
            if night.pixels[specimen.name] != [shown[specimen.same_as]]:
                found.append(f"{specimen.name}: accepted, but it shows something else than what it was made from")
    return found


def check(night: CorpusNight, specimens: Sequence[Specimen]) -> None:
    names = {specimen.name for specimen in specimens}
    assert set(night.verdicts) == set(night.pixels) == names
    assert {name: said for name, said in night.verdicts.items() if len(said) != 1} == {}
    assert {said for (said,) in night.verdicts.values()} <= {ACCEPTED, *ReasonCode}
    assert faults(night, specimens) == []
    accepted = sum(said == [ACCEPTED] for said in night.verdicts.values())
    assert night.counts == {
        "photos": len(names),
        "classified": accepted,
        "rejected": len(names) - accepted,
        "unchanged": 0,
    }
    assert 0 < night.task_peak_bytes < TASK_BYTES
    assert 0 < night.decoding_peak_bytes < DECODING_BYTES


def over_long(count: int) -> Specimen:
    return Specimen(
        family="size", name="size-over-long.jpg", body=bytes(count), allowed=frozenset({ReasonCode.FILE_TOO_LARGE})
    )


def check_was_not_downloaded(world: World, night: CorpusNight, *, size: int, most: int) -> None:
    assert night.details["size-over-long.jpg"] == f"{size:,} bytes, at most {most:,} are taken"
    assert world.rows("SELECT size_bytes, sha256 FROM refund.photo WHERE key LIKE '%/size-over-long.jpg'") == [
        (size, None)  # nobody has seen its bytes
    ]
    assert world.rows("SELECT count(*) FROM refund.photo WHERE sha256 IS NULL") == [(1,)]


def test_the_corpus_is_large_without_any_file_beside_it() -> None:
    specimens = corpus(None)
    assert len(specimens) >= 5_000
    assert len({specimen.body for specimen in specimens}) >= 5_000  # lying names repeat a body


def test_a_sample_of_the_corpus_through_a_night(world: World, beside: Path | None) -> None:
    most = 4_000_000
    specimens = [*sample(corpus(beside), SAMPLE - 1), over_long(most + 1)]
    assert len(specimens) == SAMPLE
    night = run_night(world, specimens, max_bytes=most)
    check(night, specimens)
    check_was_not_downloaded(world, night, size=most + 1, most=most)
    for specimen in specimens[:-1]:  # the same bytes have the same verdict, in isolation and here, again and again
        first, second = (examine_photo(0, specimen.body, limits=LIMITS)[0] for _ in range(2))
        assert first == second
        assert [first.reason or ACCEPTED] == night.verdicts[specimen.name]


@pytest.mark.slow  # three minutes beside other work, seven beside much
def test_the_whole_corpus_through_a_night(world: World, beside: Path | None) -> None:
    size = 200 * 1024 * 1024
    specimens = corpus(beside)
    night = run_night(world, [*specimens, over_long(size)])
    check(night, [*specimens, over_long(size)])
    check_was_not_downloaded(world, night, size=size, most=LIMITS.max_bytes)
    page = PAGE.read_text(encoding="utf-8")
    lines = rows(specimens, {name: said for name, (said,) in night.verdicts.items()})
    missing = [line for line in lines.values() if line not in page]
    assert missing == [], "run: python -m tests.corpus.page"


def test_no_metadata_of_a_photo_ends_in_its_facts() -> None:
    """EXIF can hold where a customer lives; whole or broken, a photo's facts say nothing of it."""
    from tests.corpus.bases import bases, chunk
    from tests.corpus.metadata import with_exif

    mark = secrets.token_hex(16).encode()
    block = b"MM\0*\0\0\0\x08\0\1\1\x0e\0\2\0\0\0\x20\0\0\0\x1a\0\0\0\0" + mark  # ImageDescription
    gif, image = bases()["still.gif"], bases()["colour.png"]
    at = gif.index(b"\x2c\0\0\0\0")
    marked = [with_exif(source, block) for source in ("baseline.jpg", "colour.png", "lossy.webp")]
    marked += [gif[:at] + b"!\xfe\x20" + mark + b"\0" + gif[at:]]
    marked += [image[:33] + chunk(kind, mark + b"\0\0" + mark) + image[33:] for kind in (b"tEXt", b"zTXt", b"iCCP")]
    jpeg = bases()["baseline.jpg"]
    marked += [jpeg[:2] + b"\xff\xfe\0\x22" + mark + jpeg[2:]]
    for body in marked:
        assert mark in body
        for broken in (body, body[: len(body) * 2 // 3], body[: body.index(mark) + 40]):
            facts, _ = examine_photo(0, broken, limits=LIMITS)
            assert mark.decode() not in repr(facts)
