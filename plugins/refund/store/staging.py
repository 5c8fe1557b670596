"""Where tasks leave files for each other: a folder (``file:///path``) or a bucket (``s3://bucket/prefix``).

Whatever is written appears whole or not at all. A folder on disk is filled under a temporary name and renamed; in a
bucket, which has no rename, its list of files is written last and a folder without the list does not exist. Temporary
names lie in the folder of their run and go with it, whatever killed their writer.

All of it, temporary folders included, lies in one folder of our own below the configured root: whatever else is there,
beside it or in the bucket, is never listed or removed.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

from refund.errors import (
    DiskSpaceError,
    ReasonCode,
    RejectedPhotoError,
    SettingsError,
    StagingCorruptError,
    StagingMissingError,
)
from refund.store.scratch import scratch_folder

if TYPE_CHECKING:
    from refund.settings import S3Access
    from refund.store.objects import ObjectStore

RUNS_FOLDER = "refund-runs"  # below the configured root; nothing outside of it is ours to remove
WORKING_ROOM_BYTES = 200_000_000  # that a run needs on the staging disk beside its packs: Parquet files, logs
_TEMPORARY = ".tmp-"
_DOWNLOADED = "refund-staged-"  # in the system's temporary folder: what lies, or will lie, in a bucket
_FILES = ".files.json"  # in a bucket: names and sizes of a folder's files


class _Place(Protocol):
    """What both kinds of place can do; ``path`` is relative to the root."""

    def scratch(self, path: str) -> Path | None: ...
    def publish(self, folder: Path, path: str) -> None: ...
    def readable_folder(self, path: str, names: Sequence[str] | None) -> Iterator[Path]: ...
    def write_file(self, path: str, body: bytes) -> None: ...
    def read_file(self, path: str) -> bytes | None: ...
    def exists(self, path: str) -> bool: ...
    def remove(self, path: str) -> None: ...
    def remove_stale(self, before: datetime) -> Sequence[str]: ...
    def free_bytes(self) -> int | None: ...


class Staging:
    """The folder ``refund-runs`` below the configured root. Everything is named by URIs in it, as `uri` makes them.

    Raises:
        SettingsError: the root is neither ``file:///path`` nor ``s3://bucket/prefix``.
    """

    def __init__(self, root: str, *, s3: S3Access | None = None) -> None:
        parts = urlsplit(root)
        self.root = f"{root.rstrip('/')}/{RUNS_FOLDER}"
        self._place: _Place
        if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.strip("/"):
            self._place = _Disk(Path(unquote(parts.path)) / RUNS_FOLDER)
        elif parts.scheme == "s3" and parts.netloc and s3 is not None:
            from refund.store.objects import ObjectStore

            prefix = f"{parts.path.strip('/')}/{RUNS_FOLDER}/".lstrip("/")
            self._place = _Bucket(ObjectStore(replace(s3, bucket=parts.netloc)), prefix)
        else:
            msg = f"REFUND_STAGING_ROOT must read file:///path or s3://bucket/prefix, got {root!r}"
            raise SettingsError(msg)

    def uri(self, *parts: str) -> str:
        """The URI of a file or folder below the root.

        Raises:
            SettingsError: a part is empty, ``.`` or ``..``.
        """
        uri = "/".join((self.root, *parts))
        self._path(uri)
        return uri

    @contextmanager
    def writable_folder(self, uri: str) -> Iterator[Path]:
        """A local folder to fill; on a clean exit it replaces what was at ``uri``.

        If filling it fails, nothing changes. If publishing it fails, or the process is killed meanwhile, nothing may be
        left at ``uri``: a bucket's old files go before the new ones come. A half of either is never read.

        Raises:
            DiskSpaceError: the disk is full.
        """
        path = self._path(uri)
        beside = self._place.scratch(path)
        with ExitStack() as stack:
            with disk_errors(beside):
                if beside is not None:
                    beside.mkdir(parents=True, exist_ok=True, mode=0o700)
                    scratch = scratch_folder(beside, prefix=_TEMPORARY)
                else:
                    scratch = scratch_folder(Path(tempfile.gettempdir()), prefix=_DOWNLOADED)
                folder = stack.enter_context(scratch)
            with disk_errors(folder):
                yield folder
                self._place.publish(folder, path)

    @contextmanager
    def readable_folder(self, uri: str, *, names: Sequence[str] | None = None) -> Iterator[Path]:
        """A local folder with the files of ``uri``, or at least those of these ``names``; not to be written to.

        A bucket's files are downloaded, so name those that are needed where others are large.

        Raises:
            StagingMissingError: it, or a file named, is not there.
            StagingCorruptError: it is not what was written (a bucket only).
            DiskSpaceError: the disk cannot hold the download (a bucket only).
        """
        path = self._path(uri)
        if not self._place.exists(path):
            raise StagingMissingError(uri=uri)
        with contextmanager(self._place.readable_folder)(path, names) as folder:
            for name in names or ():
                if not (folder / name).is_file():
                    raise StagingMissingError(uri=f"{uri}/{name}")
            yield folder

    def write_file(self, uri: str, body: bytes) -> None:
        """Write one file; it replaces what was there."""
        path = self._path(uri)
        with disk_errors(self._place.scratch(path)):
            self._place.write_file(path, body)

    def read_file(self, uri: str) -> bytes:
        """Read one file.

        Raises:
            StagingMissingError: it is not there.
        """
        body = self._place.read_file(self._path(uri))
        if body is None:
            raise StagingMissingError(uri=uri)
        return body

    def exists(self, uri: str) -> bool:
        """Whether a file or a finished folder is there."""
        return self._place.exists(self._path(uri))

    def remove(self, uri: str) -> None:
        """Remove a file, or a folder and all below it; that it is not there is no error."""
        self._place.remove(self._path(uri))

    def remove_stale(self, before: datetime) -> Sequence[str]:
        """Remove what failed runs and killed tasks left in it and nobody touched since ``before``; return its names."""
        return self._place.remove_stale(before)

    def free_bytes(self) -> int | None:
        """Free room, in bytes; None for a bucket, which does not fill."""
        return self._place.free_bytes()

    def _path(self, uri: str) -> str:
        path = uri.removeprefix(f"{self.root}/")
        if path == uri or {"", ".", ".."} & set(path.split("/")):
            msg = f"{uri!r} does not name a file or folder in the staging folder {self.root!r}"
            raise SettingsError(msg)
        return path


class _Disk:
    """A folder that all tasks can reach."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def scratch(self, path: str) -> Path | None:
        """In the run's folder: renaming works only within one file system, and what a killed task left goes with it."""
        return self.root / path.split("/")[0] if "/" in path else self.root

    def publish(self, folder: Path, path: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if target.exists():
            with scratch_folder(folder.parent, prefix=_TEMPORARY) as old:
                target.rename(old / "old")
                folder.rename(target)
        else:
            folder.rename(target)

    def readable_folder(self, path: str, names: Sequence[str] | None) -> Iterator[Path]:
        yield self.root / path

    def write_file(self, path: str, body: bytes) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=_TEMPORARY, delete=False) as temporary:
            try:
                temporary.write(body)
                temporary.flush()
                os.fsync(temporary.fileno())
            except BaseException:
                Path(temporary.name).unlink(missing_ok=True)
                raise
        Path(temporary.name).replace(target)

    def read_file(self, path: str) -> bytes | None:
        try:
            return (self.root / path).read_bytes()
        except FileNotFoundError:
            return None

    def exists(self, path: str) -> bool:
        return (self.root / path).exists()

    def remove(self, path: str) -> None:
        target = self.root / path
        if target.is_dir():
            shutil.rmtree(target, ignore_errors=True)
        else:
            target.unlink(missing_ok=True)

    def remove_stale(self, before: datetime) -> Sequence[str]:
        entries = list(self.root.iterdir()) if self.root.is_dir() else []
        stale = [entry for entry in entries if entry.stat().st_mtime < before.timestamp()]
        for entry in stale:
            self.remove(entry.name)
        return [entry.name for entry in stale]

    def free_bytes(self) -> int | None:
        return shutil.disk_usage(_existing(self.root)).free


