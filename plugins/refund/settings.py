"""What an operator can set: one record, read from a TOML file and ``REFUND_*`` variables, credentials left out.

Precedence: environment, then the file that ``REFUND_SETTINGS`` names, then the defaults below. Credentials never come
from here: they come from the Airflow connections ``refund_s3`` and ``refund_db`` (see `refund.airflow_glue`) or, on a
laptop, from the local stack.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from refund.errors import SettingsError
from refund.records import ImageLimits

ALERT_CHANNELS = ("smtp", "slack", "apprise")
SEVERITIES = ("info", "warning", "critical")  # from the least
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_ADDRESS = re.compile(r"[^\s,;<>@\x00-\x1f]+@[^\s,;<>@\x00-\x1f]+")


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
    task_memory_bytes: int = field(
        default=0,
        metadata={
            "help": "Memory that one validate or classify task may take, in bytes; 0: its share of what is free.",
            "min": 0,
        },
    )
    weights: str | None = field(
        default=None, metadata={"help": "Keras weights of MobileNetV2 to build from: a path or s3://bucket/key."}
    )
    drift_reference_nights: int = field(
        default=28, metadata={"help": "Nights that drift is measured against.", "min": 1}
    )
    drift_alpha: float = field(
        default=0.02,
        metadata={
            "help": "False drift alarms per night without drift, over all measures together.",
            "min": 0.001,
            "max": 0.5,
        },
    )
    drift_distance_floor: float = field(
        default=0.1,
        metadata={
            "help": "Jensen-Shannon distance of the category shares up to which it is never drift.",
            "min": 0,
            "max": 1,
        },
    )
    drift_move_floor: float = field(
        default=0.03,
        metadata={"help": "Move of one category's share up to which it is never drift.", "min": 0, "max": 1},
    )
    drift_volume_floor: float = field(
        default=0.3,
        metadata={"help": "Loss of photos, as a ratio, up to which it is never drift.", "min": 0, "max": 1},
    )
    drift_rejection_floor: float = field(
        default=0.02,
        metadata={"help": "Change of the share rejected up to which it is never drift.", "min": 0, "max": 1},
    )
    drift_min_photos: int = field(
        default=100,
        metadata={"help": "Fewer photos tonight or in the whole window: insufficient_data.", "min": 1},
    )
    desk_requests_per_minute: int = field(
        default=120,
        metadata={"help": "Photos that one person may have classified at the desk in a minute.", "min": 1},
    )
    desk_upload_timeout_s: float = field(
        default=30.0,
        metadata={
            "help": "Time for an upload to the desk to arrive, in seconds for each `max_bytes` of it begun.",
            "min": 1,
        },
    )
    desk_decode_timeout_s: float = field(
        default=5.0,
        metadata={"help": "Wall and CPU time for one photo at the desk, in seconds.", "min": 1},
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
    alert_channels: str | None = field(
        default=None, metadata={"help": "Where alerts are sent: of smtp, slack and apprise, by commas."}
    )
    alert_email_to: str | None = field(
        default=None, metadata={"help": "Who gets the mails, by commas; needed by the channel smtp."}
    )
    alert_email_from: str | None = field(
        default=None, metadata={"help": "Sender of the mails; needed by the channel smtp."}
    )
    alert_min_severity: str = field(
        default="warning", metadata={"help": "Alerts below this are rows only: info, warning or critical."}
    )
    alert_cooldown_hours: float = field(
        default=20.0,
        metadata={"help": "Warnings of one rule and subject are sent once per channel within this.", "min": 0},
    )
    alert_timeout_s: float = field(
        default=10.0, metadata={"help": "How long a channel may take to answer, in seconds.", "min": 1, "max": 60}
    )
    alert_rejected_share: float = field(
        default=0.2,
        metadata={
            "help": "Rejected share above which a night without a reference raises an alert.",
            "min": 0,
            "max": 1,
        },
    )
    alert_no_photos: str = field(
        default="mon, tue, wed, thu, fri, sat, sun",
        metadata={"help": "Weekdays of run dates on which a night without photos raises an alert, by commas."},
    )
    heartbeat_url: str | None = field(
        default=None,
        repr=False,  # whoever knows it can call the night alive
        metadata={"help": "http(s) address that refund check calls when the night is there."},
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
        self._check_alerts()

    def _check_alerts(self) -> None:
        _words("alert_channels", self.alert_channels or "", known=ALERT_CHANNELS)
        _words("alert_no_photos", self.alert_no_photos, known=WEEKDAYS)
        if self.alert_min_severity not in SEVERITIES:
            msg = (
                f"setting alert_min_severity (REFUND_ALERT_MIN_SEVERITY) must be one of {', '.join(SEVERITIES)}, "
                f"got {self.alert_min_severity!r}"
            )
            raise SettingsError(msg)
        if "smtp" in self.channels:
            for name in ("alert_email_to", "alert_email_from"):
                given = getattr(self, name) or ""
                addresses = [word.strip() for word in given.split(",")]
                if not all(_ADDRESS.fullmatch(address) for address in addresses):
                    msg = (
                        f"setting {name} (REFUND_{name.upper()}) must hold mail addresses such as night@example.com, "
                        f"as alert_channels has smtp; got {given!r}"
                    )
                    raise SettingsError(msg)

    @property
    def channels(self) -> tuple[str, ...]:
        """``alert_channels``, one by one."""
        return _words("alert_channels", self.alert_channels or "", known=ALERT_CHANNELS)

    @property
    def delivery_weekdays(self) -> frozenset[int]:
        """``alert_no_photos`` as `datetime.date.weekday` counts: Monday is 0."""
        return frozenset(
            WEEKDAYS.index(word) for word in _words("alert_no_photos", self.alert_no_photos, known=WEEKDAYS)
        )

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


def _words(name: str, text: str, *, known: tuple[str, ...]) -> tuple[str, ...]:
    """The words of a comma-separated setting, each once.

    Raises:
        SettingsError: one of them is not known.
    """
    words = tuple(dict.fromkeys(word for part in text.split(",") if (word := part.strip().lower())))
    if unknown := [word for word in words if word not in known]:
        msg = (
            f"setting {name} (REFUND_{name.upper()}) has {unknown[0]!r}; expected any of {', '.join(known)}, by commas"
        )
        raise SettingsError(msg)
    return words


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
