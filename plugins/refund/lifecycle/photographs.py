"""Photographs outside the night: found in a folder, a bucket or a CSV, with or without labels, and decoded alike."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from refund import keys
from refund.errors import AccessDeniedError, BucketMissingError, LabelledSetError, ReasonCode, RejectedPhotoError
from refund.lifecycle.label_files import Label, Truths, read_rows, refuse
from refund.model.labels import Labels
from refund.model.taxonomy import Taxonomy
from refund.night.decoding import decode_bodies, read_file
from refund.night.services import Services
from refund.records import PhotoFacts, PhotoObject
from refund.store.objects import ObjectStore

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

EXTENSIONS = ("jpg", "jpeg", "png", "gif", "bmp", "webp")  # in any case; what is in a file its first bytes tell
_IN_FLIGHT_BYTES = 64 * 1024 * 1024  # bodies downloaded ahead of decoding
_DOWNLOADS_AT_ONCE = 16
_MAX_CSV_BYTES = 64 * 1024 * 1024  # half a million rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Photograph:
    """Where one photograph lies: a path on this machine or ``s3://bucket/key``."""

    place: str
    etag: str | None = None  # in S3, where a listing told it
    size_bytes: int | None = None

    @property
    def in_s3(self) -> bool:
        """Whether it lies in a bucket."""
        return is_s3(self.place)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a folder or prefix holds: its photographs in order, and how many other files were passed over."""

    photographs: tuple[Photograph, ...]
    ignored: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """Photographs as a network takes them: ``pixels`` is ``(N, H, W, 3) uint8``, mapped from a file.

    Row *i* and ``facts[i]`` are photograph *i*; the row of a rejected one is black.
    """

    pixels: NDArray[np.uint8]
    facts: list[PhotoFacts]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledSet:
    """Photographs and the truth about each: item *i* of every tuple belongs to photograph *i*."""

    name: str  # as it was given
    photographs: tuple[Photograph, ...]
    categories: tuple[str, ...]
    class_ids: tuple[str | None, ...]  # None where the label names a category only
    ignored: int = 0  # files that are named otherwise than photographs

    def __post_init__(self) -> None:
        if not len(self.photographs) == len(self.categories) == len(self.class_ids):
            counts = f"{len(self.photographs)}, {len(self.categories)} and {len(self.class_ids)}"
            msg = f"a labelled set needs as many photographs as categories and class ids, got {counts}"
            raise ValueError(msg)


def find_photographs(where: str, *, services: Services) -> list[Photograph]:
    """Every photograph below a folder or ``s3://bucket/prefix/``, sorted; files with other extensions are passed over.

    Raises:
        LabelledSetError: it is no folder or prefix, or holds no photograph.
    """
    return list(_search(where, services).photographs)


def labelled_photographs(where: str, *, taxonomy: Taxonomy, labels: Labels, services: Services) -> LabelledSet:
    """A labelled set: a CSV or a folder, on this machine or in S3.

    A CSV has a column ``path`` (absolute, ``s3://…``, or relative to the CSV) and ``class_id``, ``category`` or both.
    In a folder the label of a photograph is the innermost folder above it that is named as a class id or category, or
    else the class id that its own name begins with (``n01440764_tench.JPEG``).

    A CSV on this machine may name any file that its reader may read: what comes of a photograph is its digest and what
    the network says of it. A CSV in S3 names objects only, its relative paths as they stand (``..`` is part of a key).

    Raises:
        LabelledSetError: nothing is there, or a label is missing, unknown or contradicts another; names ten faults.
    """
    truths = Truths(labels=labels, taxonomy=taxonomy)
    if is_s3(where):
        return (
            _labelled_by_csv(where, truths, services) if _is_csv(where) else _labelled_by_name(where, truths, services)
        )
    if Path(where).is_dir():
        return _labelled_by_name(where, truths, services)
    return _labelled_by_csv(where, truths, services)


def read_bodies(
    photographs: Sequence[Photograph], *, services: Services, max_bytes: int | None = None
) -> Iterator[tuple[int, bytes | RejectedPhotoError]]:
    """The bytes of each photograph, or why there are none, with its index; in any order, few in memory at a time.

    Files of more than ``max_bytes``, by default the setting, are not read.

    Raises:
        LabelledSetError: there is no such bucket.
        AccessDeniedError: the server refuses every object that it was asked for; one that it refuses costs itself.
    """
    max_bytes = services.settings.max_bytes if max_bytes is None else max_bytes
    by_bucket: dict[str, list[int]] = {}
    for index, photograph in enumerate(photographs):
        if photograph.in_s3:
            by_bucket.setdefault(split_s3(photograph.place)[0], []).append(index)
        else:
            yield index, read_file(Path(photograph.place), max_bytes=max_bytes)
    for bucket, indices in by_bucket.items():
        yield from _download(bucket, indices, photographs, services, max_bytes=max_bytes)


def decode_photographs(
    photographs: Sequence[Photograph], *, size: tuple[int, int], services: Services, folder: Path
) -> Decoded:
    """Decode photographs in isolation to ``size`` (width, height), into a file in ``folder``, as the night does.

    Raises:
        DecoderPoolError: the isolated interpreter cannot run.
    """
    from refund.imaging.pack import PIXELS_FILE, open_pixels

    facts = decode_bodies(
        read_bodies(photographs, services=services),
        count=len(photographs),
        pixels_path=folder / PIXELS_FILE,
        settings=services.settings,
        size=size,
    )
    return Decoded(pixels=open_pixels(folder / PIXELS_FILE), facts=facts)


def is_s3(place: str) -> bool:
    """Whether a place is ``s3://…``."""
    return place.startswith("s3://")


def split_s3(place: str) -> tuple[str, str]:
    """Bucket and key of ``s3://bucket/key``; the key is taken as it is.

    Raises:
        LabelledSetError: it names no bucket.
    """
    bucket, _, key = place.removeprefix("s3://").partition("/")
    if not bucket:
        msg = f"{place} names no bucket; expected s3://bucket/prefix/ or s3://bucket/key"
        raise LabelledSetError(msg)
    return bucket, key


def open_bucket(bucket: str, services: Services) -> ObjectStore:
    """A bucket of the project's S3 server, which need not be the project's own."""
    if bucket == services.objects.bucket:
        return services.objects
    return ObjectStore(replace(services.objects.access, bucket=bucket))


def _labelled_by_name(where: str, truths: Truths, services: Services) -> LabelledSet:
    found = _search(where, services)
    root = where.rstrip("/") + "/"
    given: list[Label] = []
    faults = []
    for photograph in found.photographs:
        relative = photograph.place.removeprefix(root) if is_s3(where) else _relative(photograph.place, where)
        try:
            label = truths.label_of_path(relative)
        except ValueError as exc:
            faults.append(f"{relative}: {exc}")
            continue
        if label is None:
            faults.append(f"{relative}: no folder of it is named as a class id or category, nor does its name begin so")
        else:
            given.append(label)
    refuse(faults, place=where)
    return _labelled_set(where, found.photographs, given, ignored=found.ignored)


def _labelled_by_csv(where: str, truths: Truths, services: Services) -> LabelledSet:
    rows = read_rows(_csv_body(where, services), place=where, truths=truths)
    folder = where.rpartition("/")[0] if is_s3(where) else str(Path(where).parent)
    faults = [f"{row.path}: only paths and s3://bucket/key can be read" for row in rows if _is_foreign(row.path)]
    refuse(faults, place=where)
    places = [
        row.path if is_s3(row.path) else f"{folder}/{row.path}" if is_s3(where) else str(Path(folder) / row.path)
        for row in rows
    ]
    return _labelled_set(where, [Photograph(place=place) for place in places], [row.label for row in rows])


def _labelled_set(
    where: str, photographs: Sequence[Photograph], given: Sequence[Label], *, ignored: int = 0
) -> LabelledSet:
    return LabelledSet(
        name=where.encode("utf-8", "backslashreplace").decode(),  # a path may hold bytes that are no UTF-8
        photographs=tuple(photographs),
        categories=tuple(label.category for label in given),
        class_ids=tuple(label.class_id for label in given),
        ignored=ignored,
    )


def _csv_body(where: str, services: Services) -> bytes:
    ((_, body),) = read_bodies([Photograph(place=where)], services=services, max_bytes=_MAX_CSV_BYTES)
    if isinstance(body, RejectedPhotoError):
        msg = f"{where} cannot be read: {body.detail}; expected a CSV of labels, a folder or s3://bucket/prefix/"
        raise LabelledSetError(msg)
    return body


def _is_csv(where: str) -> bool:
    return where.lower().endswith(".csv")


def _is_foreign(path: str) -> bool:
    return "://" in path and not is_s3(path)


def _relative(place: str, root: str) -> str:
    return Path(place).relative_to(root).as_posix()


def _search(where: str, services: Services) -> Found:
    found = _search_bucket(where, services) if is_s3(where) else _search_folder(Path(where))
    if not found.photographs:
        msg = (
            f"{where} holds no photograph ({found.ignored} other files); expected at least one file named "
            f"*.{', *.'.join(EXTENSIONS)}"
        )
        raise LabelledSetError(msg)
    if found.ignored:
        log.info("Passed over %s files of %s that are named otherwise than photographs", found.ignored, where)
    return found


def _search_folder(folder: Path) -> Found:
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "is not there"
        msg = f"{folder} {what}; expected a folder with photographs or s3://bucket/prefix/"
        raise LabelledSetError(msg)
    root = folder.resolve()
    found, ignored = [], 0
    for parent, below, names in os.walk(folder):  # links to folders are not followed
        below.sort()
        for name in sorted(names):
            path = Path(parent) / name
            leads_out = path.is_symlink() and not path.resolve().is_relative_to(root)
            if not _is_photograph(name) or leads_out or not path.is_file():
                ignored += 1
            else:
                found.append(Photograph(place=str(path)))
    return Found(photographs=tuple(sorted(found, key=lambda photo: photo.place)), ignored=ignored)


def _search_bucket(where: str, services: Services) -> Found:
    bucket, prefix = split_s3(where)
    prefix = f"{prefix}/" if prefix and not prefix.endswith("/") else prefix
    found, ignored = [], 0
    try:
        for item in open_bucket(bucket, services).list(prefix):
            if item.key.endswith("/"):  # a folder's marker
                continue
            if not _is_photograph(item.key):
                ignored += 1
                continue
            found.append(Photograph(place=f"s3://{bucket}/{item.key}", etag=item.etag, size_bytes=item.size_bytes))
    except BucketMissingError as exc:
        msg = f"{where} is not there, S3 at {services.objects.access.place} has no bucket {bucket!r}; correct the name"
        raise LabelledSetError(msg) from exc
    return Found(photographs=tuple(found), ignored=ignored)


def _is_photograph(name: str) -> bool:
    return name.rpartition(".")[2].lower() in EXTENSIONS and "." in name


def _download(
    bucket: str, indices: Sequence[int], photographs: Sequence[Photograph], services: Services, *, max_bytes: int
) -> Iterator[tuple[int, bytes | RejectedPhotoError]]:
    store = open_bucket(bucket, services)

    def listed(index: int) -> PhotoObject | RejectedPhotoError | AccessDeniedError:
        photograph = photographs[index]
        key = split_s3(photograph.place)[1]
        etag, size_bytes = photograph.etag, photograph.size_bytes
        if etag is None or size_bytes is None:
            try:
                head = store.head(key) if key else None
            except AccessDeniedError as exc:
                return exc
            if head is None:
                return RejectedPhotoError(ReasonCode.VANISHED, f"there is no such object in bucket {bucket!r}")
            etag, size_bytes = head.etag, head.size_bytes
        return PhotoObject(
            photo_id=keys.photo_id(bucket=bucket, key=key, etag=etag),
            photo_date=keys.UNDATED,
            bucket=bucket,
            key=key,
            etag=etag,
            size_bytes=size_bytes,
            refund_id=None,
            declared_category=None,
        )

    there: list[int] = []
    wanted: list[PhotoObject] = []
    with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE, thread_name_prefix="s3-head") as threads:
        try:
            answers = list(threads.map(listed, indices))
        except BucketMissingError as exc:
            place = services.objects.access.place
            msg = f"S3 at {place} has no bucket {bucket!r}, which {photographs[indices[0]].place} names; correct it"
            raise LabelledSetError(msg) from exc
    refusals = [answer for answer in answers if isinstance(answer, AccessDeniedError)]
    if refusals and len(refusals) == len(answers):  # the credentials, rather than an object
        raise refusals[0]
    for index, answer in zip(indices, answers, strict=True):
        if isinstance(answer, PhotoObject):
            there.append(index)
            wanted.append(answer)
        elif isinstance(answer, AccessDeniedError):
            yield index, RejectedPhotoError(ReasonCode.UNREADABLE, str(answer))
        else:
            yield index, answer
    for slot, body in store.get_many(
        wanted,
        max_bytes=max_bytes,
        max_in_flight_bytes=_IN_FLIGHT_BYTES,
        concurrency=_DOWNLOADS_AT_ONCE,
    ):
        yield there[slot], body
