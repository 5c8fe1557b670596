"""Every error the refund night raises on purpose, grouped by how one recovers from it.

The four branches answer the question at 2 a.m.: fix the set-up (`ConfigurationError`), stop and look
(`FatalRunError`), let it retry (`RetriableRunError`), or lose one photo (`RejectedPhotoError`). Every message says what
was seen, what was expected and what to do. docs/operations.md has an entry for every class.
"""

from __future__ import annotations

from enum import StrEnum


class RefundError(Exception):
    """Root of all errors that this package raises on purpose; its text is fit to be shown to a user."""


# --- by recovery ---------------------------------------------------------------------------------------------------


class ConfigurationError(RefundError):
    """The set-up is wrong: retrying changes nothing, an operator must act. Tasks fail at once."""


class FatalRunError(RefundError):
    """This run cannot be trusted to go on: nothing is published. Tasks fail at once."""


class RetriableRunError(RefundError):
    """A fault of the moment (network, server, lock): the same call may succeed later. Tasks retry."""


class ReasonCode(StrEnum):
    """Why a photo was rejected: a closed list; docs/reason_codes.md explains each to a clerk."""

    EMPTY_FILE = "empty_file"  # 0 bytes
    FILE_TOO_LARGE = "file_too_large"  # more bytes than the limit
    NOT_AN_IMAGE = "not_an_image"  # no known image signature
    UNSUPPORTED_FORMAT = "unsupported_format"  # an image, but none of JPEG, PNG, GIF, BMP, WEBP
    CORRUPT = "corrupt"  # the signature is right, the rest cannot be decoded
    TRUNCATED = "truncated"  # decoding ran out of bytes
    TOO_SMALL = "too_small"  # a side is below the limit
    TOO_LARGE = "too_large"  # a side is above the limit; also decompression bombs, refused before decoding
    DECODE_TIMEOUT = "decode_timeout"  # the isolated child used up its CPU or wall time
    DECODE_MEMORY = "decode_memory"  # the isolated child reached its memory limit
    DECODE_CRASHED = "decode_crashed"  # the isolated child died
    VANISHED = "vanished"  # listed by fetch, gone at validate, while the bucket itself answered
    CHANGED = "changed"  # overwritten (new ETag) between fetch and validate; the new version comes with the next run
    BODY_MISMATCH = "body_mismatch"  # after retries, length or hash of the body still differ from the listing
    UNREADABLE = "unreadable"  # the store refuses to give it out, while the bucket itself answers

    @property
    def is_final(self) -> bool:
        """Whether the reason lies in the photo itself, so that a later run need not look again."""
        return self not in _OF_THE_MOMENT


_OF_THE_MOMENT = frozenset(
    {
        ReasonCode.DECODE_TIMEOUT,
        ReasonCode.DECODE_MEMORY,
        ReasonCode.DECODE_CRASHED,
        ReasonCode.VANISHED,
        ReasonCode.CHANGED,
        ReasonCode.BODY_MISMATCH,
        ReasonCode.UNREADABLE,
    }
)


class RejectedPhotoError(RefundError):
    """One photo cannot be classified; the night goes on without it."""

    def __init__(
        self,
        reason: ReasonCode,
        detail: str,
        *,
        image_format: str | None = None,
        width_px: int | None = None,
        height_px: int | None = None,
    ) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail
        self.image_format = image_format  # this and the sides: what was known before it failed
        self.width_px = width_px
        self.height_px = height_px


# --- configuration -------------------------------------------------------------------------------------------------


class SettingsError(ConfigurationError):
    """A setting, parameter or connection field is missing or malformed."""


class BucketMissingError(ConfigurationError):
    """The S3 server answered, but the bucket does not exist."""

    def __init__(self, *, bucket: str, endpoint: str) -> None:
        super().__init__(
            f"bucket {bucket!r} does not exist at {endpoint}; create it, or correct "
            f"service_config.s3.bucket_name in the extra of the Airflow connection refund_s3"
        )


class AccessDeniedError(ConfigurationError):
    """A server refused our credentials or our right to act."""


class DatabaseNotMigratedError(ConfigurationError):
    """The schema in Postgres is not the one this code was written for."""

    def __init__(self, *, found: str | None, expected: str) -> None:
        super().__init__(
            f"the database has schema version {found or 'none'}, this code expects {expected}; "
            f"run: refund migrate"
            + ("" if found is None else " (if the database is newer than the code, upgrade the code instead)")
        )


class PartitionError(ConfigurationError):
    """A partition or table that somebody made by hand is where a month's partition should be."""


class QueryError(ConfigurationError):
    """Postgres refused a query that a person typed."""


class NoModelError(ConfigurationError):
    """The registry knows no model under this name or alias."""

    def __init__(self, *, wanted: str) -> None:
        super().__init__(
            f"no model is registered as {wanted!r}; build one with: refund model build (see: refund model list)"
        )


