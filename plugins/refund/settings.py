"""What an operator can set: one record, read from a TOML file and ``REFUND_*`` variables, credentials left out.

Precedence: environment, then the file that ``REFUND_SETTINGS`` names, then the defaults below. Credentials never come
from here: they come from the Airflow connections ``refund_s3`` and ``refund_db`` (see `refund.airflow_glue`) or, on a
laptop, from the local stack.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from refund.errors import SettingsError
from refund.records import ImageLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Access:
    """How to reach the bucket. Without keys the client's own credential chain (instance profile …) is used."""

    bucket: str
    endpoint_url: str | None = None  # None: AWS
    region: str = "us-east-1"
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    ca_file: str | None = None  # PEM; boto3 trusts it instead of the system's authorities, obstore besides them

    @property
    def place(self) -> str:
        """The endpoint as error messages name it."""
        return self.endpoint_url or f"AWS S3 in {self.region}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseAccess:
    """How to reach Postgres."""

    host: str
    port: int = 5432
    database: str = "refund"
    user: str = "refund_app"
    password: str | None = field(default=None, repr=False)
    sslmode: str = "prefer"
    ca_file: str | None = None  # libpq's sslrootcert, for sslmode verify-ca and verify-full

    @property
    def place(self) -> str:
        """The server as error messages name it, without the password."""
        return f"{self.user}@{self.host}:{self.port}/{self.database}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything an operator may change without touching code.

    Names are those of the TOML file and, upper-cased after ``REFUND_``, of the environment.
    """

    staging_root: str = field(
        default="file:///tmp/refund-staging",
        metadata={
            "help": "Where tasks leave files for each other: file:///path, or s3://bucket/prefix for many workers."
        },
    )
    cache_dir: str = field(
        default="~/.cache/refund", metadata={"help": "Where model artefacts are kept between tasks."}
    )
    max_bytes: int = field(default=ImageLimits().max_bytes, metadata={"help": "Largest photo, in bytes."})
    min_side_px: int = field(default=ImageLimits().min_side_px, metadata={"help": "Shortest side, in pixels."})
    max_side_px: int = field(default=ImageLimits().max_side_px, metadata={"help": "Longest side, in pixels."})
    decode_workers: int = field(default=0, metadata={"help": "Decoding children per task; 0: one per core.", "min": 0})
    decode_memory_bytes: int = field(
        default=1_500_000_000, metadata={"help": "Address space of one decoding child, in bytes.", "min": 100000000}
    )
    decode_timeout_s: float = field(
        default=20.0, metadata={"help": "Wall and CPU time for one photo, in seconds.", "min": 1}
    )
    inference_threads: int = field(
        default=0, metadata={"help": "Interpreters per classify task; 0: one per core.", "min": 0}
    )
    weights: str | None = field(
        default=None, metadata={"help": "Keras weights of MobileNetV2 to build from: a path or s3://bucket/key."}
    )
    drift_reference_nights: int = field(
        default=28, metadata={"help": "Nights that drift is measured against.", "min": 1}
    )
    drift_distance_floor: float = field(
        default=0.1, metadata={"help": "Jensen-Shannon distance below which a change is never called drift.", "min": 0}
    )
    drift_min_photos: int = field(
        default=100, metadata={"help": "Fewer classified photos: insufficient_data.", "min": 1}
    )
    report_dir: str | None = field(
        default=None, metadata={"help": "A folder that gets a copy of every report beside the one in S3."}
    )
    staging_keep_days: int = field(
        default=7, metadata={"help": "Staged files of failed runs are removed after this.", "min": 1}
    )
    audit_share: float = field(
        default=0.01, metadata={"help": "Share of automatic decisions that people check.", "min": 0, "max": 1}
    )
    quality_window_days: int = field(
        default=7, metadata={"help": "Run dates that accuracy over time is measured on.", "min": 1}
    )
    quality_min_audits: int = field(
        default=100,
        metadata={"help": "Fewer reviews of audits, or of the queue, in the window: insufficient_data.", "min": 2},
    )
    quality_min_accuracy: float = field(
        default=0.8, metadata={"help": "Accuracy whose lower bound below this raises an alert.", "min": 0, "max": 1}
    )

    def __post_init__(self) -> None:
        try:
            _ = self.limits
        except ValueError as exc:
            raise SettingsError(str(exc)) from exc
        for spec in fields(self):
            low, high = spec.metadata.get("min"), spec.metadata.get("max")
            value = getattr(self, spec.name)
            if low is not None and not low <= value <= (math.inf if high is None else high):  # also refuses NaN
                wanted = f"{low} or more" if high is None else f"from {low} to {high}"
                msg = f"setting {spec.name} (REFUND_{spec.name.upper()}) must be {wanted}, got {value}"
                raise SettingsError(msg)

    @property
    def limits(self) -> ImageLimits:
        """The limits a photo is checked against."""
        return ImageLimits(max_bytes=self.max_bytes, min_side_px=self.min_side_px, max_side_px=self.max_side_px)

    @property
    def cache_folder(self) -> Path:
        """``cache_dir`` with ``~`` resolved."""
        return Path(self.cache_dir).expanduser()

    @property
    def cores(self) -> int:
        """Cores this process may use (its affinity, not the machine's count)."""
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> Self:
        """Read the file that ``REFUND_SETTINGS`` names, if any, and the ``REFUND_*`` variables of ``environ``.

        Raises:
            SettingsError: the file is missing or no TOML, it has an unknown name, or a value is of the wrong type.
        """
        values: dict[str, Any] = {}
        known = {spec.name: spec for spec in fields(cls)}
        if path := environ.get("REFUND_SETTINGS"):
            values = _read_toml(Path(path))
            if unknown := sorted(set(values) - set(known)):
                msg = f"{path} sets {unknown[0]!r}, which is no setting; known are: {', '.join(known)}"
                raise SettingsError(msg)
        for name in known:
            if (text := environ.get(f"REFUND_{name.upper()}")) not in (None, ""):
                values[name] = text
        return cls(**{name: _convert(name, value, known[name].default) for name, value in values.items()})


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        msg = f"REFUND_SETTINGS names {path}, which cannot be read: {exc.strerror}"
        raise SettingsError(msg) from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        msg = f"{path} is not valid TOML: {exc}"
        raise SettingsError(msg) from exc


def _convert(name: str, value: Any, default: Any) -> Any:
    wanted = str if default is None else type(default)
    if isinstance(value, wanted) and not (wanted is int and isinstance(value, bool)):
        return value
    try:
        if isinstance(value, str) or (wanted is float and isinstance(value, int)):
            return wanted(value)
    except ValueError:
        pass
    msg = f"setting {name} (REFUND_{name.upper()}) must be of type {wanted.__name__}, got {value!r}"
    raise SettingsError(msg)
