"""The pack on disk: what is written is what is read, and anything else is refused with the way out."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from refund.errors import ReasonCode, StagingCorruptError, StagingMissingError
from refund.imaging.pack import (
    PHOTOS_FILE,
    PIXELS_FILE,
    create_pixels,
    open_pixels,
    read_photos,
    release_pixels,
    write_photos,
)
from refund.records import PhotoFacts, Quality, QualityLabel

QUALITY = Quality(
    brightness_ratio=0.5, contrast_ratio=0.25, sharpness=100.0, entropy_bits=7.5, labels=(QualityLabel.BLURRY,)
)
GOOD = PhotoFacts(
    slot=1, image_format="PNG", width_px=40, height_px=50, sha256="a" * 64, perceptual_hash=-5, quality=QUALITY
)
BAD = PhotoFacts(slot=0, reason=ReasonCode.CORRUPT, detail="broken", sha256="b" * 64)


def test_pixels_are_numpy_s_own_format_and_sparse(tmp_path):
    path = tmp_path / PIXELS_FILE
    create_pixels(path, count=2000)
    assert np.load(path, mmap_mode="r").shape == (2000, 224, 224, 3)
    assert path.stat().st_blocks * 512 < 1_000_000
    assert [entry.name for entry in tmp_path.iterdir()] == [PIXELS_FILE]


def test_pixels_written_are_pixels_read(tmp_path):
    path = tmp_path / PIXELS_FILE
    create_pixels(path, count=3, size=(8, 4))
    writable = open_pixels(path, "r+")
    writable[1] = 7
    writable.flush()
    again = open_pixels(path)
    assert again.shape == (3, 4, 8, 3)
    assert [int(each.max()) for each in again] == [0, 7, 0]
    assert not again.flags.writeable


def test_a_pack_may_be_empty(tmp_path):
    create_pixels(tmp_path / PIXELS_FILE, count=0)
    assert open_pixels(tmp_path / PIXELS_FILE).shape == (0, 224, 224, 3)
    write_photos(tmp_path / PHOTOS_FILE, [], [], [])
    assert read_photos(tmp_path / PHOTOS_FILE).num_rows == 0


def resident_bytes(path):
    """What this process holds of a file that it has mapped, as the kernel counts it."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    return sum(
        int(next(after for after in lines if after.startswith("Rss:")).split()[1]) * 1024
        for line in lines
        if line.endswith(str(path))
    )


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_pixels_that_were_used_can_be_let_go_of(tmp_path):
    path = tmp_path / PIXELS_FILE
    create_pixels(path, count=40)
    open_pixels(path, "r+")[:] = 9
    pixels = open_pixels(path)
    assert int(pixels[:40].min()) == 9
    assert resident_bytes(path) >= pixels.nbytes
    release_pixels(pixels)
    assert resident_bytes(path) == 0
    assert int(pixels[20:].min()) == 9
    release_pixels(np.zeros((0, 4, 4, 3), dtype=np.uint8))  # an empty pack has nothing to let go of


@pytest.mark.parametrize("change", [-1, 1])
def test_pixels_of_the_wrong_length_are_refused(tmp_path, change):
    path = tmp_path / PIXELS_FILE
    create_pixels(path, count=1, size=(8, 8))
    with path.open("r+b") as stream:
        stream.truncate(128 + 192 + change)
    with pytest.raises(StagingCorruptError, match=rf"found {320 + change} bytes where its header says 320\. Clear the"):
        open_pixels(path)


@pytest.mark.parametrize("content", [b"", b"half a head", b"\x93NUMPY\x01\x00\xff"])
def test_pixels_without_a_header_are_refused(tmp_path, content):
    path = tmp_path / PIXELS_FILE
    path.write_bytes(content)
    with pytest.raises(StagingCorruptError, match=r"is not the \(N, H, W, 3\) uint8 array .* found no \.npy header"):
        open_pixels(path)


def test_another_array_is_refused(tmp_path):
    path = tmp_path / PIXELS_FILE
    np.save(path, np.zeros((2, 4, 4, 3), dtype=np.float32))
    with pytest.raises(StagingCorruptError, match=r"found an array \(2, 4, 4, 3\) of float32"):
        open_pixels(path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(StagingMissingError, match=r"pixels\.npy is not there; .* Clear the run from the task fetch on"):
        open_pixels(tmp_path / PIXELS_FILE)
    with pytest.raises(StagingMissingError, match=r"photos\.parquet is not there"):
        read_photos(tmp_path / PHOTOS_FILE)


def test_facts_written_are_facts_read_in_slot_order(tmp_path):
    write_photos(tmp_path / PHOTOS_FILE, [GOOD, BAD], ["first", "second"], ["quarantine/first", None])
    bad, good = read_photos(tmp_path / PHOTOS_FILE).to_pylist()
    assert (bad["photo_id"], bad["reason"], bad["detail"], bad["quarantine_key"]) == (
        "first",
        "corrupt",
        "broken",
        "quarantine/first",
    )
    assert (bad["width_px"], bad["sharpness"], bad["quality_labels"]) == (None, None, [])
    assert (good["photo_id"], good["reason"], good["perceptual_hash"]) == ("second", None, -5)
    assert (good["sharpness"], good["quality_labels"], good["width_px"]) == (100.0, ["blurry"], 40)


@pytest.mark.parametrize(
    ("facts", "ids", "keys"), [([GOOD], ["a"], [None]), ([BAD, BAD], ["a", "b"], [None] * 2), ([BAD], ["a"], [])]
)
def test_facts_must_cover_every_slot_once(tmp_path, facts, ids, keys):
    with pytest.raises(ValueError, match="a pack needs one fact per slot"):
        write_photos(tmp_path / PHOTOS_FILE, facts, ids, keys)


def test_a_half_written_table_is_refused(tmp_path):
    path = tmp_path / PHOTOS_FILE
    write_photos(path, [BAD], ["first"], [None])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StagingCorruptError, match=r"is not a whole Parquet file .* clear the shard's task validate"):
        read_photos(path)


def test_a_table_with_other_columns_is_refused(tmp_path):
    pq.write_table(pa.table({"photo": [1]}), tmp_path / PHOTOS_FILE)
    with pytest.raises(StagingCorruptError, match=r"has the columns photo, expected photo_id, reason, "):
        read_photos(tmp_path / PHOTOS_FILE)
