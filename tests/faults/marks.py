"""Looks for secrets where they must not be: in files, tables, command lines and environments, in any common form."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import urllib.parse
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refund.settings import DatabaseAccess

if TYPE_CHECKING:
    import psutil

NOT_SECRET = frozenset({"s3_access_key"})  # a user name; it stands in every signed request


def secrets_of(values: Mapping[str, Any]) -> dict[str, str]:
    """Secret by name, from the values of ``secrets.json``."""
    flat = {name: value for name, value in values.items() if isinstance(value, str) and name not in NOT_SECRET}
    nested = {name: value for name, value in values.items() if isinstance(value, dict)}
    return flat | {f"{name}.{key}": value for name, inner in nested.items() for key, value in inner.items()}


def forms(secret: str) -> set[bytes]:
    """The secret as it is, and as logs, URLs, JSON and binary columns write it."""
    plain = secret.encode()
    found = {
        plain,
        urllib.parse.quote(secret, safe="").encode(),
        urllib.parse.quote_plus(secret).encode(),
        json.dumps(secret)[1:-1].encode(),
        json.dumps(secret, ensure_ascii=False)[1:-1].encode(),
        plain.hex().encode(),
    }
    for offset in range(3):  # base64 of a longer text: the secret may start at any of three places of a group
        shifted = base64.b64encode(b"\0" * offset + plain)
        whole = shifted[-(-offset * 8 // 6) : (offset + len(plain)) * 8 // 6]
        found |= {whole, whole.replace(b"+", b"-").replace(b"/", b"_")}
    return found


class Search:
    """Knows every form of every secret."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._forms = {name: forms(secret) for name, secret in secrets.items()}

    @property
    def names(self) -> set[str]:
        """What it looks for."""
        return set(self._forms)

    def found(self, content: bytes | str) -> set[str]:
        """The names of the secrets that stand in it."""
        text = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
        return {name for name, written in self._forms.items() if any(form in text for form in written)}

    def in_files(self, folders: Iterable[Path]) -> tuple[dict[str, set[str]], int]:
        """Secrets by the name of the file that holds them, and how many files were read; equal files are read once."""
        held, count, seen = {}, 0, set()
        for folder in folders:
            for path in sorted(folder.rglob("*")):
                if path.is_symlink() or not path.is_file():
                    continue
                try:
                    content = path.read_bytes()
                except FileNotFoundError:  # a server at work removed it
                    continue
                count += 1
                digest = hashlib.sha256(content).digest()
                if digest not in seen and (names := self.found(content)):
                    held[path.relative_to(folder).as_posix()] = names
                seen.add(digest)
        return held, count

    def in_database(self, access: DatabaseAccess) -> tuple[dict[str, set[str]], dict[str, int]]:
        """Secrets by table, and how many rows each table has; every table but those of Postgres itself."""
        import psycopg2

        held, rows = {}, {}
        connection = psycopg2.connect(
            host=access.host, port=access.port, dbname=access.database, user=access.user, password=access.password
        )
        with closing(connection), connection.cursor() as cursor:
            cursor.execute(
                "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables "
                "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
            )
            for (table,) in cursor.fetchall():
                cursor.execute(f"SELECT t::text FROM {table} t")
                texts = [text for (text,) in cursor.fetchall()]
                rows[table] = len(texts)
                if names := self.found("\n".join(texts)):
                    held[table] = names
        return held, rows


@dataclass(kw_only=True)
class Visible:
    """What other users of the machine, or a photo that takes over its decoder, could read of a night's processes."""

    command_lines: set[str] = field(default_factory=set)
    decoders: dict[int, bytes] = field(default_factory=dict)  # the environment of each, by process id

    def sample(self, processes: list[psutil.Process]) -> None:
        """Look once."""
        import psutil

        for process in processes:
            with contextlib.suppress(psutil.Error, OSError):
                command = " ".join(process.cmdline())
                self.command_lines.add(command)
                if "refund.imaging.pool" in command:
                    self.decoders[process.pid] = Path(f"/proc/{process.pid}/environ").read_bytes()
