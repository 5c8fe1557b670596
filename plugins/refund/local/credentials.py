"""The passwords and keys of the local stack: drawn at random once, kept in one file that only its owner reads."""

from __future__ import annotations

import base64
import json
import os
import secrets
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Self

from refund.errors import StackError

AIRFLOW_USERS = {"admin": "admin", "oncall": "op", "clerk": "user", "analyst": "viewer"}  # login: role in Airflow


@dataclass(frozen=True, slots=True, kw_only=True)
class StackCredentials:
    """Everything secret about one local stack; its repr shows none of it."""

    postgres_superuser: str = field(repr=False)
    postgres_airflow: str = field(repr=False)
    postgres_owner: str = field(repr=False)
    postgres_app: str = field(repr=False)
    postgres_analyst: str = field(repr=False)
    s3_access_key: str = field(repr=False)
    s3_secret_key: str = field(repr=False)
    airflow_fernet_key: str = field(repr=False)
    airflow_secret_key: str = field(repr=False)
    airflow_jwt_secret: str = field(repr=False)
    airflow_passwords: dict[str, str] = field(repr=False)  # by login

    @classmethod
    def draw(cls) -> Self:
        """Draw all of them from the system's random source."""
        return cls(
            postgres_superuser=_password(),
            postgres_airflow=_password(),
            postgres_owner=_password(),
            postgres_app=_password(),
            postgres_analyst=_password(),
            s3_access_key="LOCAL" + secrets.token_hex(8).upper(),
            s3_secret_key=secrets.token_hex(20),
            airflow_fernet_key=base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            airflow_secret_key=secrets.token_hex(32),
            airflow_jwt_secret=secrets.token_hex(64),  # HS512 takes 64 bytes
            airflow_passwords={login: secrets.token_hex(6) for login in AIRFLOW_USERS},
        )


def load(path: Path) -> StackCredentials:
    """Read the file that `load_or_draw` wrote.

    Raises:
        StackError: it is missing or was not written by this version.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        msg = f"the local stack's passwords, {path}, cannot be read: {exc.strerror}; start the stack first: refund up"
        raise StackError(msg) from exc
    except ValueError:
        values = None
    if not isinstance(values, dict) or set(values) != {spec.name for spec in fields(StackCredentials)}:
        msg = (
            f"{path} is not a password file of this version; remove the folder {path.parent} to start afresh "
            f"(this deletes the local database and photos)"
        )
        raise StackError(msg)
    return StackCredentials(**values)


def load_or_draw(path: Path, *, made_before: bool) -> StackCredentials:
    """Read the file, or write a new one.

    Args:
        path: The file, written with mode 0600 under a temporary name first.
        made_before: Whether a database already lies there, which only the old passwords open.

    Raises:
        StackError: the file is missing although there is a database, or it is unreadable.
    """
    if path.exists():
        return load(path)
    if made_before:
        msg = (
            f"{path} is missing, and without its passwords the local database cannot be opened; restore the file, or "
            f"remove the folder {path.parent} to start afresh (this deletes the local database and photos)"
        )
        raise StackError(msg)
    drawn = StackCredentials.draw()
    write_private(path, json.dumps(asdict(drawn), indent=1) + "\n")
    return drawn


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, never visible half-written or with a wider mode."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _password() -> str:
    return secrets.token_hex(16)  # hex: it needs no quoting in a URL, an option file or SQL
