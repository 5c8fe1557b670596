"""Where contenders meet: a Postgres, an S3 server on loopback, a model, and the same photographs for all."""

from __future__ import annotations

import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from benchmarks.photographs import PhotoSet, find_photographs, repeated
from refund.local import postgres, s3
from refund.local.credentials import StackCredentials
from refund.local.paths import StackPaths
from refund.local.ports import HOST
from refund.local.supervisor import Program
from refund.night.services import Services, open_services
from refund.settings import DatabaseAccess, Settings
from refund.store.migrate import migrate

DAY = date(2026, 11, 21)
PREFIX, LONE_PREFIX = "incoming/", "one/"  # all photos; one photo, whose night costs little but what every shard does
_PATIENCE_S = 60.0
_UPLOADS_AT_ONCE = 8

__all__ = ["DAY", "LONE_PREFIX", "PREFIX", "Arena", "find_photographs", "open_arena"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arena:
    """What every contender may use."""

    services: Services
    owner: DatabaseAccess
    folder: Path  # for files of contenders
    model_folder: Path
    keys: tuple[str, ...]  # below `PREFIX`
    bodies: tuple[bytes, ...]  # the same photos, by position
    server_pids: tuple[int, ...]

    def forget_outcomes(self) -> None:
        """Empty the tables that nights fill, so that every night is the first to see its photos."""
        import psycopg2

        connection = psycopg2.connect(
            host=self.owner.host,
            port=self.owner.port,
            user=self.owner.user,
            password=self.owner.password,
            dbname=self.owner.database,
        )
        with connection, connection.cursor() as cursor:
            cursor.execute("TRUNCATE refund.photo, refund.run_photo, refund.prediction, refund.decision CASCADE")
        connection.close()

    def lay_out(
        self, name: str, bodies: Sequence[bytes], *, prefix: str, good: Sequence[bool] | None = None
    ) -> PhotoSet:
        """Store more photos, below a prefix of their own that ends with a slash."""
        keys = tuple(f"{prefix}{DAY.isoformat()}/R-{number // 3:06d}/{number:06d}.jpg" for number in range(len(bodies)))
        with ThreadPoolExecutor(_UPLOADS_AT_ONCE) as threads:
            list(threads.map(self._put, keys, bodies))
        return PhotoSet(
            name=name,
            prefix=prefix,
            keys=keys,
            bodies=tuple(bodies),
            good=tuple(good if good is not None else [True] * len(bodies)),
        )

    def _put(self, key: str, body: bytes) -> None:
        self.services.objects.put(key, body, content_type="image/jpeg")


@contextmanager
def open_arena(
    *, photographs: list[bytes], photos: int, model_folder: Path, progress: Callable[[str], None]
) -> Iterator[Arena]:
    """Start the servers, register the model, and store ``photographs`` under as many keys as ``photos`` asks for."""
    folder = Path(tempfile.mkdtemp(prefix="refund-bench-", dir="/tmp"))
    folder.chmod(0o711)  # Postgres's system user must reach its cluster where we are root
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        paths = StackPaths(home=folder / "home")
        paths.create()
        credentials = StackCredentials.draw()
        ports = {"postgres": _free_port(), "s3": _free_port()}

        progress("starting Postgres")
        cluster = postgres.prepare_cluster(
            paths, credentials=credentials, progress=progress, shelter_root=folder / "shelter"
        )
        database_server = _start(postgres.program(cluster, port=ports["postgres"], mark={}), stack)
        _await(lambda: postgres.refusal(port=ports["postgres"], credentials=credentials))
        postgres.ensure_roles_and_databases(port=ports["postgres"], credentials=credentials)

        progress("starting the S3 server")
        object_server = _start(s3.program(paths, port=ports["s3"], credentials=credentials, mark={}), stack)
        bucket = s3.access_of(port=ports["s3"], credentials=credentials)
        _await(lambda: s3.ensure_bucket(bucket))

        owner = DatabaseAccess(
            host=HOST, port=ports["postgres"], user="refund_owner", password=credentials.postgres_owner
        )
        app = DatabaseAccess(host=HOST, port=ports["postgres"], user="refund_app", password=credentials.postgres_app)
        migrate(owner)
        settings = Settings(staging_root=paths.staging.as_uri(), cache_dir=str(paths.cache))
        services = stack.enter_context(open_services(settings=settings, s3=bucket, database=app))
        row = services.registry.register(model_folder, created_by="benchmark")
        services.registry.promote("champion", row.model, by="benchmark", reason="the only one")

        scratch = folder / f"contenders-{secrets.token_hex(4)}"
        scratch.mkdir()
        arena = Arena(
            services=services,
            owner=owner,
            folder=scratch,
            model_folder=model_folder,
            keys=(),
            bodies=(),
            server_pids=(database_server.pid, object_server.pid),
        )
        progress(f"storing {photos} photos")
        first = arena.lay_out("photographs", repeated(photographs, photos=photos), prefix=PREFIX)
        arena.lay_out("one", first.bodies[:1], prefix=LONE_PREFIX)
        yield replace(arena, keys=first.keys, bodies=first.bodies)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _start(program: Program, stack: ExitStack) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        program.command,
        cwd=program.folder,
        user=program.user,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    stack.callback(_stop, process, signal.Signals[f"SIG{program.stop_signal}"])
    return process


def _stop(process: subprocess.Popen[bytes], stop_signal: signal.Signals) -> None:
    process.send_signal(stop_signal)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _await(refusal: Callable[[], str | None]) -> None:
    give_up_at = time.monotonic() + _PATIENCE_S
    while (why := refusal()) is not None:
        if time.monotonic() > give_up_at:
            msg = f"a server of the benchmark did not start within {_PATIENCE_S:.0f} s: {why}"
            raise TimeoutError(msg)
        time.sleep(0.1)
