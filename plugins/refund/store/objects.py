"""The bucket: lists, reads and writes objects, and tells a photo's fault from the server's.

boto3 lists, writes and has the last word; obstore only reads, because it does so seven times faster. obstore cannot
tell a missing key from a missing bucket or a broken server, so whatever it does not answer plainly is asked of boto3.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableSequence, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refund.errors import ReasonCode, RefundError, RejectedPhotoError
from refund.store.downloads import download_many
from refund.store.s3_clients import Patience, boto3_client, obstore_client
from refund.store.s3_errors import (
    BrokenBodyError,
    SlowBodyError,
    changed,
    changed_error,
    is_changed,
    is_missing_bucket,
    is_missing_key,
    is_not_implemented,
    is_refusal,
    translate,
)

if TYPE_CHECKING:
    from refund.records import PhotoObject
    from refund.settings import S3Access

PART_BYTES = 64 * 1024**2  # files from this size on are uploaded in parts: one request takes 5 GB at most
_COPY_LIMIT_BYTES = 5 * 1024**3  # one copy request; beyond it S3 wants parts
_CHUNK_BYTES = 1024  # of a body that obstore could not read; the clock is looked at after each


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedObject:
    """One object as the server lists it."""

    key: str
    etag: str  # without quotes
    size_bytes: int
    last_modified: datetime


class ObjectStore:
    """One bucket. Connects at first use; safe to share between threads, not across a fork."""

    def __init__(self, access: S3Access, *, patience: Patience | None = None) -> None:
        self.access = access
        self.patience = patience or Patience()
        self._lock = threading.Lock()
        self._made: dict[str, Any] = {}

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self.access.bucket

    def uri(self, key: str) -> str:
        """``s3://bucket/key``."""
        return f"s3://{self.bucket}/{key}"

    def check_bucket(self) -> None:
        """Check that the bucket is there and may be listed.

        Raises:
            BucketMissingError: the server answers, the bucket does not exist.
            AccessDeniedError: the credentials or rights are wrong.
            ObjectStoreUnavailableError: the server cannot be reached.
        """
        with self._translated(f"list bucket {self.bucket!r}"):  # not HEAD: its refusals come without a reason
            self._client.list_objects_v2(Bucket=self.bucket, MaxKeys=1)

    def list(self, prefix: str) -> Iterator[ListedObject]:
        """Every object below ``prefix``, in key order, read page by page."""
        with self._translated(f"list {prefix!r}"):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
            for page in pages:
                yield from (_listed(item) for item in page.get("Contents", ()))

    def list_level(self, prefix: str) -> tuple[Sequence[str], Sequence[ListedObject]]:
        """The folders directly below ``prefix`` (each ends with a slash) and the objects directly in it."""
        folders, items = [], []
        with self._translated(f"list {prefix!r}"):
            paginator = self._client.get_paginator("list_objects_v2")
            for page in paginator.paginate(Bucket=self.bucket, Prefix=prefix, Delimiter="/"):
                folders += [folder["Prefix"] for folder in page.get("CommonPrefixes", ())]
                items += [_listed(item) for item in page.get("Contents", ())]
        return folders, items

    def head(self, key: str, *, ask_bucket: bool = True) -> ListedObject | None:
        """The object's size and ETag, or None where there is none in a bucket that exists.

        Who looks at many keys asks `check_bucket` once himself: some servers take long over it.
        """
        with self._translated(f"look at {key!r}"):
            try:
                answer = self._client.head_object(Bucket=self.bucket, Key=key)
            except self._client.exceptions.ClientError as exc:
                if not is_missing_key(exc):
                    raise
                if ask_bucket:
                    self.check_bucket()
                return None
        return ListedObject(
            key=key,
            etag=answer["ETag"].strip('"'),
            size_bytes=answer["ContentLength"],
            last_modified=answer["LastModified"],
        )

    def get(self, key: str, *, etag: str | None = None, size_bytes: int | None = None) -> bytes:
        """The object's bytes, which must be those of this ETag and size where given.

        Raises:
            RejectedPhotoError: VANISHED (no such key in a bucket that answers), CHANGED (another ETag), UNREADABLE (the
                server refuses this object, in a bucket that answers), BODY_MISMATCH (the server says 200 twice, and
                twice the body is not of the size listed or announced).
            BucketMissingError, AccessDeniedError: the fault is not this object's.
            ObjectStoreUnavailableError: the server is down or asks to slow down, after boto3's own tries.
        """
        try:
            return self.read(key, etag=etag, size_bytes=size_bytes)
        except BrokenBodyError:
            time.sleep(self.patience.pause_s)
            self.check_bucket()  # raises where the fault is the server's
        try:
            return self._get_slow(key, etag=etag, size_bytes=size_bytes)
        except BrokenBodyError as exc:
            msg = f"the bucket answers, but this object could not be read in two tries: {exc}"
            raise RejectedPhotoError(ReasonCode.BODY_MISMATCH, msg) from exc

    def read(self, key: str, *, etag: str | None = None, size_bytes: int | None = None) -> bytes:
        """As `get`, but without a verdict over a body of another length than was listed or announced.

        Raises:
            BrokenBodyError: that is what came; and what `get` raises but for BODY_MISMATCH.
        """
        if is_plain_key(key):
            with suppress(Exception):  # every one of obstore's errors is ambiguous: boto3 decides below
                return self._get_fast(key, etag=etag, size_bytes=size_bytes)
        return self._get_slow(key, etag=etag, size_bytes=size_bytes)

    def get_many(
        self,
        items: Iterable[PhotoObject],
        *,
        max_bytes: int,
        max_in_flight_bytes: int,
        concurrency: int,
        spent_s: MutableSequence[float] | None = None,
    ) -> Iterator[tuple[int, bytes | RejectedPhotoError]]:
        """Download many objects ahead of their use; see `refund.store.downloads.download_many`."""
        return download_many(
            self,
            items,
            max_bytes=max_bytes,
            max_in_flight_bytes=max_in_flight_bytes,
            concurrency=concurrency,
            spent_s=spent_s,
        )

    def put(self, key: str, body: bytes, content_type: str = "application/octet-stream") -> None:
        """Write an object; it appears whole or not at all."""
        with self._translated(f"write {key!r}"), self._write_refused():
            self._client.put_object(Bucket=self.bucket, Key=key, Body=body, ContentType=content_type)

    def upload(self, path: Path, key: str, content_type: str = "application/octet-stream") -> None:
        """Write a file of any size as an object, without reading it into memory; it appears whole or not at all."""
        from boto3.exceptions import S3UploadFailedError
        from boto3.s3.transfer import TransferConfig
        from botocore.exceptions import ClientError

        config = TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=4)
        if path.stat().st_size >= PART_BYTES:
            self.abort_uploads(key)  # of a writer that was killed: its parts cost room, and nothing lists them
        with self._translated(f"write {key!r}"), self._write_refused():
            try:
                self._client.upload_file(
                    str(path), self.bucket, key, ExtraArgs={"ContentType": content_type}, Config=config
                )
            except S3UploadFailedError as exc:
                if isinstance(exc.__context__, ClientError):  # it hides the server's answer, which says what to do
                    raise exc.__context__ from exc
                raise

    def download(self, key: str, path: Path) -> None:
        """Write an object to a file, which appears whole or not at all.

        Raises:
            RejectedPhotoError: VANISHED, there is no such object in a bucket that answers.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as temporary:
            try:
                with self._translated(f"read {key!r}"), self._vanished(key):
                    answer = self._client.get_object(Bucket=self.bucket, Key=key)
                    for chunk in answer["Body"].iter_chunks(1024 * 1024):
                        temporary.write(chunk)
            except BaseException:
                Path(temporary.name).unlink(missing_ok=True)
                raise
        Path(temporary.name).replace(path)

    def copy(self, source: str, target: str, *, etag: str | None = None, absent: bool = False) -> bool:
        """Copy an object within the bucket, on the server; where ``etag`` is given, no other version than that.

        With ``absent`` only where nothing lies under ``target``. Of two that write there at once, one wins; but some
        servers pass over that condition (nanio), and none knows it for the more than 5 GB that are copied in parts.

        Returns whether it was copied: False where something lies under ``target`` that may not be overwritten.

        Raises:
            RejectedPhotoError: VANISHED, there is no such object in a bucket that answers; CHANGED, it is another
                version by now, and nothing lies under ``target``.
        """
        origin = {"Bucket": self.bucket, "Key": source}
        condition = {} if etag is None else {"CopySourceIfMatch": etag}
        there = {"IfNoneMatch": "*"} if absent else {}
        with self._translated(f"copy {source!r} to {target!r}"), self._vanished(source), changed(source, etag):
            try:
                answer = self._client.copy_object(
                    Bucket=self.bucket, Key=target, CopySource=origin, **condition, **there
                )
                copied = answer["CopyObjectResult"]["ETag"].strip('"')
            except self._client.exceptions.ClientError as exc:
                if absent and is_changed(exc) and (etag is None or self.head(target) is not None):
                    return False
                if absent and is_not_implemented(exc):
                    return self.copy(source, target, etag=etag)
                found = None if is_changed(exc) else self.head(source)
                if found is None or found.size_bytes <= _COPY_LIMIT_BYTES:
                    raise
                self._client.copy(origin, self.bucket, target, ExtraArgs=condition)  # in parts
                copied = None
        if etag is None or copied == etag:
            return True
        # The copy has an ETag of its own (encryption, parts), or the server passed over the condition, as some do.
        found = self.head(source)
        if found is None or found.etag != etag:
            self.delete(target)
            raise changed_error(source, etag)
        return True

    def abort_uploads(self, key: str, *, below: bool = False, before: datetime | None = None) -> None:
        """End uploads in parts that a killed writer left unfinished: of ``key``, or ``below`` it as a prefix.

        A server that cannot list them, will not end one or does not answer is let be: then its own clean-up has to.
        """
        from botocore.exceptions import ClientError

        with suppress(RefundError), self._translated(f"list unfinished uploads of {key!r}"):
            for page in self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=key):
                for upload in page.get("Uploads", ()):
                    mine = upload["Key"].startswith(key) if below else upload["Key"] == key  # some ignore the prefix
                    if mine and (before is None or upload["Initiated"] < before):
                        with suppress(ClientError):
                            self._client.abort_multipart_upload(
                                Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                            )

    def delete(self, key: str) -> None:
        """Remove an object; that it is not there is no error."""
        with self._translated(f"delete {key!r}"):
            self._client.delete_object(Bucket=self.bucket, Key=key)

    # --- how -------------------------------------------------------------------------------------------------------

    @property
    def _client(self) -> Any:
        return self._connected("boto3", boto3_client)

    def _connected(self, name: str, make: Callable[..., Any], **options: Any) -> Any:
        with self._lock:
            if name not in self._made:
                self._made[name] = make(self.access, self.patience, **options)
            return self._made[name]

    def _get_fast(self, key: str, *, etag: str | None, size_bytes: int | None) -> bytes:
        import obstore

        answer = obstore.get(self._connected("obstore", obstore_client), key)
        meta = answer.meta  # made anew whenever it is asked for
        found, announced = str(meta["e_tag"] or "").strip('"'), meta["size"]
        if (etag is not None and found != etag) or (size_bytes is not None and announced != size_bytes):
            raise BrokenBodyError(seen=f"ETag {found}, {announced} bytes")  # before its body is read
        body = bytes(answer.bytes())
        if len(body) != announced:
            raise BrokenBodyError(seen=f"{len(body)} bytes")
        return body

    def _get_slow(self, key: str, *, etag: str | None, size_bytes: int | None) -> bytes:
        from botocore.exceptions import IncompleteReadError, ReadTimeoutError, ResponseStreamingError

        with self._translated(f"read {key!r}"), self._vanished(key), self._refused(key):
            started = time.monotonic()
            client = self._connected("reader", boto3_client, reading=True)
            answer = client.get_object(Bucket=self.bucket, Key=key)
            found = answer["ETag"].strip('"')
            if etag is not None and found != etag:
                answer["Body"].close()
                msg = f"it was listed with ETag {etag}, now it has {found}; the new version comes with the next run"
                raise RejectedPhotoError(ReasonCode.CHANGED, msg)
            if size_bytes is not None and answer["ContentLength"] != size_bytes:
                answer["Body"].close()
                raise BrokenBodyError(seen=f"{answer['ContentLength']} bytes, listed were {size_bytes}")
            body = bytearray()
            try:
                while chunk := answer["Body"].read(_CHUNK_BYTES):
                    body += chunk
                    if time.monotonic() - started > self.patience.body_s:
                        answer["Body"].close()
                        raise SlowBodyError(len(body), answer["ContentLength"], seconds=time.monotonic() - started)
            except ReadTimeoutError as exc:
                raise SlowBodyError(len(body), answer["ContentLength"], seconds=time.monotonic() - started) from exc
            except (IncompleteReadError, ResponseStreamingError) as exc:
                raise BrokenBodyError(seen=f"a body that broke off: {exc}") from exc
        if len(body) != answer["ContentLength"]:
            raise BrokenBodyError(seen=f"{len(body)} bytes, announced were {answer['ContentLength']}")
        return bytes(body)

    @contextmanager
    def _write_refused(self) -> Iterator[None]:
        from botocore.exceptions import ClientError

        try:
            yield
        except ClientError as exc:
            if is_refusal(exc):
                self._forget_client()  # some servers leave the refused body unread, which spoils the connection
            raise

    def _forget_client(self) -> None:
        with self._lock:
            if client := self._made.pop("boto3", None):
                client.close()

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError
        from urllib3.exceptions import HTTPError

        # ValueError: a malformed endpoint; ResponseParserError: an answer cut in its middle
        faults = (BotoCoreError, ClientError, HTTPError, ValueError, ResponseParserError, SlowBodyError)
        try:
            yield
        except faults as exc:
            raise translate(exc, access=self.access, doing=doing) from exc

    @contextmanager
    def _vanished(self, key: str) -> Iterator[None]:
        from botocore.exceptions import ClientError

        try:
            yield
        except ClientError as exc:
            if not is_missing_key(exc):
                raise
            self.check_bucket()  # raises where it is the bucket that is missing
            msg = f"no object {key!r} any more, while bucket {self.bucket!r} answers"
            raise RejectedPhotoError(ReasonCode.VANISHED, msg) from exc

    @contextmanager
    def _refused(self, key: str) -> Iterator[None]:
        """Around a GET: archived objects, disabled keys and access lists refuse one object, wrong credentials all."""
        from botocore.exceptions import ClientError

        try:
            yield
        except ClientError as exc:
            if is_missing_key(exc) or is_missing_bucket(exc) or not is_refusal(exc):
                raise
            self.check_bucket()  # raises where everything is refused
            msg = f"bucket {self.bucket!r} answers, but refuses to give out this object: {' '.join(str(exc).split())}"
            raise RejectedPhotoError(ReasonCode.UNREADABLE, msg) from exc


def is_plain_key(key: str) -> bool:
    """Whether obstore can read the key: it cannot where a path segment is empty, ``.`` or ``..``."""
    return not {"", ".", ".."} & set(key.split("/"))


def _listed(item: Mapping[str, Any]) -> ListedObject:
    return ListedObject(
        key=item["Key"],
        etag=item["ETag"].strip('"'),
        size_bytes=item["Size"],
        last_modified=item["LastModified"],
    )
