"""Reads and writes the staged Parquet files of a run; every read is checked against `refund.schemas`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from refund.errors import StagingCorruptError, StagingMissingError
from refund.records import PhotoObject
from refund.schemas import manifest_schema, predictions_schema

if TYPE_CHECKING:
    import pyarrow as pa

MANIFEST_FILE = "manifest.parquet"
PREDICTIONS_FILE = "predictions.parquet"
_ROWS_AT_ONCE = 1000  # turned into Python objects
STAGE_FILE = "stage.json"  # in pack and predictions: counts, seconds and model of the task that wrote them


def write_manifest(folder: Path, photos: Sequence[PhotoObject]) -> None:
    """Write ``manifest.parquet`` into a folder."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = manifest_schema()
    # column by column: a dictionary per photo takes ten times as long, and 1 kB of memory for each
    columns = {name: [getattr(photo, name) for photo in photos] for name in schema.names if name != "photo_id"}
    columns["photo_id"] = [str(photo.photo_id) for photo in photos]
    pq.write_table(pa.Table.from_pydict(columns, schema=schema), folder / MANIFEST_FILE)


def read_manifest(folder: Path) -> pa.Table:
    """Read ``manifest.parquet``.

    Raises:
        StagingMissingError: it is not there.
        StagingCorruptError: it is no manifest.
    """
    return _read(folder / MANIFEST_FILE, manifest_schema(), clear="the run from the task fetch on")


def manifest_photos(manifest: pa.Table) -> list[PhotoObject]:
    """The manifest's rows as records, in order."""
    return [
        PhotoObject(**row | {"photo_id": UUID(row["photo_id"])})
        for batch in manifest.to_batches(max_chunksize=_ROWS_AT_ONCE)
        for row in batch.to_pylist()
    ]


def read_predictions(folder: Path) -> pa.Table:
    """Read ``predictions.parquet``; raises as `read_manifest` does."""
    return _read(folder / PREDICTIONS_FILE, predictions_schema(), clear="the shard's task classify")


def read_stage(body: bytes, *, uri: str, numbers: Sequence[str] = ()) -> dict[str, Any]:
    """Read what a task wrote down of itself, or of its plan; ``uri`` names the file in errors.

    Raises:
        StagingCorruptError: it is no JSON object, or one of ``numbers`` is not in it as a number from 0 on.
    """
    try:
        stage = dict(json.loads(body))
    except (ValueError, TypeError) as exc:
        msg = f"{uri} cannot be read as JSON ({exc}); clear the run from the task fetch on"
        raise StagingCorruptError(msg) from exc
    if not all(_is_number(stage.get(name)) for name in numbers):
        msg = f"{uri} holds {stage}, expected the numbers {', '.join(numbers)}; clear the run from the task fetch on"
        raise StagingCorruptError(msg)
    return stage


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def pack_model(pack: Path, *, uri: str) -> str:
    """The model, ``name@version``, that the pack in this folder was made for; ``uri`` names the pack in errors.

    Raises:
        StagingMissingError: the pack is not whole.
        StagingCorruptError: it names no model.
    """
    path = pack / STAGE_FILE
    try:
        stage = read_stage(path.read_bytes(), uri=f"{uri}/{STAGE_FILE}")
    except FileNotFoundError as exc:
        raise StagingMissingError(uri=f"{uri}/{STAGE_FILE}") from exc
    if not isinstance(model := stage.get("model"), str):
        msg = (
            f"{uri}/{STAGE_FILE} names no model, as packs of earlier versions of the code do; expected the one that "
            f"the pixels were made for. Clear the shard's task validate, so that the pack is made again"
        )
        raise StagingCorruptError(msg)
    return model


def _read(path: Path, schema: pa.Schema, *, clear: str) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:  # read_table would load all of pyarrow.dataset: 50 MB, 0.1 s
            table = file.read(use_threads=False)
    except FileNotFoundError as exc:
        raise StagingMissingError(uri=str(path)) from exc
    except (pa.ArrowException, OSError) as exc:
        msg = f"{path} cannot be read as Parquet ({exc}); clear {clear}, so that it is written again"
        raise StagingCorruptError(msg) from exc
    if not table.schema.equals(schema):
        seen, wanted = table.schema.names, schema.names
        msg = f"{path} has the columns {seen}, expected {wanted}; clear {clear}, so that it is written again"
        raise StagingCorruptError(msg)
    return table
