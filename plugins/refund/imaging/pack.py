"""The pack: what validation leaves on disk of one shard, a file of pixels and a table of facts, row by row the same."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from refund.errors import StagingCorruptError, StagingMissingError
from refund.imaging.decode import DEFAULT_SIZE
from refund.records import PhotoFacts
from refund.schemas import photos_schema

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

PIXELS_FILE = "pixels.npy"
PHOTOS_FILE = "photos.parquet"
_ROWS_AT_ONCE = 1000  # of the table of facts: as Python objects they take ten times what they take in the file


def create_pixels(path: Path, *, count: int, size: tuple[int, int] = DEFAULT_SIZE) -> None:
    """Write a ``.npy`` file of ``(count, H, W, 3) uint8`` zeros that takes no disk until pixels are written to it.

    ``size`` is (width, height). The file appears under its name only when it is complete.
    """
    from numpy.lib import format as npy

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            shape = (count, size[1], size[0], 3)
            npy.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
            stream.truncate(stream.tell() + count * size[0] * size[1] * 3)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def pixels_layout(path: Path) -> tuple[int, tuple[int, int, int, int]]:
    """Where the pixels of a pack begin, in bytes, and their shape ``(N, H, W, 3)``; the file's length is checked.

    Raises:
        StagingMissingError: there is no such file.
        StagingCorruptError: it is not a whole file of such pixels.
    """
    from numpy.lib import format as npy

    try:
        with path.open("rb") as stream:
            version = npy.read_magic(stream)
            if version != (1, 0):
                raise StagingCorruptError(_not_whole(path, f"a .npy file of version {version}"))
            shape, fortran_order, dtype = npy.read_array_header_1_0(stream)
            offset = stream.tell()
    except FileNotFoundError as exc:
        raise StagingMissingError(uri=str(path)) from exc
    except (ValueError, EOFError) as exc:
        raise StagingCorruptError(_not_whole(path, f"no .npy header ({exc})")) from exc
    if dtype.str != "|u1" or fortran_order or len(shape) != 4 or shape[3] != 3:
        raise StagingCorruptError(_not_whole(path, f"an array {shape} of {dtype}"))
    expected_bytes = offset + shape[0] * shape[1] * shape[2] * 3
    if (found_bytes := path.stat().st_size) != expected_bytes:
        raise StagingCorruptError(_not_whole(path, f"{found_bytes:,} bytes where its header says {expected_bytes:,}"))
    return offset, (shape[0], shape[1], shape[2], 3)


def _not_whole(path: Path, seen: str) -> str:
    return (
        f"{path} is not the (N, H, W, 3) uint8 array that validation writes: found {seen}. "
        f"Clear the shard's task validate, so that it is written again"
    )


def open_pixels(path: Path, mode: Literal["r", "r+"] = "r") -> NDArray[np.uint8]:
    """Map the pixels of a pack into memory, ``(N, H, W, 3) uint8``; nothing is read until it is used.

    Raises:
        StagingMissingError: there is no such file.
        StagingCorruptError: it is not a whole file of such pixels.
    """
    import numpy as np

    offset, shape = pixels_layout(path)
    if 0 in shape:  # an empty file part cannot be mapped
        return np.zeros(shape, dtype=np.uint8)
    return np.memmap(path, dtype=np.uint8, mode=mode, offset=offset, shape=shape)


def release_pixels(pixels: NDArray[np.uint8]) -> None:
    """Let go of the pages of `open_pixels` that were read; they are read again where they are used again.

    The kernel counts pages of a mapped file as the memory of the process that touched them, so that without this a
    task would seem to grow by as much as its pack has. Nothing is lost: a page that was written is the file's.
    """
    import mmap

    mapped = getattr(pixels, "_mmap", None)  # numpy's own; None for the zeros of an empty pack
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def write_photos(
    path: Path, facts: Sequence[PhotoFacts], photo_ids: Sequence[str], quarantine_keys: Sequence[str | None]
) -> None:
    """Write the table of facts; row *i* is the photo of slot *i*, in whatever order the facts come.

    Raises:
        ValueError: the slots are not each of 0 … N-1 once, or the three sequences differ in length.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    ordered = sorted(facts, key=lambda fact: fact.slot)
    if [fact.slot for fact in ordered] != list(range(len(photo_ids))) or len(quarantine_keys) != len(photo_ids):
        msg = (
            f"a pack needs one fact per slot: got {len(facts)} facts, {len(photo_ids)} photo ids, "
            f"{len(quarantine_keys)} quarantine keys, slots {[fact.slot for fact in ordered][:5]} …"
        )
        raise ValueError(msg)
    schema = photos_schema()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with pq.ParquetWriter(temporary, schema) as writer:
            for start in range(0, len(ordered), _ROWS_AT_ONCE):
                part = slice(start, start + _ROWS_AT_ONCE)
                rows = [_row(*each) for each in zip(ordered[part], photo_ids[part], quarantine_keys[part], strict=True)]
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _row(fact: PhotoFacts, photo_id: str, quarantine_key: str | None) -> dict[str, Any]:
    quality = fact.quality
    return {
        "photo_id": photo_id,
        "reason": fact.reason.value if fact.reason else None,
        "detail": fact.detail,
        "image_format": fact.image_format,
        "width_px": fact.width_px,
        "height_px": fact.height_px,
        "sha256": fact.sha256,
        "perceptual_hash": fact.perceptual_hash,
        "brightness_ratio": quality.brightness_ratio if quality else None,
        "contrast_ratio": quality.contrast_ratio if quality else None,
        "sharpness": quality.sharpness if quality else None,
        "entropy_bits": quality.entropy_bits if quality else None,
        "quality_labels": [label.value for label in quality.labels] if quality else [],
        "quarantine_key": quarantine_key,
    }


def read_photos(path: Path) -> pa.Table:
    """Read the table of facts and check its columns.

    Raises:
        StagingMissingError: there is no such file.
        StagingCorruptError: it is not a whole Parquet file, or has other columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:  # read_table would load all of pyarrow.dataset: 50 MB, 0.1 s
            table = file.read(use_threads=False)
    except FileNotFoundError as exc:
        raise StagingMissingError(uri=str(path)) from exc
    except (pa.ArrowException, OSError) as exc:
        msg = (
            f"{path} is not a whole Parquet file ({exc}); clear the shard's task validate, so that it is written again"
        )
        raise StagingCorruptError(msg) from exc
    if not table.schema.equals(expected := photos_schema()):
        msg = (
            f"{path} has the columns {', '.join(table.schema.names)}, expected {', '.join(expected.names)} with the "
            f"types of this version; clear the shard's task validate, so that it is written again"
        )
        raise StagingCorruptError(msg)
    return table
