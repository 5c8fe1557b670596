"""Writes the night for the systems downstream: one Parquet file in the bucket, one row per refund."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from refund import keys
from refund.night.services import Services, Stopwatch
from refund.schemas import DECISIONS_VERSION, decisions_schema
from refund.store.exports import night_refunds
from refund.store.scratch import scratch_folder
from refund.store.staging import disk_errors

if TYPE_CHECKING:
    from datetime import date, datetime

    from refund.store.exports import NightRefunds
    from refund.store.records import RunRow

log = logging.getLogger(__name__)

CONTENT_TYPE = "application/vnd.apache.parquet"
_TEMPORARY = "refund-export-"


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionsExport:
    """What was written."""

    uri: str
    refunds: int  # rows
    photos_without_refund: int  # of the night, left out: no row could hold them


def export_decisions(row: RunRow, services: Services) -> DecisionsExport | None:
    """Write ``exports/<run date>/decisions.parquet`` and note its address in the run's report row.

    The file shows what stands of the whole night at this moment and replaces an earlier one in one request: written
    again, by this run or another of the same date, it is whole and newer, and names the night's latest run.

    Returns:
        None for a run that is not published (a dry run) and for made-up nights: nothing may act on those.
    """
    if row.state != "published" or row.synthetic:
        return None
    watch = Stopwatch()
    key = keys.export_key(run_date=row.run_date)
    with night_refunds(services.database, row.run_date) as night:
        if night is None:
            return None
        temporary = Path(tempfile.gettempdir())
        with disk_errors(None), scratch_folder(temporary, prefix=_TEMPORARY) as folder:
            path = folder / "decisions.parquet"
            refunds = write_refunds(path, night, run_date=row.run_date, at=services.now())
            services.objects.upload(path, key, content_type=CONTENT_TYPE)  # before the next export of the night begins
    uri = services.objects.uri(key)
    services.repository.save_export_uri(row.run_id, uri)
    log.info(
        "Exported %s refunds to %s in %.1f s; %s photos of the night belong to no refund and are not in it",
        refunds,
        uri,
        watch.seconds,
        night.photos_without_refund,
    )
    return DecisionsExport(uri=uri, refunds=refunds, photos_without_refund=night.photos_without_refund)


def write_refunds(path: Path, night: NightRefunds, *, run_date: date, at: datetime) -> int:
    """Write the file of a night, a row group per batch; returns the number of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from refund import __version__

    schema = decisions_schema().with_metadata(
        {
            "refund.schema_version": DECISIONS_VERSION,
            "refund.run_date": run_date.isoformat(),
            "refund.run_id": night.run_id,
            "refund.models": ",".join(night.models),
            "refund.taxonomy_version": night.taxonomy_version,
            "refund.code_version": __version__,
            "refund.generated_at": at.isoformat(),
            "refund.photos_without_refund": str(night.photos_without_refund),
        }
    )
    same = {"run_date": run_date, "run_id": night.run_id, "generated_at": at}
    count = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in night.batches:
            writer.write_batch(pa.RecordBatch.from_pylist([{**refund, **same} for refund in batch], schema=schema))
            count += len(batch)
    return count
