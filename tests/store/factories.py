"""Staged nights for tests: a handful of photos, each with the outcome it is told."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa

from refund import keys
from refund.records import OutcomeCounts
from refund.schemas import manifest_schema, photos_schema, predictions_schema
from refund.settings import DatabaseAccess
from refund.store.database import Database
from refund.store.publish import ShardTables, publish
from refund.store.repository import Repository
from tests.conftest import Roles

DAY = date(2026, 11, 21)
NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
MODEL = "mobilenet_v2@1"
OTHER_MODEL = "mobilenet_v2@2"


@dataclass(frozen=True, kw_only=True)
class Photo:
    """One photo of a made-up night."""

    key: str
    etag: str = "e1"
    day: date = DAY
    reason: str | None = None
    category: str = "shoes"
    score: float = 0.9
    kind: str = "auto"
    reasons: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    refund_id: str | None = None
    declared: str | None = None
    model: str | None = None  # None: the night's

    @property
    def photo_id(self) -> str:
        return str(keys.photo_id(bucket="b", key=self.key, etag=self.etag))


def manifest(*photos: Photo) -> pa.Table:
    rows = [
        {
            "photo_id": photo.photo_id,
            "photo_date": photo.day,
            "bucket": "b",
            "key": photo.key,
            "etag": photo.etag,
            "size_bytes": 1000,
            "refund_id": photo.refund_id,
            "declared_category": photo.declared,
        }
        for photo in photos
    ]
    return pa.Table.from_pylist(rows, schema=manifest_schema())


def photos_table(*photos: Photo) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for photo in photos:
        facts: dict[str, Any] = {"photo_id": photo.photo_id, "reason": photo.reason, "quality_labels": []}
        if photo.reason is None:
            facts |= {
                "image_format": "JPEG", "width_px": 500, "height_px": 375, "sha256": "0" * 64, "perceptual_hash": -1,
                "brightness_ratio": 0.5, "contrast_ratio": 0.2, "sharpness": 90.0, "entropy_bits": 7.0,
                "quality_labels": list(photo.labels),
            }  # fmt: skip
        else:
            facts |= {"detail": f"seen {photo.reason}", "quarantine_key": f"quarantine/{photo.key}"}
        rows.append(facts)
    return pa.Table.from_pylist(rows, schema=photos_schema())


def predictions(*photos: Photo, model: str = MODEL) -> pa.Table:
    rows = [
        {
            "photo_id": photo.photo_id,
            "model": photo.model or model,
            "class_id": "n04120489",
            "class_name": "running shoe",
            "confidence": 0.8,
            "top_k": json.dumps([{"class_id": "n04120489", "class_name": "running shoe", "confidence": 0.8}]),
            "category_scores": json.dumps({photo.category: photo.score}),
            "category": photo.category,
            "category_score": photo.score,
            "kind": photo.kind,
            "reasons": list(photo.reasons),
        }
        for photo in photos
    ]
    return pa.Table.from_pylist(rows, schema=predictions_schema())


def shard(*photos: Photo, model: str = MODEL) -> ShardTables:
    """The three tables of a shard in which everything is as it should be."""
    return ShardTables(
        manifest=manifest(*photos),
        photos=photos_table(*photos),
        predictions=predictions(*(photo for photo in photos if photo.reason is None), model=model),
    )


def counts(*photos: Photo, unchanged: int = 0) -> OutcomeCounts:
    rejected = sum(photo.reason is not None for photo in photos)
    return OutcomeCounts(
        photos=len(photos) + unchanged, classified=len(photos) - rejected, rejected=rejected, unchanged=unchanged
    )


def register_models(roles: Roles) -> None:
    """Runs and predictions refer to a model."""
    with Database(roles.app).connect() as connection, connection.cursor() as cursor:
        for model in (MODEL, OTHER_MODEL):
            name, version = model.split("@")
            cursor.execute(
                "INSERT INTO refund.model (model, name, version, uri, sha256, card, created_by) "
                "VALUES (%s, %s, %s, 's3://b/m', repeat('0', 64), '{}', 'test') ON CONFLICT DO NOTHING",
                (model, name, version),
            )


def begin(
    access: DatabaseAccess,
    run_id: str,
    *,
    model: str = MODEL,
    threshold: float = 0.5,
    run_date: date = DAY,
    **over: Any,
) -> None:
    """Begin a run; later run ids begin later."""
    Repository(Database(access)).begin_run(
        **{
            "run_id": run_id,
            "run_date": run_date,
            "model": model,
            "taxonomy_version": "t1",
            "code_version": "0.1.0",
            "params": {"review_threshold": threshold, "dry_run": False},
            "started_at": NOON + timedelta(minutes=len(run_id) * 60 + ord(run_id[-1])),
            **over,
        }
    )


def night(
    access: DatabaseAccess,
    run_id: str,
    *photos: Photo,
    unchanged: tuple[Photo, ...] = (),
    audit_share: float = 0.0,
    **over: Any,
) -> Any:
    """Begin and publish a run of one shard."""
    begin(access, run_id, **over)
    return publish(
        Database(access),
        run_id=run_id,
        shards=[shard(*photos, model=over.get("model", MODEL))],
        unchanged=manifest(*unchanged),
        expected=counts(*photos, unchanged=len(unchanged)),
        audit_share=audit_share,
        at=NOON,
    )


def rows(access: DatabaseAccess, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    with Database(access).connect() as connection, connection.cursor() as cursor:
        cursor.execute(sql, values or None)
        return list(cursor.fetchall())


def everything(roles: Roles) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of the tables that a night writes."""
    tables = ("photo", "run_photo", "prediction", "decision", "run")
    return {table: rows(roles.owner, f"SELECT * FROM refund.{table} ORDER BY 1, 2, 3") for table in tables}
