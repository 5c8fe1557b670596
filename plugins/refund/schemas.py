"""The columns of the Parquet files that tasks hand each other; the one place that names their types.

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
