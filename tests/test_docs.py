"""What the pages say is what the code does: errors, reason codes, settings, commands, links and SQL examples."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import refund
from refund.errors import (
    ConfigurationError,
    FatalRunError,
    ReasonCode,
    RefundError,
    RejectedPhotoError,
    RetriableRunError,
)
from refund.settings import Settings
from tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from tests.conftest import Roles

DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
SQL_BLOCK = re.compile(r"^```sql\n(.*?)^```", re.DOTALL | re.MULTILINE)
BRANCHES = (ConfigurationError, FatalRunError, RetriableRunError, RejectedPhotoError)
LOADED_BY_OTHERS = (
    "refund.airflow_plugin",
    "refund.desk",  # imports Airflow, and has no error class of the tree
    "refund.store.migrations.env",
    "refund.store.migrations.versions",
)


def table_rows(text: str) -> list[list[str]]:
    """The cells of every body row of every Markdown table in the text."""
    rows = [line for line in text.splitlines() if line.startswith("|") and not set(line) <= set("|-: ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row.strip("|"))] for row in rows]


def named(cell: str) -> str | None:
    """The name in a cell that holds nothing but `name`."""
    match = re.fullmatch(r"`([^`]+)`", cell)
    return match[1] if match else None


def section(text: str, heading: str) -> str:
    """From a heading, given without its marks, to the next one of the same or a higher level."""
    start = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    assert start is not None, f"there is no heading {heading!r}"
    rest = text[start.end() :]
    stop = re.search(rf"^#{{1,{len(start[1])}}} ", rest, re.MULTILINE)
    return rest[: stop.start()] if stop else rest


# --- errors --------------------------------------------------------------------------------------------------------


def error_classes() -> dict[str, type[RefundError]]:
    """Every subclass of `RefundError` that any module of the package defines."""
    for module in pkgutil.walk_packages(refund.__path__, "refund."):
        if not module.name.startswith(LOADED_BY_OTHERS):
            importlib.import_module(module.name)

    def below(cls: type[RefundError]) -> Iterator[type[RefundError]]:
        for child in cls.__subclasses__():
            yield child
            yield from below(child)

    return {cls.__name__: cls for cls in below(RefundError) if cls.__module__.startswith("refund.")}


def documented_errors(heading: str) -> list[str]:
    rows = table_rows(section((DOCS / "operations.md").read_text(encoding="utf-8"), heading))
    return [name for row in rows if (name := named(row[0])) is not None]


def test_every_error_class_has_one_runbook_entry_and_none_is_invented() -> None:
    assert sorted(documented_errors("2. Errors")) == sorted(error_classes())


@pytest.mark.parametrize(
    ("heading", "branch"),
    [
        ("The set-up is wrong: `ConfigurationError`", ConfigurationError),
        ("The run cannot be trusted: `FatalRunError`", FatalRunError),
        ("A fault of the moment: `RetriableRunError`", RetriableRunError),
        ("One photo: `RejectedPhotoError`", RejectedPhotoError),
    ],
)
def test_errors_stand_under_their_branch_so_that_what_is_said_of_retries_holds(
    heading: str, branch: type[RefundError]
) -> None:
    known = error_classes()
    found = documented_errors(heading)
    assert found
    assert [name for name in found if not issubclass(known[name], branch)] == []


def test_every_error_belongs_to_a_branch() -> None:
    assert [name for name, cls in error_classes().items() if not issubclass(cls, BRANCHES)] == []


@pytest.mark.parametrize(
    ("heading", "code"),
    [
        ("The set-up is wrong: `ConfigurationError`", 3),
        ("The run cannot be trusted: `FatalRunError`", 5),
        ("A fault of the moment: `RetriableRunError`", 4),
    ],
)
def test_the_runbook_names_the_exit_code_of_each_branch(heading: str, code: int) -> None:
    from refund.cli.exit_codes import exit_code

    known = error_classes()
    assert f"exit code {code}" in section((DOCS / "operations.md").read_text(encoding="utf-8"), heading)
    assert {exit_code(known[name].__new__(known[name])) for name in documented_errors(heading)} == {code}


# --- reason codes --------------------------------------------------------------------------------------------------


def test_reason_codes_are_all_there_with_the_right_answer() -> None:
    rows = table_rows(section((DOCS / "reason_codes.md").read_text(encoding="utf-8"), "The codes"))
    documented = [(named(row[0]), row[-1]) for row in rows if named(row[0]) is not None]
    assert documented == [(code.value, "no" if code.is_final else "yes") for code in ReasonCode]


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("file_too_large", f"{Settings().max_bytes // 2**20} MB"),
        ("too_small", str(Settings().min_side_px)),
        ("too_large", str(Settings().max_side_px)),
        ("decode_timeout", f"{Settings().decode_timeout_s:.0f} s"),
    ],
)
def test_reason_codes_name_the_default_limits(code: str, shown: str) -> None:
    rows = {named(row[0]): row for row in table_rows((DOCS / "reason_codes.md").read_text(encoding="utf-8"))}
    assert f"({shown})" in rows[code][1]


def test_quality_labels_are_all_there_with_their_thresholds() -> None:
    from refund.imaging import quality
    from refund.records import QualityLabel

    rows = table_rows(section((DOCS / "reason_codes.md").read_text(encoding="utf-8"), "Quality labels"))
    documented = {named(row[0]): row[1] for row in rows if named(row[0]) is not None}
    assert documented == {
        QualityLabel.DARK: f"`brightness_ratio` below {quality.DARK_BELOW_BRIGHTNESS_RATIO:g}",
        QualityLabel.BRIGHT: f"`brightness_ratio` above {quality.BRIGHT_ABOVE_BRIGHTNESS_RATIO:g}",
        QualityLabel.BLURRY: f"`sharpness` below {quality.BLURRY_BELOW_SHARPNESS:g}",
        QualityLabel.LOW_INFORMATION: f"`entropy_bits` below {quality.LOW_INFORMATION_BELOW_ENTROPY_BITS:g}",
        QualityLabel.ODD_ASPECT: f"longer side over shorter above {quality.ODD_ASPECT_ABOVE_RATIO:g}",
    }
    assert list(documented) == list(QualityLabel)


# --- settings ------------------------------------------------------------------------------------------------------


def test_every_setting_is_in_the_table_with_its_default() -> None:
    rows = table_rows(section((DOCS / "operations.md").read_text(encoding="utf-8"), "Settings"))
    documented = [(named(row[0]), named(row[1]) or row[1]) for row in rows if named(row[0]) is not None]
    assert documented == [
        (spec.name, "none" if spec.default is None else str(spec.default)) for spec in fields(Settings)
    ]


def test_the_ports_are_in_the_table_with_their_defaults() -> None:
    from refund.local.ports import Ports, setting_of

    rows = table_rows(section((DOCS / "operations.md").read_text(encoding="utf-8"), "6. The local stack"))
    documented = {named(row[2]): row[1] for row in rows if len(row) == 3 and named(row[2]) is not None}
    assert documented == {setting_of(spec.name): str(spec.default) for spec in fields(Ports)}


def test_every_alert_rule_is_in_the_table() -> None:
    """All rules but two are findings; those of fetch and of the reviews are raised where they are found."""
    from refund.lifecycle.quality import ALERT_RULE
    from tests.night.alert_examples import every_finding

    found = every_finding()
    rows = table_rows(section((DOCS / "alerts.md").read_text(encoding="utf-8"), "The rules"))
    documented = {named(row[0]): row[1] for row in rows if named(row[0]) is not None}
    assert set(documented) == {finding.rule for finding in found} | {"overlooked_photos", ALERT_RULE}
    for finding in found:
        assert documented[finding.rule].startswith(finding.severity)


# --- the command line ----------------------------------------------------------------------------------------------


def commands() -> dict[str, Any]:
    """Every leaf command by its full name, for example ``refund model list``."""
    import typer

    from refund.cli import load_app

    def leaves(command: Any, name: str) -> Iterator[tuple[str, Any]]:
        if not hasattr(command, "commands"):
            yield name, command
            return
        for child_name, child in command.commands.items():
            yield from leaves(child, f"{name} {child_name}")

    return dict(leaves(typer.main.get_command(load_app()), "refund"))


COMMANDS = commands()
GROUPS = {name.split()[1] for name in COMMANDS if len(name.split()) == 3}


def options(command: Any) -> set[str]:
    """The spellings of a command's options, both of a pair; help is common to all."""
    spelled = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return {name for name in spelled if name.startswith("-") and name not in {"-h", "--help"}}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented_with_exactly_its_options(name: str) -> None:
    text = section((DOCS / "cli.md").read_text(encoding="utf-8"), name)
    documented = {option for row in table_rows(text) for option in re.findall(r"`(--[a-z-]+)", row[0])}
    assert documented == options(COMMANDS[name])
    assert re.search(r"^\$ .*refund ", text, re.MULTILINE), "an example with its output is missing"