class ModelArtefactError(ConfigurationError):
    """A model file is missing, altered or unreadable, so no prediction by it could be trusted."""


class ModelExistsError(ConfigurationError):
    """A model version is registered already with other content; a version never changes."""


class ModelRetiredError(ConfigurationError):
    """A retired model was to be used; it stays in the registry for what it predicted, and for nothing else."""

    def __init__(self, *, model: str) -> None:
        super().__init__(f"model {model} is retired and may not be used; choose another: refund model list")


class PromotionRefusedError(ConfigurationError):
    """A model may not become the alias's: not evaluated, not agreeing with its float32 form, or significantly worse."""


class RollbackError(ConfigurationError):
    """An alias has no earlier model to go back to."""


class LabelledSetError(ConfigurationError):
    """A set of photographs, or the labels given with it, cannot be used."""


class ReviewImportError(ConfigurationError):
    """A file of reviews has rows that cannot be taken; none of it was.

    ``faults`` say line, what was seen and what was expected; at most `SHOWN` are told, ``count`` is how many there are.
    """

    SHOWN = 20

    def __init__(self, *, source: str, faults: list[str], count: int | None = None) -> None:
        shown, total = faults[: self.SHOWN], max(len(faults), count or 0)
        super().__init__(
            f"{source} has {total} fault{'' if total == 1 else 's'}, so nothing of it was imported:\n"
            + "\n".join(f"  {fault}" for fault in shown)
            + (f"\n  … and {total - len(shown)} more" if total > len(shown) else "")
            + "\nCorrect the file and import it again; reviews that are there already are passed over"
        )
        self.faults = shown
        self.count = total


class WeightsDownloadError(ConfigurationError):
    """Keras could not download its weights; give a file, or allow the packaged network."""


class LabelMismatchError(ConfigurationError):
    """The network's outputs and its label list differ in number, so every prediction would carry a wrong name."""

    def __init__(self, *, model_key: str, output_count: int, label_count: int) -> None:
        super().__init__(
            f"model {model_key} gives {output_count} scores but its labels name {label_count} classes; "
            f"rebuild and register the model with this release: refund model build"
        )


class TaxonomyError(ConfigurationError):
    """The taxonomy has a gap, a duplicate or an unknown department."""


class PortTakenError(ConfigurationError):
    """A port that the local stack needs is held by another process."""

    def __init__(self, *, port: int, purpose: str, setting: str, holder: str) -> None:
        super().__init__(
            f"port {port}, wanted for {purpose}, is held by {holder}; stop that process or choose another port: "
            f"{setting}=PORT"
        )


class StackError(ConfigurationError):
    """The local stack is not in the state that the command needs."""


class DiskSpaceError(ConfigurationError):
    """Too little free disk for what the run will stage."""

    def __init__(self, *, path: str, free_bytes: int, needed_bytes: int) -> None:
        super().__init__(
            f"{path} has {free_bytes / 1e6:,.0f} MB free, the run needs {needed_bytes / 1e6:,.0f} MB; "
            f"free some space or point REFUND_STAGING_ROOT at a larger disk"
        )


class NotEnoughMemoryError(ConfigurationError):
    """A limit leaves less memory than a heavy task or one of its photos needs, however often it is tried."""


class HealthCheckError(ConfigurationError):
    """The health check found at least one fault; the text lists all of them, each with its fix."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__(
            f"the night cannot start, {len(faults)} fault{'s' if len(faults) > 1 else ''} found:\n"
            + "\n".join(f"  {number}. {fault}" for number, fault in enumerate(faults, start=1))
        )
        self.faults = faults


# --- the run -------------------------------------------------------------------------------------------------------


class ReconciliationError(FatalRunError):
    """Manifest, packs, predictions and tables do not count the same; nothing was published."""


class StagingMissingError(FatalRunError):
    """A staged file that an earlier task left is not there any more."""

    def __init__(self, *, uri: str) -> None:
        super().__init__(
            f"{uri} is not there; it was cleaned up or never finished. Clear the run from the task fetch on, "
            f"so that it is made again"
        )


class StagingCorruptError(FatalRunError):
    """A staged file is there but is not what its writer wrote."""


class DecoderPoolError(FatalRunError):
    """The isolated decoding interpreter could not be started or kept alive, whatever the photo."""


# --- faults of the moment ------------------------------------------------------------------------------------------


class ObjectStoreUnavailableError(RetriableRunError):
    """The S3 server could not be reached or answered with a server error."""


class MemoryShortageError(RetriableRunError):
    """For the moment less memory is free than a heavy task or one of its photos needs."""


class DatabaseUnavailableError(RetriableRunError):
    """Postgres could not be reached, broke the connection, or was busy."""
