"""The Airflow of the image, without a container: the same lock in an environment of its own, the same configuration.

FAB and Celery stay out of the tests' own environment, as they do out of the local stack: with FAB installed, Airflow
would make FAB's tables in every metadata database. The environment here is the tests' own plus what
requirements-production.txt adds to it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from refund.settings import DatabaseAccess, S3Access
from tests.conftest import REPOSITORY, free_port
from tests.deploy.compose import command_lines, environment, ours, services
from tests.deploy.conftest import Written

pytestmark = pytest.mark.slow
PATIENCE_S = 900  # with what hangs; a slow machine has time


@dataclass(frozen=True, slots=True, kw_only=True)
class Production:
    """Programs of the image's environment, and the environment variables of each service."""

    bin: Path
    home: Path
    env: dict[str, str]  # of .env, with our servers in the place of the containers
    port: int  # of the API server

    def environ(self, service: str) -> dict[str, str]:
        given = {name: self._here(value) for name, value in environment(service, self.env).items()}
        kept = {name: os.environ[name] for name in ("HOME", "TMPDIR", "LANG") if name in os.environ}
        return kept | given | {"PATH": f"{self.bin}:/usr/bin:/bin", "AIRFLOW_HOME": str(self.home)}

    def run(self, service: str, *command: str) -> str:
        done = subprocess.run(
            [str(self.bin / command[0]), *map(self._here, command[1:])],
            env=self.environ(service), cwd=self.home, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-2000:]
        return done.stdout + done.stderr

    def _here(self, value: str) -> str:
        """Paths of the container become paths of the checkout and of a temporary folder."""
        value = re.sub(r"/opt/refund/(dags|deploy)", rf"{REPOSITORY}/\1", value)
        value = value.replace("airflow-api-server:8080", f"127.0.0.1:{self.port}")
        return value.replace("/opt/airflow", str(self.home)).replace("/tmp/refund-cache", str(self.home / "cache"))


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of the environment; takes a quarter of a minute."""
    folder = tmp_path_factory.mktemp("image") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=PATIENCE_S)
    library = folder / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    (library / "zz_lock.pth").write_text(sysconfig.get_path("purelib") + "\n" + str(REPOSITORY / "plugins") + "\n")
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    lock = str(REPOSITORY / "requirements-production.txt")
    installed = subprocess.run(
        [*pip, "install", "-q", "--require-hashes", "-r", lock],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert installed.returncode == 0, installed.stderr[-3000:]
    assert (
        "No broken requirements" in subprocess.run([*pip, "check"], capture_output=True, text=True, check=False).stdout
    )
    script = "#!{python}\nimport sys\nfrom {module} import {call}\nsys.exit({call}())\n"
    for name, module, call in (
        ("airflow", "airflow.__main__", "main"),
        ("celery", "celery.__main__", "main"),
        ("refund", "refund.cli", "main"),
    ):
        program = folder / "bin" / name
        program.write_text(script.format(python=folder / "bin" / "python", module=module, call=call))
        program.chmod(0o755)
    return folder / "bin"


@pytest.fixture(scope="module")
def production(
    programs: Path,
    written: Written,
    tls_postgres: DatabaseAccess,
    tls_s3: S3Access,
    tmp_path_factory: pytest.TempPathFactory,
) -> Production:
    here = {
        "POSTGRES_HOST": tls_postgres.host,
        "POSTGRES_PORT": str(tls_postgres.port),
        "POSTGRES_CA": str(tls_postgres.ca_file),
        "S3_CA": str(tls_s3.ca_file),
        "S3_ENDPOINT_URL": str(tls_s3.endpoint_url),
        "S3_ACCESS_KEY": str(tls_s3.access_key),
        "S3_SECRET_KEY": str(tls_s3.secret_key),
    }
    home = tmp_path_factory.mktemp("airflow")
    return Production(bin=programs, home=home, env=written.env | here, port=free_port())


SCHEDULER_HEALTH = free_port()


def last_json(output: str) -> Any:
    """The answer of a script among the lines that Airflow logs."""
    return json.loads([line for line in output.splitlines() if line.startswith("{")][-1])


KEYS = """
import json, os, re
from airflow.configuration import conf
from airflow.providers_manager import ProvidersManager
ProvidersManager().initialize_providers_configuration()
described = conf.configuration_description
unknown = []
for name in os.environ:
    found = re.fullmatch(r"AIRFLOW__([A-Z_]+?)__([A-Z0-9_]+)", name)
    if found and found[2].lower() not in described.get(found[1].lower(), {"options": {}})["options"]:
        unknown.append(name)
