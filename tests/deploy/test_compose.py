"""docker-compose.yaml and Dockerfile: valid, whole, pinned, and no more open than they must be."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from deploy.variables import all_variables
from refund import airflow_glue
from refund.settings import DatabaseAccess, S3Access, Settings
from tests.conftest import REPOSITORY
from tests.deploy.compose import TEXT, command_lines, compose, environment, interpolate, ours, services
from tests.deploy.conftest import Written

DOCKERFILE = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
LOCK = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8")
STORES = {"postgres", "valkey", "s3"}
ONCE = {"airflow-init", "refund-init", "cli"}


def test_the_file_fits_the_compose_specification() -> None:
    command = [Path(sys.executable).parent / "check-jsonschema", "--builtin-schema", "vendor.compose-spec"]
    checked = subprocess.run(
        [*command, REPOSITORY / "docker-compose.yaml"], capture_output=True, text=True, timeout=60, check=False
    )
    assert checked.returncode == 0, checked.stdout


# --- cross-references ----------------------------------------------------------------------------------------------


def test_services_wait_for_services_that_are_there_by_a_sign_that_they_give() -> None:
    for name, service in services().items():
        for other, how in service.get("depends_on", {}).items():
            target = services()[other]
            if how["condition"] == "service_healthy":
                assert "healthcheck" in target, f"{name} waits for the health of {other}"
            else:
                assert how["condition"] == "service_completed_successfully"
                assert target["restart"] == "no", f"{other} never completes"
            if "profiles" in target:
                assert how["required"] is False, f"{name} would not start without the bundled {other}"


def test_nothing_waits_in_a_circle() -> None:
    done: set[str] = set()
    while len(done) < len(services()):
        ready = {name for name, service in services().items() if set(service.get("depends_on", {})) <= done} - done
        assert ready, f"circle among {sorted(set(services()) - done)}"
        done |= ready


@pytest.mark.parametrize("kind", ["volumes", "networks", "secrets"])
def test_what_services_use_is_defined_and_the_other_way_round(kind: str) -> None:
    used = set()
    for service in services().values():
        for entry in service.get(kind, []):
            source = entry.split(":")[0]
            if kind != "volumes" or not source.startswith((".", "$", "/")):
                used.add(source)
    assert used == set(compose()[kind])


def test_mounted_files_are_there(written: Written) -> None:
    for service in services().values():
        for volume in service.get("volumes", []):
            source = interpolate(volume, written.env).split(":")[0]
            if source.startswith("./.tls/"):
                assert written.tls(source.removeprefix("./.tls/")).is_file()
            elif source.startswith("."):
                assert (REPOSITORY / source).is_file(), source
    for secret in compose()["secrets"].values():
        assert written.tls(interpolate(secret["file"], written.env).removeprefix("./.tls/")).is_file()


def test_every_variable_is_written_by_make_env_and_none_for_nothing() -> None:
    used = set(re.findall(r"(?<!\$)\$\{([A-Z0-9_]+)", TEXT))
    read_by_compose_itself = {"COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES"}
    assert used | read_by_compose_itself == {variable.name for variable in all_variables(version="0")}


def test_a_variable_that_is_missing_stops_compose() -> None:
    """Each is guarded where it stands first; compose then refuses the whole file."""
    guarded = set(re.findall(r"\$\{([A-Z0-9_]+):\?run make env\}", TEXT))
    assert guarded == set(re.findall(r"(?<!\$)\$\{([A-Z0-9_]+)", TEXT))


def test_profiles_are_those_that_make_env_switches_on(written: Written) -> None:
    offered = {name: service["profiles"] for name, service in services().items() if "profiles" in service}
    assert offered == {"postgres": ["postgres"], "s3": ["s3"], "cli": ["cli"]}
    assert written.env["COMPOSE_PROFILES"] == "postgres,s3"


def test_passwords_that_roles_sql_reads_are_handed_to_postgres() -> None:
    script = (REPOSITORY / "deploy" / "postgres" / "roles.sql").read_text(encoding="utf-8")
    read = set(re.findall(r"^\\getenv \w+ (\w+)$", script, re.MULTILINE))
    assert read == set(services()["postgres"]["environment"]) - {"POSTGRES_PASSWORD"}


def test_secrets_and_files_that_start_sh_reads_are_mounted() -> None:
    script = (REPOSITORY / "deploy" / "postgres" / "start.sh").read_text(encoding="utf-8")
    assert set(re.findall(r"/run/secrets/(\w+)", script)) == set(services()["postgres"]["secrets"])
    mounted = {volume.split(":")[1] for volume in services()["postgres"]["volumes"]}
    assert set(re.findall(r"/etc/refund/[\w.]+", script)) <= mounted
    assert services()["postgres"]["entrypoint"] == ["bash", "/etc/refund/start.sh"]


# --- pinned, restricted ---------------------------------------------------------------------------------------------


def test_images_are_pinned_and_airflow_is_the_version_of_the_lock() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    version = re.search(r"^apache-airflow==(\S+)", LOCK, re.MULTILINE)
    assert version is not None
    assert set(bases) == {f"apache/airflow:slim-{version[1]}-python3.11"}
    for service in services().values():
        if "REFUND_IMAGE" not in service["image"]:
            assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+(\.\d+)?[\w.-]*", service["image"]), service["image"]


def test_only_airflows_pages_are_published_and_on_loopback_unless_told(written: Written) -> None:
    published = {name: service["ports"] for name, service in services().items() if "ports" in service}
    assert list(published) == ["airflow-api-server"]
    assert [interpolate(port, written.env) for port in published["airflow-api-server"]] == ["127.0.0.1:8080:8080"]


def test_only_what_is_published_is_on_the_outer_network(written: Written) -> None:
    outer = [name for name, service in services().items() if service["networks"] != ["backend"]]
    assert outer == ["airflow-api-server"]
    assert interpolate(compose()["networks"]["backend"]["internal"], written.env) == "true"


def test_workers_can_be_scaled() -> None:
    for name, service in services().items():
        assert "container_name" not in service, name
        assert "hostname" not in service, name
    assert "ports" not in services()["airflow-worker"]


def test_every_service_has_limits_logs_that_end_and_a_policy() -> None:
    for name, service in services().items():
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}, name
        assert service["logging"]["options"] == {"max-size": "20m", "max-file": "5"}, name
        assert service["restart"] == ("no" if name in ONCE else "unless-stopped"), name
        assert ("healthcheck" in service) == (name not in ONCE), name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        if name not in STORES:
            assert service["cap_drop"] == ["ALL"], name


def test_no_secret_is_written_down() -> None:
    for name, service in services().items():
        for variable, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|_KEY", variable) and not str(value).startswith("/run/secrets/"):
                assert re.fullmatch(r"\$\{[A-Z0-9_]+(:\?run make env)?\}", str(value)), f"{name}: {variable}"
    assert not re.search(r"ENV .*(PASSWORD|SECRET)", DOCKERFILE)


@pytest.mark.parametrize(
    ("variable", "holders"),
    [
        ("POSTGRES_SUPERUSER_PASSWORD", {"postgres"}),
        ("POSTGRES_OWNER_PASSWORD", {"postgres", "refund-init"}),
        ("POSTGRES_ANALYST_PASSWORD", {"postgres", "cli"}),
        ("AIRFLOW_ADMIN_PASSWORD", {"airflow-init"}),
        ("AIRFLOW_OPERATOR_PASSWORD", {"airflow-init"}),
        ("AIRFLOW_CLERK_PASSWORD", {"airflow-init"}),
        ("AIRFLOW_VIEWER_PASSWORD", {"airflow-init"}),
    ],
)
def test_a_secret_is_given_only_to_who_needs_it(variable: str, holders: set[str]) -> None:
    given = {name for name, service in services().items() if f"${{{variable}" in json.dumps(service)}
    assert given == holders


# --- what the containers are told ----------------------------------------------------------------------------------


def connection(text: str) -> Any:
    from airflow.sdk import Connection

    return Connection.from_json(text, conn_id="any")


def test_connections_speak_tls_and_are_read_as_meant(written: Written) -> None:
    env = written.env
    given = environment("airflow-worker", env)
    assert airflow_glue.s3_access(connection(given["AIRFLOW_CONN_REFUND_S3"])) == S3Access(
        bucket="refund-photos",
        endpoint_url="https://s3:7070",
        access_key=env["S3_ACCESS_KEY"],
        secret_key=env["S3_SECRET_KEY"],
        ca_file="/run/tls/ca.crt",
    )
    for service, name, user in (
        ("airflow-worker", "AIRFLOW_CONN_REFUND_DB", "app"),
        ("refund-init", "AIRFLOW_CONN_REFUND_DB_OWNER", "owner"),
        ("cli", "AIRFLOW_CONN_REFUND_DB_ANALYST", "analyst"),
    ):
        found = airflow_glue.database_access(connection(environment(service, env)[name]))
        assert found == DatabaseAccess(
            host="postgres",
            user=f"refund_{user}",
            password=env[f"POSTGRES_{user.upper()}_PASSWORD"],
            sslmode="verify-full",
            ca_file="/run/tls/ca.crt",
        )


def test_settings_are_known_and_staging_is_shared_by_all_workers(written: Written) -> None:
    given = environment("airflow-worker", written.env)
    known = {f"REFUND_{name.upper()}" for name in Settings.__dataclass_fields__}
    ours_set = {name for name in given if name.startswith("REFUND_")}
    assert ours_set <= known
    assert Settings.load({name: given[name] for name in ours_set}).staging_root == "s3://refund-photos/staging"


def test_airflows_own_keys_are_known_to_the_installed_airflow(written: Written) -> None:
    """Keys of the Celery and FAB providers: test_production_airflow.py, where those are installed."""
    from airflow.configuration import conf

    pattern = re.compile(r"AIRFLOW__(?!CELERY|FAB)([A-Z_]+?)__([A-Z0-9_]+)")
    given = {name for service in ours() for name in environment(service, written.env)}
    found = [match for name in sorted(given) if (match := pattern.fullmatch(name))]
    assert len(found) >= 15
    for match in found:
        assert match[2].lower() in conf.configuration_description[match[1].lower()]["options"], match[0]


def test_what_may_be_left_out_reaches_every_container_of_ours() -> None:
    for name, service in ours().items():
        assert service["env_file"] == [{"path": ".env.options", "required": False}], name
    assert "/.env.options" in (REPOSITORY / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_the_options_that_the_page_shows_are_understood_and_not_overruled(written: Written) -> None:
    """Compose lets `environment` win over `env_file`."""
    from airflow.configuration import conf
    from airflow.providers.openlineage.get_provider_info import get_provider_info

    page = (REPOSITORY / "docs" / "deployment.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```ini\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    shown = dict(re.findall(r"(?m)^([A-Z0-9_]+)='?(.*?)'?$", block))
    assert not shown.keys() & environment("airflow-worker", written.env).keys()

    settings = Settings.load({name: value for name, value in shown.items() if name.startswith("REFUND_")})
    assert {f"REFUND_{name.upper()}" for name in Settings.__dataclass_fields__} >= {
        name for name in shown if name.startswith("REFUND_")
    }
    for channel in settings.channels:
        assert connection(shown[f"AIRFLOW_CONN_REFUND_{channel.upper()}"]).conn_type.startswith(channel)
    lineage = get_provider_info()["config"]["openlineage"]["options"]
    for section, option in re.findall(r"(?m)^AIRFLOW__([A-Z]+)__([A-Z_]+)=", block):
        known = lineage if section == "OPENLINEAGE" else conf.configuration_description[section.lower()]["options"]
        assert option.lower() in known, option
    for name in ("AIRFLOW__OPENLINEAGE__TRANSPORT", "AIRFLOW__OPENLINEAGE__EMISSION_POLICY"):
        assert json.loads(shown[name])


def test_commands_of_refund_exist() -> None:
    import typer

    from refund.cli import load_app

    known = typer.main.get_command(load_app()).commands  # type: ignore[attr-defined]
    typed = [line[1] for service in ours() for line in command_lines(service) if line[0] == "refund"]
    assert typed == ["migrate"]
    assert set(typed) <= set(known)
    assert services()["cli"]["entrypoint"] == ["refund"]


def test_scripts_are_well_formed_and_there(tmp_path: Path) -> None:
    scripts = [(REPOSITORY / "deploy" / "postgres" / "start.sh").read_text(encoding="utf-8")]
    for service in services().values():
        words = service.get("command", [])
        if isinstance(words, list) and len(words) == 3 and words[1] == "-ec":
            scripts.append(words[2].replace("$$", "$"))
        for python in re.findall(r"python /opt/refund/([\w/.]+)", str(words)):
            assert (REPOSITORY / python).is_file()
    assert len(scripts) == 4
    for script in scripts:
        checked = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, timeout=20, check=False)
        assert checked.returncode == 0, checked.stderr


# --- the image -----------------------------------------------------------------------------------------------------


def is_ignored(path: str) -> bool:
    """As docker reads .dockerignore: the last line that matches decides."""
    ignored = False
    for line in (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        if path == pattern or path.startswith(f"{pattern}/") or fnmatch(path, pattern.removeprefix("**/")):
            ignored = not line.startswith("!")
    return ignored


def copied() -> set[str]:
    lines = re.findall(r"^COPY (?!--from)(?:--chown=\S+ )?(.+)$", DOCKERFILE, re.MULTILINE)
    return {source for line in lines for source in line.split()[:-1]}


def test_what_the_image_copies_is_there_and_nothing_private_comes_along() -> None:
    for source in copied():
        assert (REPOSITORY / source).exists(), source
        assert not is_ignored(source), source
    for private in (".env", ".tls", ".git", ".refund", ".venv", "tests", "docs"):
        assert is_ignored(private), private


def test_the_image_gets_all_that_the_wheel_is_built_from() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    needed |= {path.split("/")[0] for path in [*wheel["packages"], *wheel["force-include"]]}
    assert needed <= copied()


def test_the_image_installs_by_hash_and_runs_as_airflow() -> None:
    installs = re.findall(r"pip install (.+)", DOCKERFILE)
    assert installs[:2] == ["--require-hashes -r requirements.txt", "--require-hashes -r requirements-production.txt"]
    assert installs[2].startswith("--no-deps dist/")
    assert "pip check" in DOCKERFILE
    assert re.findall(r"^USER (\w+)", DOCKERFILE, re.MULTILINE)[-1] == "airflow"


def test_the_production_lock_adds_to_the_lock_and_changes_nothing_in_it() -> None:
    def pins(text: str) -> dict[str, str]:
        return dict(re.findall(r"^([a-z0-9._-]+)(?:\[[^]]*\])?==(\S+)", text, re.MULTILINE))

    base = pins(LOCK)
    for name in ("requirements-production.txt", "requirements-dev.txt"):
        added = pins((REPOSITORY / name).read_text(encoding="utf-8"))
        assert {key: base[key] for key in added.keys() & base.keys()} == {
            key: added[key] for key in added.keys() & base.keys()
        }
    assert not {"flask", "celery", "apache-airflow-providers-fab"} & base.keys()  # the local stack stays without
