"""What an S3 key says about its photo: pure functions of ``prefix``, bucket, key and ETag.

The layout is ``<prefix><YYYY-MM-DD>/<refund id>/<anything>``. Nothing is refused here: a key that does not follow the
layout is still a photo, dated 1970-01-01 ("undated") or without a refund id.
"""

from __future__ import annotations

import re
from datetime import date
from hashlib import sha256
from pathlib import PurePosixPath
from uuid import UUID

UNDATED = date(1970, 1, 1)
DECLARED_FILE = "_refunds.csv"  # per date folder: refund_id,declared_category as the shop system exports it
MAX_KEY_BYTES = 1024  # of UTF-8; S3's own limit
_DATE_FOLDER = re.compile(r"\d{4}-\d{2}-\d{2}")
_HASH_ENDING = re.compile(r"-[0-9a-f]{12}\Z")


def photo_date(key: str, *, prefix: str) -> date:
    """The date folder that the key lies in, or `UNDATED`."""
    head, slash, _ = key.removeprefix(prefix).partition("/")
    if not (key.startswith(prefix) and slash and _DATE_FOLDER.fullmatch(head)):
        return UNDATED
    try:
        return date.fromisoformat(head)
    except ValueError:  # 2026-02-30
        return UNDATED


def refund_id(key: str, *, prefix: str) -> str | None:
    """The folder below the date, or None where the photo lies directly in the date folder or is undated."""
    if photo_date(key, prefix=prefix) == UNDATED:
        return None
    parts = key.removeprefix(prefix).split("/", 2)
    return parts[1] if len(parts) == 3 and parts[1] else None


def photo_id(*, bucket: str, key: str, etag: str) -> UUID:
    """The identity of one object version: 128 bits of the SHA-256 of bucket, key and ETag.

    The parts are joined by NUL, which neither a bucket name nor an ETag can contain, so no two triples collide by
    concatenation.
    """
    return UUID(bytes=sha256(f"{bucket}\0{key}\0{etag}".encode("utf-8", "surrogatepass")).digest()[:16])


def is_photo(key: str) -> bool:
    """False for what a listing returns beside photos: folder markers and the declared-category file."""
    return not key.endswith("/") and PurePosixPath(key).name != DECLARED_FILE


def date_prefix(prefix: str, day: date) -> str:
    """The listing prefix of one date folder."""
    return f"{prefix}{day.isoformat()}/"


def quarantine_key(key: str, *, run_date: date, reason: str) -> str:
    """Where a rejected original is copied to: below its own key, or its hash where S3's limit would be passed."""
    folder = f"quarantine/{run_date.isoformat()}/{reason}/"
    encoded = key.encode("utf-8", "surrogatepass")
    fits = len(folder) + len(encoded) <= MAX_KEY_BYTES
    return folder + (key if fits else f"sha256-{sha256(encoded).hexdigest()}")


def report_prefix(*, run_date: date, run_id: str) -> str:
    """The folder of a run's report files; the run id is made safe for a path."""
    return f"reports/{run_date.isoformat()}/{path_safe(run_id)}/"


def path_safe(text: str) -> str:
    """A path segment for any text: readable, at most 100 characters, distinct for distinct texts."""
    readable = re.sub(r"[^A-Za-z0-9._=-]+", "_", text).strip("._")[:80] or "_"
    if readable == text and not _HASH_ENDING.search(text):  # a text that looks made must not meet the one it is made of
        return readable
    return f"{readable}-{sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"