print(json.dumps({"unknown": unknown, "executor": conf.get("core", "executor"),
                  "checked": sum(name.startswith(("AIRFLOW__CELERY", "AIRFLOW__FAB")) for name in os.environ)}))
"""


@pytest.mark.parametrize("service", ["airflow-worker", "airflow-init"])
def test_every_configuration_key_is_known(production: Production, service: str) -> None:
    answer = last_json(production.run(service, "python", "-c", KEYS))
    assert answer == {"unknown": [], "executor": "CeleryExecutor", "checked": 8}


PARSE = """
import json, sys
from airflow.cli.cli_parser import get_parser
parser = get_parser()
for line in json.load(sys.stdin):
    parser.parse_args(line)
"""


def airflow_commands() -> list[list[str]]:
    """What containers hand to `airflow`: by the image's entrypoint, in a script, or in a health check."""
    found = []
    for name, service in ours().items():
        for line in command_lines(name):
            if line[0] == "airflow" or (name.startswith("airflow-") and len(line) <= 2 and line[0] != "python"):
                found.append(line[1:] if line[0] == "airflow" else line)
        test = service.get("healthcheck", {}).get("test", [""])
        if test[-1].startswith("airflow "):
            found.append(shlex.split(test[-1])[1:])
    return found


def test_every_command_is_known(production: Production) -> None:
    commands = [[word.replace("$INFERENCE_SLOTS", "1") for word in line] for line in airflow_commands()]
    assert len(commands) == 9
    done = subprocess.run(
        [production.bin / "python", "-c", PARSE], input=json.dumps(commands), env=production.environ("airflow-worker"),
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_celery_sees_the_broker_the_results_and_the_time_limits(production: Production) -> None:
    """Also that the application of the worker's health check is there."""
    code = (
        "from airflow.providers.celery.executors.celery_executor import app; c = app.conf; "
        "print(c.broker_url.split('@')[1], c.result_backend.split('@')[1], c.broker_transport_options)"
    )
    answer = production.run("airflow-worker", "python", "-c", code)
    assert "valkey:6379/0 localhost:" in answer
    assert "'visibility_timeout': 21600" in answer
    celery = ("celery", "--app", "airflow.providers.celery.executors.celery_executor.app")
    assert "--destination" in production.run("airflow-worker", *celery, "inspect", "--help")


@pytest.fixture(scope="module")
def initialised(production: Production) -> Production:
    """Both init services, line by line as docker-compose.yaml has them."""
    for service in ("airflow-init", "refund-init"):
        environ = production.environ(service)
        for line in command_lines(service):
            production.run(service, *(environ[word[1:]] if word.startswith("$") else word for word in line))
    return production


ROLES = """
import json
from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
from airflow.utils.providers_configuration_loader import providers_configuration_loaded
@providers_configuration_loaded
def ask():
    with get_application_builder() as builder:
        return {user.username: sorted(f"{p.action.name} {p.resource.name}" for r in user.roles for p in r.permissions)
                for user in builder.sm.get_all_users()}
print(json.dumps(ask()))
"""


def test_the_logins_may_do_what_the_page_says(initialised: Production) -> None:
    may = last_json(initialised.run("airflow-init", "python", "-c", ROLES))
    assert set(may) == {"viewer", "clerk", "operator", "admin"}
    reads = {line for line in may["viewer"] if not line.startswith("menu_access")}
    assert {line for line in reads if not line.startswith("can_read")} == {
        "can_edit My Password", "can_edit My Profile",
    }  # fmt: skip
    assert set(may["operator"]) - set(may["viewer"]) == {
        "can_edit DAGs", "can_create DAG Runs", "can_edit DAG Runs", "can_create Task Instances",
        "can_edit Task Instances", "can_create Backfills", "can_edit Backfills",
    }  # fmt: skip
    assert set(may["clerk"]) - set(may["viewer"]) == {"can_edit Refund Desk"}
    assert set(may["operator"]) | set(may["clerk"]) < set(may["admin"])
    assert not [line for line in may["operator"] if re.search("Connection|Variable|Config|delete|User|Role", line)]


def test_a_second_start_changes_nothing_and_mends_the_role(initialised: Production) -> None:
    said = initialised.run("airflow-init", "python", str(REPOSITORY / "deploy" / "access.py"))
    assert "login admin: kept as it is" in said
    assert [value for name, value in initialised.env.items() if name.endswith("_PASSWORD") and value in said] == []
    assert "The schema is up to date" in initialised.run("refund-init", "refund", "migrate")


@pytest.fixture(scope="module")
def api(initialised: Production) -> Iterator[httpx.Client]:
    """The API server as its container runs it, on a free port of loopback."""
    port = initialised.port
    log = initialised.home / "api.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [initialised.bin / "airflow", "api-server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
            env=initialised.environ("airflow-api-server"), cwd=initialised.home, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as client:
            deadline = time.monotonic() + PATIENCE_S
            while True:
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(log.read_text(encoding="utf-8", errors="replace")[-4000:])
                try:
                    if client.get("/api/v2/monitor/health").status_code == 200:
                        break
                except httpx.TransportError:
                    time.sleep(0.5)
            yield client
    finally:
        os.killpg(process.pid, 15)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait(timeout=60)


def login(api: httpx.Client, production: Production, name: str) -> dict[str, str]:
    password = production.env[f"AIRFLOW_{name.upper()}_PASSWORD"]
    answer = api.post("/auth/token", json={"username": name, "password": password})
    assert answer.status_code == 201, answer.text
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


def test_nobody_reads_without_a_login_or_with_a_wrong_one(api: httpx.Client) -> None:
    assert api.get("/api/v2/dags").status_code == 401
    assert api.post("/auth/token", json={"username": "admin", "password": "wrong"}).status_code == 401


def test_each_login_is_let_in_as_far_as_its_role_goes(api: httpx.Client, production: Production) -> None:
    def statuses(name: str) -> dict[str, int]:
        headers = login(api, production, name)
        asked: dict[str, Any] = {
            "read": api.get("/api/v2/pools/refund_inference", headers=headers),
            "trigger": api.post("/api/v2/dags/none/dagRuns", headers=headers, json={"logical_date": None}),
            "connections": api.get("/api/v2/connections", headers=headers),
            "pool": api.delete("/api/v2/pools/none", headers=headers),
        }
        return {what: answer.status_code for what, answer in asked.items()}

    assert statuses("viewer") == {"read": 200, "trigger": 403, "connections": 403, "pool": 403}
    assert statuses("operator") == {"read": 200, "trigger": 404, "connections": 403, "pool": 403}  # 404: no such DAG
    assert statuses("clerk") == statuses("viewer")
    assert statuses("admin") == {"read": 200, "trigger": 404, "connections": 200, "pool": 404}


def test_on_the_desk_a_clerk_writes_and_a_viewer_reads(api: httpx.Client, production: Production) -> None:
    def statuses(name: str) -> dict[str, Any]:
        headers = login(api, production, name)
        asked = {
            "read": api.get("/refund/static/desk.css", headers=headers),
            "write": api.post("/refund/api/nothing", headers=headers),  # 404: let in, but there is no such address
            "pause": api.patch("/api/v2/dags/refund_nightly", headers=headers, json={"is_paused": True}),
        }
        plugins = api.get("/api/v2/plugins", headers=headers)
        entries = [view["name"] for each in plugins.json()["plugins"] for view in each["external_views"]]
        found = {what: answer.status_code for what, answer in asked.items()}
        return found | {"navigation": entries.count("Refund desk")}

    assert statuses("viewer") == {"read": 200, "write": 403, "pause": 403, "navigation": 2}
    assert statuses("clerk") == {"read": 200, "write": 404, "pause": 403, "navigation": 2}
    assert statuses("operator")["write"] == 404
    assert statuses("admin")["write"] == 404
    assert api.get("/refund/static/desk.css").status_code == 401


# --- a night -------------------------------------------------------------------------------------------------------


@pytest.fixture
def running(api: httpx.Client, initialised: Production) -> Iterator[None]:
    """Scheduler, DAG processor and a Celery worker as their containers run them; files carry the messages.

    No Valkey is in the package index, so Celery's broker is its file system transport: everything but the address and
    the transport of the broker is as in docker-compose.yaml.
    """
    queue = initialised.home / "queue"
    queue.mkdir()
    transport = "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__DATA_FOLDER"
    here = {
        "AIRFLOW__CELERY__BROKER_URL": "filesystem://",
        f"{transport}_IN": str(queue),
        f"{transport}_OUT": str(queue),
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_HOST": "127.0.0.1",  # in a container: all of its addresses
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT": str(SCHEDULER_HEALTH),
    }
    started = []
    try:
        for service in ("airflow-dag-processor", "airflow-scheduler", "airflow-worker"):
            (words,) = command_lines(service)
            if service == "airflow-worker":
                words.append("--skip-serve-logs")  # that server listens on every address
            with (initialised.home / f"{service}.log").open("wb") as output:
                started.append(
                    subprocess.Popen(
                        [initialised.bin / "airflow", *words], env=initialised.environ(service) | here,
                        cwd=initialised.home, stdout=output, stderr=output, start_new_session=True,
                    )
                )  # fmt: skip
        yield
    finally:
        for process in reversed(started):
            process.terminate()  # the main process alone, as DUMB_INIT_SETSID=0 has it for the worker
        for process in started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait(timeout=20)


def logs(production: Production) -> str:
    return "\n".join(
        f"--- {path.name}\n" + path.read_text(encoding="utf-8", errors="replace")[-3000:]
        for path in sorted(production.home.glob("*.log"))
    )


def test_a_night_runs_under_celery_with_stores_behind_tls(
    running: None,
    api: httpx.Client,
    initialised: Production,
    tls_s3: S3Access,
    tls_postgres: DatabaseAccess,
    fallback_model: Path,
) -> None:
    """As an operator would: unpause, which makes the run of last night, and wait for it."""
    import io
    from datetime import UTC, datetime, timedelta

    from PIL import Image

    from refund.night.services import open_services
    from refund.settings import Settings

    app = replace(tls_postgres, user="refund_app", password=initialised.env["POSTGRES_APP_PASSWORD"])
    day = (datetime.now(UTC) - timedelta(days=2)).date()  # in the window of the run whether it is past 02:00 or not
    with open_services(
        settings=Settings(), s3=replace(tls_s3, bucket=initialised.env["S3_BUCKET"]), database=app
    ) as stores:
        model = stores.registry.register(fallback_model, created_by="test").model
        stores.registry.promote("champion", model, by="test", reason="first")
        for number in range(3):
            body = io.BytesIO()
            Image.new("RGB", (320, 240), (60 * number, 120, 200)).save(body, "JPEG")
            stores.objects.put(f"incoming/{day}/R-{number}/a.jpg", body.getvalue(), content_type="image/jpeg")
        headers = login(api, initialised, "operator")
        deadline = time.monotonic() + PATIENCE_S
        states: list[str] = []
        while not states or states[0] in {"queued", "running"}:
            assert time.monotonic() < deadline, f"{states}\n{logs(initialised)}"
            time.sleep(1)
            api.patch(
                "/api/v2/dags/refund_nightly", headers=headers, json={"is_paused": False}
            )  # 404 until it is parsed
            found = api.get("/api/v2/dags/refund_nightly/dagRuns", headers=headers)
            states = [run["state"] for run in found.json()["dag_runs"]] if found.status_code == 200 else []
        assert states == ["success"], logs(initialised)
        _, rows = stores.repository.select("SELECT photos, classified + rejected FROM reporting.runs")
        assert rows == [(3, 3)]
    health = httpx.get(f"http://127.0.0.1:{SCHEDULER_HEALTH}/health", timeout=PATIENCE_S)  # as its health check
    assert health.status_code == 200
    assert services_test("airflow-scheduler")[-1].endswith("/health")


def services_test(name: str) -> list[str]:
    """The command of a health check."""
    return list(services()[name]["healthcheck"]["test"])
