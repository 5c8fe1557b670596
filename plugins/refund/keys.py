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
MAX_NAME_BYTES = 200  # of a file name in quarantine; servers that keep objects as files take up to 255, in some form
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


def quarantine_key(key: str, *, etag: str, run_date: date, reason: str) -> str:
    """Where a rejected original is copied to: below its own key, marked with its version, or a hash of both.

    The mark, ``~`` and 8 hexadecimal digits of the ETag's SHA-256, stands before the suffix of the file name:
    ``R-1/a.jpg`` becomes ``R-1/a~1f3c9b2d.jpg``. Different keys never meet; two versions of one key do in one case out
    of 2^32. The hash stands in where S3's limit for a key would be passed, or `MAX_NAME_BYTES` for the file name.
    """
    folder = f"quarantine/{run_date.isoformat()}/{reason}/"
    parents, slash, name = key.rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    if not stem or not suffix or "~" in suffix:  # no dot, only a first or last one, or what might be another's mark
        stem, dot, suffix = name, "", ""
    marked = f"{stem}~{sha256(_utf8(etag)).hexdigest()[:8]}{dot}{suffix}"
    target = f"{folder}{parents}{slash}{marked}"
    if len(_utf8(target)) <= MAX_KEY_BYTES and len(_utf8(marked)) <= MAX_NAME_BYTES:
        return target
    version = _utf8(f"{key}\0{etag}")
    return f"{folder}sha256-{sha256(version).hexdigest()}"  # without ~, so it meets no marked key


def report_prefix(*, run_date: date, run_id: str) -> str:
    """The folder of a run's report files; the run id is made safe for a path."""
    return f"reports/{run_date.isoformat()}/{path_safe(run_id)}/"


def export_key(*, run_date: date) -> str:
    """The file for the systems downstream: one per night, whichever run wrote it."""
    return f"exports/{run_date.isoformat()}/decisions.parquet"


def path_safe(text: str) -> str:
    """A path segment for any text: readable, at most 100 characters, distinct for distinct texts."""
    readable = re.sub(r"[^A-Za-z0-9._=-]+", "_", text).strip("._")[:80] or "_"
    if readable == text and not _HASH_ENDING.search(text):  # a text that looks made must not meet the one it is made of
        return readable
    return f"{readable}-{sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def _utf8(text: str) -> bytes:
    """UTF-8, also of a listing's lone surrogates, which no encoding takes as they are."""
    return text.encode("utf-8", "surrogatepass")
