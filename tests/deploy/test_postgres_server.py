"""deploy/postgres against a Postgres that is built with TLS: runs where the system has one."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from refund.errors import AccessDeniedError
from refund.settings import DatabaseAccess
from refund.store.database import Database
from refund.store.migrate import migrate
from tests.conftest import REPOSITORY, free_port
from tests.deploy.conftest import Written, run_roles_sql

pytestmark = pytest.mark.slow


def start_options(folder: Path) -> str:
    """The options of start.sh, with the container's paths replaced."""
    script = (REPOSITORY / "deploy" / "postgres" / "start.sh").read_text(encoding="utf-8")
    options = re.findall(r"^  (-c \S+)", script, re.MULTILINE)
    return " ".join(options).replace("/run/postgres-tls", str(folder)).replace("/etc/refund", str(folder))


@pytest.fixture(scope="module")
def server(written: Written) -> Iterator[DatabaseAccess]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found or os.getuid() != 0 or not any(entry.pw_name == "postgres" for entry in pwd.getpwall()):
        pytest.skip("no system Postgres, or not allowed to start it as its user")
    programs = found[-1].parent
    folder = Path(tempfile.mkdtemp(prefix="refund-pg-", dir="/tmp"))
    shutil.chown(folder, "postgres", "postgres")
    port = free_port()

    def run(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=60, user="postgres", cwd=folder)

    run(str(programs / "initdb"), "-D", str(folder / "d"), "-A", "trust", "-U", "postgres")
    for source, target in (("postgres.key", "server.key"), ("postgres.crt", "server.crt")):
        shutil.copy(written.tls(source), folder / target)
        shutil.chown(folder / target, "postgres", "postgres")
        (folder / target).chmod(0o600)
    hba = (REPOSITORY / "deploy" / "postgres" / "pg_hba.conf").read_text(encoding="utf-8")
    # here roles.sql is run by another system user than postgres, so the socket trusts; the network rule stays
    (folder / "pg_hba.conf").write_text(hba.replace("peer", "trust"))
    shutil.chown(folder / "pg_hba.conf", "postgres", "postgres")
    pg_ctl = [str(programs / "pg_ctl"), "-w", "-D", str(folder / "d")]
    options = f"-h 127.0.0.1 -p {port} -k {folder} -F {start_options(folder)}"
    run(*pg_ctl, "-l", str(folder / "log"), "-o", options, "start")
    try:
        run_roles_sql(written, programs / "psql", socket_folder=folder, port=port)
        yield DatabaseAccess(
            host="localhost",
            port=port,
            user="refund_owner",
            password=written.env["POSTGRES_OWNER_PASSWORD"],
            sslmode="verify-full",
            ca_file=str(written.tls("ca.crt")),
        )
    finally:
        run(*pg_ctl, "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def test_the_options_are_those_that_start_sh_gives() -> None:
    assert start_options(Path("/x")).split() == [
        "-c", "ssl=on", "-c", "ssl_cert_file=/x/server.crt", "-c", "ssl_key_file=/x/server.key",
        "-c", "ssl_min_protocol_version=TLSv1.2", "-c", "hba_file=/x/pg_hba.conf",
    ]  # fmt: skip


def test_the_network_takes_tls_with_a_password_and_nothing_else(server: DatabaseAccess, written: Written) -> None:
    migrate(server)
    app = replace(server, user="refund_app", password=written.env["POSTGRES_APP_PASSWORD"])
    with Database(app).connect() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        assert cursor.fetchall() == [(True, "TLSv1.3")]
        cursor.execute("SHOW password_encryption")
        assert cursor.fetchone() == ("scram-sha-256",)
    with pytest.raises(AccessDeniedError, match=r"no pg_hba\.conf entry"):
        Database(replace(app, sslmode="disable", ca_file=None)).now()
    with pytest.raises(AccessDeniedError, match="authentication failed"):
        Database(replace(app, password="wrong")).now()
