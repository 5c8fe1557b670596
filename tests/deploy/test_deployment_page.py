"""docs/deployment.md says what the files say: variables, logins, volumes, commands, and what was run."""

from __future__ import annotations

import re
import tomllib

import pytest

from deploy.access import LOGINS
from deploy.variables import all_variables
from tests.conftest import REPOSITORY
from tests.deploy.compose import compose, services
from tests.test_docs import named, section, table_rows

PAGE = (REPOSITORY / "docs" / "deployment.md").read_text(encoding="utf-8")
VERSION = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def test_every_variable_is_in_the_table_with_default_and_meaning() -> None:
    rows = table_rows(section(PAGE, "Every variable of .env"))
    documented = [row for row in rows if named(row[0])]
    assert documented == [
        [f"`{each.name}`", "drawn" if each.is_secret else f"`{each.default}`", each.help]
        for each in all_variables(version=VERSION)
    ]


def test_the_logins_are_those_that_init_makes() -> None:
    rows = table_rows(section(PAGE, "Roles in Airflow"))
    assert {named(row[0]): row[1] for row in rows if named(row[0])} == LOGINS


def test_every_volume_is_in_the_table() -> None:
    rows = table_rows(section(PAGE, "Workers"))
    assert {named(row[0]) for row in rows if named(row[0])} == set(compose()["volumes"])


def test_services_and_images_that_the_page_names_exist() -> None:
    words = r"docker compose (?:run|exec|up)((?: (?:-\S+|--\S+|\"\S+\"|postgres(?= postgres)))*) ([a-z0-9-]+)"
    typed = "".join(re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
    found = {name for _, name in re.findall(words, typed) if not name.startswith("-")}
    assert {"cli", "airflow-scheduler"} <= found
    assert found <= set(services()), found
    assert set(re.findall(r"postgres:18[\w.-]*", PAGE)) == {services()["postgres"]["image"]}
    assert f"docker build -t refund:{VERSION} ." in PAGE


def test_commands_of_the_service_cli_exist() -> None:
    from tests.test_docs import COMMANDS, GROUPS, options

    lines = re.findall(r"docker compose run --rm(?: -v \S+)? cli ([^`\n]+)", PAGE)
    assert len(lines) >= 4
    for line in lines:
        words = line.split()
        name = f"refund {' '.join(words[:2])}" if words[0] in GROUPS else f"refund {words[0]}"
        assert name in COMMANDS, line
        assert set(re.findall(r"--[a-z-]+", line.split('"')[0])) <= options(COMMANDS[name]), line


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:tests|deploy)/[\w/.]+\.\w+)`", PAGE))))
def test_files_that_the_page_names_exist(path: str) -> None:
    assert (REPOSITORY / path).is_file()


def test_init_services_are_waited_for_by_one_that_runs_on() -> None:
    """Else `docker compose up --wait` would call a finished init service a failure."""
    for once in ("airflow-init", "refund-init"):
        adopters = [
            name
            for name, service in services().items()
            if service.get("depends_on", {}).get(once, {}).get("condition") == "service_completed_successfully"
            and service["restart"] != "no"
        ]
        assert adopters, once
