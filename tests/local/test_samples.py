"""The sample photos: real pictures in every format, and some that must be rejected."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest
from PIL import Image, ImageFile

from refund.errors import StackError
from refund.local.samples import REJECTED_SAMPLES, SAMPLES, write_samples


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    write_samples(folder)
    return folder


def test_every_sample_is_written_in_a_folder_per_refund(tmp_path: Path) -> None:
    written = write_samples(tmp_path)
    names = [path.relative_to(tmp_path).as_posix() for path in written]
    assert sorted(names) == sorted([sample.path for sample in SAMPLES] + list(REJECTED_SAMPLES))
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(written), "no temporary file stays"
    assert all(name.startswith("R-1") and name.count("/") == 1 for name in names)


def test_good_samples_decode_at_their_size_in_the_format_of_their_name(folder: Path) -> None:
    formats = Counter()
    for sample in SAMPLES:
        with Image.open(folder / sample.path) as picture:
            picture.load()
            assert max(picture.size) == sample.long_side_px
            assert min(picture.size) >= 32
            assert picture.format is not None
            assert picture.format.lower().replace("jpeg", "jpg") == sample.path.rsplit(".", 1)[1]
            formats[picture.format] += 1
    assert set(formats) == {"JPEG", "PNG", "WEBP", "GIF", "BMP"}


def test_the_turned_photo_is_set_upright_by_its_exif_orientation(folder: Path) -> None:
    with Image.open(folder / "R-1001/turned.jpg") as picture:
        assert picture.width < picture.height
        assert picture.getexif()[0x0112] == 6


def test_no_two_samples_are_the_same_photo(folder: Path) -> None:
    digests = Counter(sha256((folder / sample.path).read_bytes()).hexdigest() for sample in SAMPLES)
    assert max(digests.values()) == 1


def test_rejected_samples_are_what_their_reason_says(folder: Path) -> None:
    assert (folder / "R-1011/empty.jpg").stat().st_size == 0
    with pytest.raises(OSError, match="cannot identify image file"):
        Image.open(folder / "R-1011/notes.jpg")
    with Image.open(folder / "R-1010/thumbnail.png") as picture:
        assert max(picture.size) == 16
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    with Image.open(folder / "R-1010/truncated.jpg") as picture, pytest.raises(OSError, match="truncated"):
        picture.load()


def test_a_second_writing_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    for path in write_samples(tmp_path):
        assert path.read_bytes() == (folder / path.relative_to(tmp_path)).read_bytes()


def test_a_folder_that_cannot_be_written_to_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match=r"sample photos cannot be written to .*choose a folder that you may write to"):
        write_samples(tmp_path / "file")
