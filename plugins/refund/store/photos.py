"""Reads what is known of one photo: its versions, and what every run, model and person made of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import date
    from uuid import UUID

    from refund.store.database import Database

OBJECT = """
SELECT bucket, key, etag, size_bytes FROM refund.photo
WHERE photo_date = %(photo_date)s AND photo_id = %(photo_id)s::uuid AND NOT synthetic
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """Where one version of a photo lies, or lay."""

    bucket: str
    key: str
    etag: str
    size_bytes: int


def find_object(database: Database, *, photo_date: date, photo_id: UUID) -> StoredObject | None:
    """Where a photo lies; None where no night has seen it, or it was made up."""
    with database.connect(readonly=True) as connection, connection.cursor() as cursor:
        cursor.execute(OBJECT, {"photo_date": photo_date, "photo_id": str(photo_id)})
        row = cursor.fetchone()
    return None if row is None else StoredObject(bucket=row[0], key=row[1], etag=row[2], size_bytes=row[3])