class _Bucket:
    """A prefix of a bucket, for workers that share no disk."""

    def __init__(self, objects: ObjectStore, prefix: str) -> None:
        self.objects = objects
        self.prefix = prefix

    def scratch(self, path: str) -> Path | None:
        return None

    def publish(self, folder: Path, path: str) -> None:
        self.remove(path)  # the list of files first, so that no reader takes old and new for one
        sizes = {}
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                name = file.relative_to(folder).as_posix()
                self.objects.upload(file, f"{self.prefix}{path}/{name}")
                sizes[name] = file.stat().st_size
        self.objects.put(f"{self.prefix}{path}/{_FILES}", json.dumps(sizes).encode(), "application/json")

    def readable_folder(self, path: str, names: Sequence[str] | None) -> Iterator[Path]:
        listed = self.read_file(f"{path}/{_FILES}")
        sizes: dict[str, int] = json.loads(listed or b"{}")
        with ExitStack() as stack:
            with disk_errors(None):
                folder = stack.enter_context(scratch_folder(Path(tempfile.gettempdir()), prefix=_DOWNLOADED))
            with disk_errors(folder):
                for file, size in sizes.items():
                    if names is None or file in names:
                        self._fetch(f"{self.prefix}{path}/{file}", folder / file, size)
            yield folder

    def _fetch(self, key: str, target: Path, size: int) -> None:
        uri = self.objects.uri(key)
        for _ in range(2):  # once more: what is wrong may be the connection, and the run is given up for it
            try:
                self.objects.download(key, target)
            except RejectedPhotoError as exc:
                raise StagingMissingError(uri=uri) from exc
            if (found := target.stat().st_size) == size:
                break
        else:
            msg = f"{uri} has {found} bytes, its writer wrote {size}; clear the run from the task fetch on"
            raise StagingCorruptError(msg)

    def write_file(self, path: str, body: bytes) -> None:
        self.objects.put(self.prefix + path, body)

    def read_file(self, path: str) -> bytes | None:
        try:
            return self.objects.get(self.prefix + path)
        except RejectedPhotoError as exc:
            if exc.reason is ReasonCode.VANISHED:
                return None
            msg = f"{self.objects.uri(self.prefix + path)}: {exc.detail}; clear the run from the task fetch on"
            raise StagingCorruptError(msg) from exc

    def exists(self, path: str) -> bool:
        return any(self.objects.head(key) for key in (f"{self.prefix}{path}/{_FILES}", self.prefix + path))

    def remove(self, path: str) -> None:
        self.objects.delete(f"{self.prefix}{path}/{_FILES}")
        for item in list(self.objects.list(f"{self.prefix}{path}/")):
            self.objects.delete(item.key)
        self.objects.abort_uploads(f"{self.prefix}{path}/", below=True)
        if self.objects.head(self.prefix + path):
            self.objects.delete(self.prefix + path)

    def remove_stale(self, before: datetime) -> Sequence[str]:
        stale = []
        for folder in self.objects.list_level(self.prefix)[0]:
            name = folder.removeprefix(self.prefix).rstrip("/")
            items = [*self.objects.list(folder)]
            if items and max(item.last_modified for item in items) < before:
                self.remove(name)
                stale.append(name)
        self.objects.abort_uploads(self.prefix, below=True, before=before)  # of folders that have nothing else
        return stale

    def free_bytes(self) -> int | None:
        return None


def _existing(path: Path) -> Path:
    """The path, or the nearest of its parents that exists."""
    return next(candidate for candidate in (path, *path.parents) if candidate.exists())


@contextmanager
def disk_errors(folder: Path | None) -> Iterator[None]:
    """Around writing to ``folder``, or to the system's temporary folder: a full or locked disk says what to do.

    Raises:
        DiskSpaceError: the disk is full.
        SettingsError: this user may not write there.
    """
    try:
        yield
    except OSError as exc:
        place = folder or Path(tempfile.gettempdir())
        if exc.errno == errno.ENOSPC:
            free_bytes = shutil.disk_usage(_existing(place)).free
            raise DiskSpaceError(path=str(place), free_bytes=free_bytes, needed_bytes=WORKING_ROOM_BYTES) from exc
        if exc.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR):
            msg = (
                f"{exc.filename or place} cannot be written: {exc.strerror}; point REFUND_STAGING_ROOT at a folder "
                f"that this worker's user may write"
            )
            raise SettingsError(msg) from exc
        raise
