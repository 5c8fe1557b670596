"""The stack after a power cut, as an ordinary user, from a private folder; each test has a stack of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import refund
from refund.errors import PortTakenError, StackError
from refund.local import stack
from refund.local.paths import StackPaths
from refund.local.ports import Ports
from refund.local.supervisor import Supervisor
from tests.conftest import REPOSITORY, free_port
from tests.e2e.driver import await_that
from tests.local.live import LiveStack, start, temporary_home

pytestmark = [pytest.mark.live, pytest.mark.slow]
ORDINARY_USER = "refund-test"


def free_ports() -> Ports:
    return Ports(postgres=free_port(), s3=free_port(), airflow=free_port())


def kill_everything(live: LiveStack) -> int:
    """As a power cut does, in several looks: meanwhile a process may start another."""
    import psutil

    count = 0
    while family := live.processes():
        count += len(family)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=20)
    return count


def put_object(home: Path, body: bytes) -> None:
    client = s3_client(home)
    client.put_object(Bucket="refund-photos", Key="incoming/2026-01-02/R-1/a.jpg", Body=body)
    client.close()


def get_object(home: Path) -> bytes:
    client = s3_client(home)
    body: bytes = client.get_object(Bucket="refund-photos", Key="incoming/2026-01-02/R-1/a.jpg")["Body"].read()
    client.close()
    return body


def s3_client(home: Path):  # type: ignore[no-untyped-def]  # boto3 makes its classes at run time
    import boto3

    access = stack.access(home).s3
    return boto3.client(
        "s3",
        endpoint_url=access.endpoint_url,
        region_name=access.region,
        aws_access_key_id=access.access_key,
        aws_secret_access_key=access.secret_key,
    )


def test_after_a_power_cut_it_starts_clean_and_keeps_what_it_had() -> None:
    with temporary_home() as home:
        live = start(home, ports=free_ports(), dags_folder=REPOSITORY / "dags")
        put_object(home, b"kept")
        passwords = (home / "secrets.json").read_bytes()
        assert kill_everything(live) > 10
        assert not live.processes()
        assert stack.status(home).state == "stopped"
        # the pids in the files now belong to a stranger of the same user: this test
        pid_file = Path(str(stack.status(home).postgres_folder)) / "postmaster.pid"
        pid_file.write_text("\n".join([str(os.getpid()), *pid_file.read_text().splitlines()[1:]]) + "\n")
        (home / "run" / "supervisord.pid").write_text(f"{os.getpid()}\n")

        restarted = stack.up(home, progress=lambda _: None)

        assert restarted.is_running
        assert get_object(home) == b"kept"
        assert (home / "secrets.json").read_bytes() == passwords

        # the supervisor alone dies: its orphans must not hold the ports of the next start
        supervisor = Supervisor(StackPaths(home=home)).pid()
        assert supervisor is not None
        os.kill(supervisor, 9)
        said: list[str] = []
        assert stack.up(home, progress=said.append).is_running
        assert "left over from an earlier start" in said[0]

        stopped = stack.down(home)
        assert {line.partition(" ")[0] for line in stopped} == {"supervisord", *stack.SERVICES}
        assert not live.processes()
        assert stack.down(home) == []


def test_a_first_start_that_was_killed_halfway_is_finished_by_the_next() -> None:
    with temporary_home() as home:
        ports = free_ports()
        code = (
            "import sys; from pathlib import Path\n"
            "from refund.local import stack; from refund.local.ports import Ports\n"
            "stack.up(Path(sys.argv[1]), ports=Ports(postgres=int(sys.argv[2]), s3=int(sys.argv[3]), "
            "airflow=int(sys.argv[4])), progress=print)"
        )
        arguments = [str(home), str(ports.postgres), str(ports.s3), str(ports.airflow)]
        for sign_of_progress in (".postgres.making", "postgres"):
            with subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.DEVNULL) as starting:
                while not (home / sign_of_progress).exists():
                    assert starting.poll() is None, "it ended before it could be killed"
                    time.sleep(0.005)
                starting.kill()
        live = start(home, ports=ports, dags_folder=REPOSITORY / "dags")
        assert stack.status(home).is_running
        assert not (home / ".postgres.making").exists()
        assert live.get("/api/v2/monitor/health")["scheduler"]["status"] == "healthy"


def test_a_taken_port_stops_the_start_before_anything_runs() -> None:
    with temporary_home() as home, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = Ports(postgres=free_port(), s3=taken.getsockname()[1], airflow=free_port())
        with pytest.raises(PortTakenError, match=rf"is held by process {os.getpid()} \("):
            start(home, ports=ports, dags_folder=REPOSITORY / "dags")
        assert stack.status(home).state == "stopped"


def test_a_service_that_cannot_start_is_named_with_the_end_of_its_log() -> None:
    with temporary_home() as home:
        ports = free_ports()
        start(home, ports=ports, dags_folder=REPOSITORY / "dags")
        folder = Path(str(stack.status(home).postgres_folder))
        stack.down(home)
        (folder / "global" / "pg_control").write_bytes(b"broken")
        with pytest.raises(StackError) as caught:
            stack.up(home, progress=lambda _: None)
        assert "postgres of the local stack did not become ready (state" in str(caught.value)
        assert "pg_control" in str(caught.value)
        secrets = json.loads((home / "secrets.json").read_text())
        assert secrets["postgres_superuser"] not in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has folders that its Postgres user cannot enter")
def test_as_root_a_private_folder_stays_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    home = tmp_path / ("so-long-that-the-socket-must-lie-elsewhere-" * 3) / ".refund"
    try:
        start(home, ports=free_ports(), dags_folder=REPOSITORY / "dags")
        status = stack.status(home)
        assert status.is_running
        assert status.postgres_folder is not None
        assert not Path(status.postgres_folder).is_relative_to(tmp_path)
        assert f"Postgres keeps its files in {status.postgres_folder}" in status.notes[0]
        assert tmp_path.stat().st_mode & 0o777 == 0o700
    finally:
        folder = stack.status(home).postgres_folder
        stack.down(home)
        if folder:
            shutil.rmtree(Path(folder).parent)


@pytest.fixture
def ordinary_user() -> Iterator[str]:
    subprocess.run(["useradd", "--create-home", ORDINARY_USER], check=True)
    yield ORDINARY_USER
    remove = ["userdel", "--remove", ORDINARY_USER]
    await_that(lambda: subprocess.run(remove, check=False, capture_output=True).returncode == 0, within_s=60)


@pytest.mark.skipif(os.geteuid() != 0, reason="making another user needs root")
def test_as_an_ordinary_user(ordinary_user: str) -> None:
    """In a virtual environment that borrows ours, because the interpreter behind ours may lie in a private folder."""
    import pwd

    python = shutil.which("python3.11", path="/usr/local/bin:/usr/bin")
    if python is None:
        pytest.skip("no python3.11 in /usr/local/bin or /usr/bin that an ordinary user could run")
    home = Path(pwd.getpwnam(ordinary_user).pw_dir) / "checkout, with odd näme"
    identity = pwd.getpwnam(ordinary_user)

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            user=identity.pw_uid,
            group=identity.pw_gid,
            extra_groups=[],
            cwd=identity.pw_dir,
            env={"PATH": "/usr/bin:/bin", "HOME": identity.pw_dir, "LANG": "C.UTF-8"},
            capture_output=True,
            text=True,
            check=False,
        )

    home.mkdir()
    shutil.chown(home, ordinary_user)
    assert run(python, "-m", "venv", "--without-pip", str(home / "venv")).returncode == 0
    packages = next((home / "venv" / "lib").glob("python*/site-packages"))
    ours = [Path(pytest.__file__).parents[1], Path(refund.__file__).parents[1]]
    if any(run("test", "-r", str(place)).returncode != 0 for place in ours):
        pytest.skip("the installed packages lie in a folder that an ordinary user cannot read")
    (packages / "borrowed.pth").write_text("\n".join(map(str, ours)) + "\n")
    ports = free_ports()
    call = (
        "import sys; from pathlib import Path; from refund.local import stack; from refund.local.ports import Ports\n"
        "home = Path(sys.argv[1])\n"
        f"ports = Ports(postgres={ports.postgres}, s3={ports.s3}, airflow={ports.airflow})\n"
        f"dags = Path({str(REPOSITORY / 'dags')!r})\n"
        "print(stack.up(home, ports=ports, progress=lambda _: None, dags_folder=dags).state)\n"
        "import psutil\n"
        "print({psutil.Process(service.pid).username() for service in stack.status(home).services})\n"
        "print(len(stack.down(home)), stack.status(home).state)\n"
    )
    interpreter = str(home / "venv" / "bin" / "python")
    outcome = run(interpreter, "-c", call, str(home / ".refund"))
    assert outcome.stdout.splitlines() == [
        "running",
        f"{{'{ordinary_user}'}}",
        f"{len(stack.SERVICES) + 1} stopped",
    ], outcome.stderr[-2000:]
