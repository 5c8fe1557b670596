"""The columns of the Parquet files that tasks hand each other, and of the export; the one place that names their types.

A run's staging folder holds ``plan.json``, ``unchanged.parquet`` (manifest columns) and per shard
``<n>/manifest.parquet``, ``<n>/pack/photos.parquet`` beside ``<n>/pack/pixels.npy``, and ``<n>/predictions.parquet``.
Row *i* of the manifest, of ``photos.parquet`` and of ``pixels.npy`` is the same photo; predictions have one row per
photo that was not rejected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def manifest_schema() -> pa.Schema:
    """One row per listed photo: `refund.records.PhotoObject`."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("photo_id", pa.string(), nullable=False),  # UUID as text
            pa.field("photo_date", pa.date32(), nullable=False),
            pa.field("bucket", pa.string(), nullable=False),
            pa.field("key", pa.string(), nullable=False),
            pa.field("etag", pa.string(), nullable=False),
            pa.field("size_bytes", pa.int64(), nullable=False),
            pa.field("refund_id", pa.string()),
            pa.field("declared_category", pa.string()),
        ]
    )


def photos_schema() -> pa.Schema:
    """One row per photo of the shard, in manifest order: `refund.records.PhotoFacts` without the slot."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("photo_id", pa.string(), nullable=False),
            pa.field("reason", pa.string()),  # null: pixels were written
            pa.field("detail", pa.string()),
            pa.field("image_format", pa.string()),
            pa.field("width_px", pa.int32()),
            pa.field("height_px", pa.int32()),
            pa.field("sha256", pa.string()),
            pa.field("perceptual_hash", pa.int64()),
            pa.field("brightness_ratio", pa.float32()),
            pa.field("contrast_ratio", pa.float32()),
            pa.field("sharpness", pa.float32()),
            pa.field("entropy_bits", pa.float32()),
            pa.field("quality_labels", pa.list_(pa.string())),
            pa.field("quarantine_key", pa.string()),  # where the rejected original was copied
        ]
    )


def predictions_schema() -> pa.Schema:
    """One row per classified photo: the prediction, immutable, and the decision made from it."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("photo_id", pa.string(), nullable=False),
            pa.field("model", pa.string(), nullable=False),  # name@version: that of the shard, not always of the run
            pa.field("class_id", pa.string(), nullable=False),
            pa.field("class_name", pa.string(), nullable=False),
            pa.field("confidence", pa.float32(), nullable=False),
            pa.field("top_k", pa.string(), nullable=False),  # JSON: [{"class_id","class_name","confidence"}, …]
            pa.field("category_scores", pa.string(), nullable=False),  # JSON: {"shoes": 0.91, …}, zeros left out
            pa.field("category", pa.string(), nullable=False),
            pa.field("category_score", pa.float32(), nullable=False),
            pa.field("kind", pa.string(), nullable=False),  # auto | review
            pa.field("reasons", pa.list_(pa.string()), nullable=False),
        ]
    )


DECISIONS_VERSION = "1"  # of the export below: columns are added at the end, never renamed, retyped or removed


def decisions_schema() -> pa.Schema:
    """One row per refund of a night, ``exports/<run date>/decisions.parquet``; docs/analysts.md explains them."""
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("refund_id", pa.string(), nullable=False),
            pa.field("decision", pa.string(), nullable=False),  # auto | review | reviewed
            pa.field("category", pa.string()),  # final: reviews count before the machine; null: all photos rejected
            pa.field("needs_review", pa.bool_(), nullable=False),
            pa.field("reasons", pa.list_(pa.string()), nullable=False),  # why review: of decisions and rejections
            pa.field("photos", pa.int32(), nullable=False),
            pa.field("classified", pa.int32(), nullable=False),
            pa.field("rejected", pa.int32(), nullable=False),
            pa.field("waiting", pa.int32(), nullable=False),  # photos in the review queue
            pa.field("reviewed", pa.int32(), nullable=False),  # photos that a person has judged
            pa.field("categories", pa.int32(), nullable=False),  # different final ones
            pa.field("photos_agree", pa.bool_(), nullable=False),
            pa.field("declared_category", pa.string()),
            pa.field("matches_declared", pa.bool_()),
            pa.field("min_score", pa.float32()),  # the least sure photo's category score, 0 to 1
            pa.field("models", pa.list_(pa.string()), nullable=False),  # name@version
            pa.field("taxonomy_versions", pa.list_(pa.string()), nullable=False),
            pa.field("run_date", pa.date32(), nullable=False),  # the night of this file
            pa.field("latest_run_date", pa.date32(), nullable=False),  # the latest that published one of its photos
            pa.field("run_id", pa.string(), nullable=False),  # the night's latest run
            pa.field("generated_at", pa.timestamp("us", tz="UTC"), nullable=False),
        ]
    )
