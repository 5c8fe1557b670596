"""Turns what boto3 raises into our errors; the one place that knows S3's error codes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from refund.errors import (
    AccessDeniedError,
    BucketMissingError,
    ObjectStoreUnavailableError,
    ReasonCode,
    RefundError,
    RejectedPhotoError,
    SettingsError,
)

if TYPE_CHECKING:
    from refund.settings import S3Access

_BUCKET_MISSING = frozenset({"NoSuchBucket"})
_KEY_MISSING = frozenset({"NoSuchKey", "404", "NotFound"})  # HEAD has no body, so only the status
_ELSEWHERE = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "301", "IllegalLocationConstraintException"}
)
_LATER = frozenset(
    {"SlowDown", "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "RequestTimeout",
     "RequestLimitExceeded", "OperationAborted", "ConditionalRequestConflict", "TooManyRequests",
     "TooManyRequestsException", "429"}
)  # fmt: skip


class BrokenBodyError(Exception):
    """What came is not of the length that was listed or announced; worth another try."""

    def __init__(self, *, seen: str) -> None:
        super().__init__(f"it came with {seen}")


class SlowBodyError(Exception):
    """An object's body came so slowly that it was given up."""

    def __init__(self, bytes_read: int, bytes_announced: int, *, seconds: float) -> None:
        super().__init__(f"only {bytes_read:,} of {bytes_announced:,} bytes came in {seconds:.0f} s")


def is_missing_key(exc: Exception) -> bool:
    """Whether S3 says that there is no such object; the bucket may be missing too where it answered a HEAD."""
    return _code(exc) in _KEY_MISSING


def is_missing_bucket(exc: Exception) -> bool:
    """Whether S3 says that there is no such bucket."""
    return _code(exc) in _BUCKET_MISSING


def is_changed(exc: Exception) -> bool:
    """Whether S3 says that the object is not the version that was asked for."""
    return _code(exc) in {"PreconditionFailed", "412"}


def is_not_implemented(exc: Exception) -> bool:
    """Whether S3 says that it does not know what a header of the request asks for."""
    return _code(exc) in {"NotImplemented", "501"}


def changed_error(key: str, etag: str | None) -> RejectedPhotoError:
    """The fault of an object that was to be copied as the version ``etag``."""
    return RejectedPhotoError(ReasonCode.CHANGED, f"{key!r} is not the version with ETag {etag} any more")


@contextmanager
def changed(key: str, etag: str | None) -> Iterator[None]:
    """Around a request for the version ``etag``: tells that it is another by now."""
    from botocore.exceptions import ClientError

    try:
        yield
    except ClientError as exc:
        if not is_changed(exc):
            raise
        raise changed_error(key, etag) from exc


def is_refusal(exc: Exception) -> bool:
    """Whether the server answered with a refusal (4xx) rather than failing to answer."""
    return 400 <= _status(exc) < 500 and not _is_later(exc)


def translate(exc: Exception, *, access: S3Access, doing: str) -> RefundError:
    """Our error for one of boto3's, raised ``from exc``; ``doing`` is a phrase such as ``read 'a.jpg'``."""
    from botocore import exceptions

    code, status = _code(exc), _status(exc)
    text = " ".join(str(exc).split())
    if code in _BUCKET_MISSING:
        return BucketMissingError(bucket=access.bucket, endpoint=access.place)
    if code in _ELSEWHERE:
        return SettingsError(
            f"S3 at {access.place} says that bucket {access.bucket!r} belongs to another region or endpoint ({text}); "
            f"correct region_name or endpoint_url in the extra of the Airflow connection refund_s3"
        )
    if isinstance(exc, (exceptions.NoCredentialsError, exceptions.PartialCredentialsError)):
        return AccessDeniedError(
            f"no S3 credentials for {access.place}: {text}; set login and password of the Airflow connection "
            f"refund_s3, or give the worker an instance profile"
        )
    if status and status < 500 and not _is_later(exc):
        return AccessDeniedError(
            f"S3 at {access.place} refused to {doing}: {text}. Correct login and password of the Airflow connection "
            f"refund_s3, or the rights of that user on bucket {access.bucket!r}"
        )
    if isinstance(exc, (exceptions.ParamValidationError, exceptions.InvalidRegionError, ValueError)):
        return SettingsError(
            f"bucket {access.bucket!r}, region {access.region!r} or endpoint {access.place!r} is malformed: {text}; "
            f"correct the Airflow connection refund_s3"
        )
    if isinstance(exc, exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in text:
        return SettingsError(
            f"S3 at {access.place} is not trusted, so it was not asked to {doing}: {text}. Expected a certificate for "
            f"that host from an authority in {access.ca_file or 'the certificates of the system'}; correct `verify` in "
            f"the extra of the Airflow connection refund_s3, or the server's certificate"
        )
    return ObjectStoreUnavailableError(
        f"S3 at {access.place} did not {doing}: {text}. The task retries; if it goes on, check that the server runs "
        f"and is reachable from here"
    )


def seen(exc: BaseException) -> str:
    """What the server did, in one line and without what we make of it."""
    told = exc if isinstance(exc, BrokenBodyError) else exc.__cause__ or exc
    return " ".join(str(told).split())


def _is_later(exc: Exception) -> bool:
    return _code(exc) in _LATER or _status(exc) == 429


def _code(exc: Exception) -> str:
    response = getattr(exc, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _status(exc: Exception) -> int:
    response = getattr(exc, "response", None)
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) if isinstance(response, dict) else 0
