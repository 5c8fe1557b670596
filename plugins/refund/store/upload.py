"""Puts a file into the bucket, unless the very same bytes lie under its key already."""

from __future__ import annotations

from hashlib import md5
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from refund.store.objects import ObjectStore

CONTENT_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".gif": "image/gif",
    ".bmp": "image/bmp",
    ".webp": "image/webp",
}


def upload_file(objects: ObjectStore, path: Path, key: str) -> bool:
    """Upload one file; returns False where the object is there with the same size and MD5.

    The ETag of an object that was put in one piece is its MD5; a differing ETag only means that it is uploaded again.

    Raises:
        AccessDeniedError: the store refuses the key or our right to write.
        ObjectStoreUnavailableError: it cannot be reached.
    """
    body = path.read_bytes()
    there = objects.head(key)
    if (
        there is not None
        and there.size_bytes == len(body)
        and there.etag == md5(body, usedforsecurity=False).hexdigest()
    ):
        return False
    objects.put(key, body, content_type=CONTENT_TYPES.get(path.suffix.lower(), "application/octet-stream"))
    return True
