"""Which stores a command talks to: the local stack where there is one, else Airflow's own connections."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from refund.errors import ConfigurationError, StackError
from refund.settings import DatabaseAccess, S3Access, Settings

if TYPE_CHECKING:
    from refund.local.paths import StackPaths
    from refund.local.stack import LocalAccess
    from refund.night.services import Services


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The stores and settings of this command; ``local`` is None away from a laptop's stack."""

    s3: S3Access
    database: DatabaseAccess
    settings: Settings
    local: LocalAccess | None


def find_access() -> Access:
    """Use the local stack of this project if it was ever started, else the connections of an Airflow worker.

    Raises:
        StackError: there is neither.
    """
    if (local := _local_access()) is not None:
        return Access(s3=local.s3, database=local.database, settings=local.settings, local=local)
    if "AIRFLOW_CONN_REFUND_DB" in os.environ or "AIRFLOW_HOME" in os.environ:
        from refund.airflow_glue import connections

        s3, database = connections()
        return Access(s3=s3, database=database, settings=Settings.load(os.environ), local=None)
    msg = (
        "there is no local stack here and no AIRFLOW_CONN_REFUND_DB in the environment; "
        "start one with: refund up, or run this where Airflow runs"
    )
    raise StackError(msg)


def who() -> str:
    """Whoever runs this command, as the history and the audit keep it; in a container, set USER to say so."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number that no user has
        return f"uid {os.getuid()}"


def need_local() -> LocalAccess:
    """The local stack's access, for commands that only make sense there.

    Raises:
        StackError: no local stack was ever started here.
    """
    if (local := _local_access()) is None:
        msg = f"there is no local stack in {stack_paths().home}; start one with: refund up"
        raise StackError(msg)
    return local


def stack_paths() -> StackPaths:
    """The folders of this project's local stack: REFUND_HOME, or .refund in the checkout."""
    from refund.local.paths import StackPaths, default_home

    return StackPaths(home=default_home(os.environ, working_folder=Path.cwd()))


def _local_access() -> LocalAccess | None:
    from refund.local.stack import access

    paths = stack_paths()
    return access(paths.home) if paths.state_file.exists() else None


def role_access(role: str) -> DatabaseAccess:
    """The database as ``owner`` or ``analyst``: the local stack's, else the connection ``refund_db_<role>``.

    Raises:
        ConfigurationError: neither exists.
    """
    access = find_access()
    if access.local is not None:
        return {"owner": access.local.owner, "analyst": access.local.analyst}[role]
    from refund.airflow_glue import database_access, read_connection

    try:
        return database_access(read_connection(f"refund_db_{role}"))
    except ConfigurationError as exc:
        msg = f"this command connects as refund_{role}: {exc}"
        raise ConfigurationError(msg) from exc


@contextmanager
def command_services() -> Iterator[Services]:
    """The stores of a command, as a task of the night would have them."""
    from refund.night.services import open_services

    access = find_access()
    with open_services(settings=access.settings, s3=access.s3, database=access.database) as services:
        yield services
