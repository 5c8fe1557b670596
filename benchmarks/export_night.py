"""``python -m benchmarks.export_night``: what the export of a large night costs, on a real Postgres of its own."""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refund.settings import DatabaseAccess

SMALL, LARGE = date(2026, 10, 15), date(2026, 11, 21)
EARLIER = (date(2026, 8, 15), date(2026, 9, 15))
_PHOTOS_PER_REFUND = 2

# Rows as a night leaves them, made by the server; checks of references are off, or filling would take longest.
FILL = """
SELECT refund.ensure_partitions(%(day)s, %(day)s);
INSERT INTO refund.run (run_id, run_date, state, model, taxonomy_version, code_version, params, photos, classified,
  rejected, unchanged, started_at, published_at, models)
SELECT 'night-' || %(day)s, %(day)s, 'published', 'made-up@1', 't1', '0', '{}', %(photos)s, %(photos)s, 0, 0, now(),
  now(), ARRAY['made-up@1'];
CREATE TEMPORARY TABLE made AS
SELECT md5(%(day)s || '/' || i)::uuid AS id, i, 'night-' || %(day)s AS run_id FROM generate_series(1, %(photos)s) i;
INSERT INTO refund.photo (photo_date, photo_id, bucket, key, etag, size_bytes, refund_id, first_run_id)
SELECT %(day)s, id, 'b', 'incoming/' || %(day)s || '/' || i, 'e', 1000,
  'R-' || %(day)s || '-' || i / %(per_refund)s, run_id FROM made;
INSERT INTO refund.run_photo (photo_date, photo_id, run_id, outcome)
SELECT %(day)s, id, run_id, 'classified' FROM made;
INSERT INTO refund.prediction (photo_date, photo_id, model, class_id, class_name, confidence, top_k, run_id)
SELECT %(day)s, id, 'made-up@1', 'n1', 'x', 0.8, '[]', run_id FROM made;
INSERT INTO refund.decision (photo_date, photo_id, run_id, category, score, kind, reasons, category_scores, model,
  taxonomy_version, threshold, decided_at)
SELECT %(day)s, id, run_id, (ARRAY['shoes', 'bags', 'hats'])[1 + i %% 3], 0.5,
  CASE WHEN i %% 5 = 0 THEN 'review' ELSE 'auto' END, CASE WHEN i %% 5 = 0 THEN ARRAY['low_score'] ELSE '{}' END, '{}',
  'made-up@1', 't1', 0.5, now() FROM made;
DROP TABLE made;
"""


def main() -> None:
    """Fill a server, export a small and a large night, print what each took."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export_night", description=__doc__)
    parser.add_argument("--refunds", type=int, default=200_000, help="of the large night and of each before it")
    refunds = parser.parse_args().refunds

    import pyarrow.parquet  # noqa: F401 -- loaded before memory is looked at

    from refund.store.migrate import migrate
    from tests.conftest import fresh_database
    from tests.postgres import cluster

    with cluster("-c synchronous_commit=off") as server, fresh_database(server.roles) as roles:
        migrate(roles.owner)
        began = time.perf_counter()
        _fill(roles.admin, {**dict.fromkeys(EARLIER, refunds), SMALL: max(1, refunds // 20), LARGE: refunds})
        print(f"filled in {time.perf_counter() - began:.0f} s; {_peak_mb():.0f} MB before the first export", flush=True)
        for night in (SMALL, LARGE):
            print(_export(roles.app, night), flush=True)


def _fill(admin: DatabaseAccess, nights: dict[date, int]) -> None:
    from refund.store.database import Database

    with Database(admin).connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute(
            "INSERT INTO refund.model (model, name, version, uri, sha256, card, created_by) "
            "VALUES ('made-up@1', 'made-up', '1', 's3://b/m', repeat('0', 64), '{}', 'benchmark')"
        )
        for night, refunds in nights.items():
            values = {"day": night.isoformat(), "photos": refunds * _PHOTOS_PER_REFUND}
            cursor.execute(FILL, {**values, "per_refund": _PHOTOS_PER_REFUND})
        cursor.execute("ANALYZE")


def _export(app: DatabaseAccess, night: date) -> str:
    from refund.night.export import write_refunds
    from refund.store.database import Database
    from refund.store.exports import night_refunds

    wall, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder, night_refunds(Database(app), night) as found:
        path = Path(folder) / "decisions.parquet"
        values: dict[str, Any] = {"run_date": night, "at": datetime.now(UTC)}
        refunds = write_refunds(path, found, **values) if found else 0
        size = path.stat().st_size
    return (
        f"{refunds} refunds: {time.perf_counter() - wall:.1f} s, {time.process_time() - cpu:.1f} s of CPU here, "
        f"{size / 1e6:.1f} MB; at most {_peak_mb():.0f} MB of memory so far"
    )


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