def test_no_command_is_documented_that_does_not_exist() -> None:
    headings = re.findall(r"^### (refund .+)$", (DOCS / "cli.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(headings) == sorted(COMMANDS)


def test_every_night_parameter_is_documented_with_its_default_and_range() -> None:
    from refund.params import NightParams

    rows = table_rows(section((DOCS / "cli.md").read_text(encoding="utf-8"), "refund night"))
    documented = {named(row[0]): row for row in rows if len(row) == 4 and named(row[0]) is not None}
    described = {entry["name"]: entry for entry in NightParams.describe() if entry["name"] != "run_date"}
    assert list(documented) == list(described)
    for name, entry in described.items():
        default = entry["default"]
        assert documented[name][1] == f"`{str(default).lower() if isinstance(default, bool) else default}`"
        if "min" in entry:
            assert documented[name][2] == f"{entry['min']:,.0f} to {entry['max']:,.0f}"


def test_exit_codes_are_documented_as_the_help_tells_them() -> None:
    from refund.cli.app import EPILOG

    rows = table_rows(section((DOCS / "cli.md").read_text(encoding="utf-8"), "Exit codes"))
    assert [row[0] for row in rows if row[0].isdecimal()] == re.findall(r"(?:: |; )(\d) ", EPILOG)


def test_the_fields_of_last_run_json_are_documented() -> None:
    """Their order is that of the file; tests/e2e reads a real one."""
    import ast
    import inspect

    from refund.cli import night

    tree = ast.parse(inspect.getsource(night._last_run))
    answer = next(node.value for node in ast.walk(tree) if isinstance(node, ast.Return))
    assert isinstance(answer, ast.Dict)
    written = [key.value for key in answer.keys if isinstance(key, ast.Constant)]
    rows = table_rows(section((DOCS / "cli.md").read_text(encoding="utf-8"), "last_run.json"))
    assert [named(row[0]) for row in rows if named(row[0]) is not None] == written


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_commands_that_a_page_tells_one_to_type_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    typed = re.findall(r"(?:^\$ |^|`)(?:[A-Z_]+=\S+ )*refund ([a-z]+)((?: (?!\")[^\s`]+)*)", text, re.MULTILINE)
    for first, rest in typed:
        words = [first, *rest.split()]
        name = f"refund {' '.join(words[:2])}" if first in GROUPS and len(words) > 1 else f"refund {first}"
        assert name in COMMANDS or first in GROUPS, f"{page.name} says {name}"
        for option in re.findall(r"--[a-z][a-z-]*", rest):
            assert option in options(COMMANDS[name]) | {"--help"}, f"{page.name}: {name} has no {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_make_targets_that_a_page_names_exist(page: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named_targets = re.findall(r"(?:^\$ |^|`)make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(named_targets) <= set(targets)


# --- links ---------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The anchors that a forge makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_and_images_lead_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


# --- SQL -----------------------------------------------------------------------------------------------------------


def statements() -> dict[str, str]:
    """Every SQL example that an analyst is given, by where it stands."""
    found = {
        f"analysts.md {number}": block
        for number, block in enumerate(SQL_BLOCK.findall((DOCS / "analysts.md").read_text(encoding="utf-8")), start=1)
    }
    return found | {
        file.name: file.read_text(encoding="utf-8") for file in sorted((REPOSITORY / "include" / "sql").glob("*.sql"))
    }


def test_there_are_examples() -> None:
    assert sum(name.startswith("analysts.md") for name in statements()) == 20
    assert sum(name.endswith(".sql") for name in statements()) >= 3


@pytest.mark.parametrize("name", statements())
def test_sql_examples_run_as_the_analyst_where_no_night_was_published(name: str, database: Roles) -> None:
    """Their answers on known nights are checked in tests/store/test_analysts_page.py."""
    from refund.store.database import Database
    from refund.store.repository import Repository

    columns, rows = Repository(Database(database.analyst)).select(statements()[name])
    assert len(columns) >= 2
    assert [row for row in rows if any(row)] == []  # at most a row of zeros


def test_every_view_is_in_the_analysts_list(database: Roles) -> None:
    from refund.store.database import Database
    from refund.store.repository import Repository

    listed = "SELECT 'reporting.' || viewname FROM pg_views WHERE schemaname = 'reporting'"
    _, views = Repository(Database(database.analyst)).select(listed)
    rows = table_rows(section((DOCS / "analysts.md").read_text(encoding="utf-8"), "The views"))
    assert {named(row[0]) for row in rows if named(row[0]) is not None} == {view for (view,) in views}


def test_the_query_that_one_swears_by_finds_what_contradicts(database: Roles) -> None:
    from refund.store.database import Database

    with Database(database.app).connect() as connection, connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT refund.ensure_partitions('2026-11-21', '2026-11-21');
            INSERT INTO refund.model (model, name, version, uri, sha256, card, created_by)
            VALUES ('m@1', 'm', '1', 's3://b/m', repeat('0', 64), '{}', 'test');
            INSERT INTO refund.run (run_id, run_date, state, model, taxonomy_version, code_version, params, started_at,
              published_at, photos, classified, rejected, unchanged)
            SELECT run_id, '2026-11-21', 'published', 'm@1', 't', '0', '{}', now(), now(), 1, 0, 1, 0
            FROM unnest(ARRAY['r1', 'r2', 'r3']) AS run_id;
            INSERT INTO refund.photo (photo_date, photo_id, bucket, key, etag, size_bytes, first_run_id)
            VALUES ('2026-11-21', gen_random_uuid(), 'b', 'twice.jpg', 'e', 1, 'r1');
            INSERT INTO refund.run_photo (photo_date, photo_id, run_id, outcome, reason)
            SELECT photo_date, photo_id, run_id, 'rejected', 'corrupt'
            FROM refund.photo, unnest(ARRAY['r1', 'r2']) AS run_id;
            """
        )
        cursor.execute(statements()["one_verdict.sql"])
        found = [(fault, what) for fault, _, what in cursor.fetchall()]
        connection.rollback()  # the other tests' database stays empty
    assert found == [("a night does not add up", "r3"), ("a photo has more than one verdict", "twice.jpg")]
