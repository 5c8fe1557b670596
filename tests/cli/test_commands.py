"""The commands beside the night, as people run them: against a live stack, one that is down, and none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

from refund.local.credentials import load_or_draw
from refund.local.paths import StackPaths
from refund.local.ports import Ports
from refund.local.samples import write_samples
from refund.local.state import StackState
from tests.conftest import REPOSITORY, free_port
from tests.e2e.driver import Driver, make_champion, run_refund
from tests.local.live import LiveStack

live = pytest.mark.live

PHOTO_DATE = "2026-01-05"  # no night of these tests looks at it


@pytest.fixture(scope="session")
def driver(live_stack: LiveStack, request: pytest.FixtureRequest) -> Iterator[Driver]:
    """The session's stack with the champion that the live nights use too."""
    name = "standin_model" if (REPOSITORY.parent / "shared" / "images").is_dir() else "fallback_model"
    made = make_champion(live_stack.home, request.getfixturevalue(name))
    yield made
    made.close()


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    write_samples(folder)
    return folder


def listed(driver: Driver, prefix: str) -> dict[str, int]:
    with driver.services() as services:
        return {item.key.removeprefix(prefix): item.size_bytes for item in services.objects.list(prefix)}


class TestUpload:
    pytestmark = live

    def test_it_keeps_relative_folders_skips_what_is_there_and_takes_changes(
        self, driver: Driver, tmp_path: Path
    ) -> None:
        for name in ("R-1/front.jpg", "R-1/inner/label.png", "loose.jpg"):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode())
        first = driver.refund("upload", tmp_path, "--date", PHOTO_DATE, "--json").json
        assert first == {"date": PHOTO_DATE, "uploaded": 3, "skipped": 0, "refused": []}
        prefix = f"incoming/{PHOTO_DATE}/"
        assert set(listed(driver, prefix)) == {"R-1/front.jpg", "R-1/inner/label.png", "loose.jpg"}
        (tmp_path / "loose.jpg").write_bytes(b"another")
        second = driver.refund("upload", tmp_path, "--date", PHOTO_DATE)
        assert second.out.splitlines()[-1] == f"1 uploaded, 2 already there, 0 refused  →  {prefix}"
        assert listed(driver, prefix)["loose.jpg"] == len(b"another")

    def test_a_refund_id_goes_before_the_folders(self, driver: Driver, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").write_bytes(b"a")
        driver.refund("upload", tmp_path, "--date", PHOTO_DATE, "--refund-id", "R-2", "--prefix", "elsewhere/")
        assert listed(driver, "elsewhere/") == {f"{PHOTO_DATE}/R-2/a.jpg": 1}

    def test_keys_that_the_store_refuses_are_named_and_cost_no_other_photo(
        self, driver: Driver, tmp_path: Path
    ) -> None:
        for name in ("100%25.jpg", "a.jpg", "l" * 251 + ".jpg", "z.jpg"):
            (tmp_path / name).write_bytes(b"photo")
        answer = driver.refund("upload", tmp_path, "--date", PHOTO_DATE, "--refund-id", "R-3", "--json", code=1)
        assert (answer.json["uploaded"], answer.json["skipped"]) == (2, 0)
        refused = {Path(item["path"]).name: item for item in answer.json["refused"]}
        assert set(refused) == {"100%25.jpg", "l" * 251 + ".jpg"}
        assert refused["100%25.jpg"]["key"] == f"incoming/{PHOTO_DATE}/R-3/100%25.jpg"
        assert all(item["key"] in item["error"] for item in refused.values())
        text = driver.refund("upload", tmp_path, "--date", PHOTO_DATE, "--refund-id", "R-3", code=1).out
        assert "0 uploaded, 2 already there, 2 refused" in text
        assert f"refused {tmp_path / '100%25.jpg'}" in text

    def test_a_malformed_date_is_refused(self, driver: Driver, tmp_path: Path) -> None:
        answer = driver.refund("upload", tmp_path, "--date", "2026-02-30", code=3)
        assert "run date must read YYYY-MM-DD" in answer.err


class TestClassify:
    pytestmark = live

    def test_every_path_has_one_entry_in_order(self, driver: Driver, samples: Path, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("The heel came off.")
        (tmp_path / "empty.jpg").touch()
        folder = tmp_path / "folder"
        folder.mkdir()
        shutil.copyfile(samples / "R-1005/cat.jpg", folder / "b.jpg")
        shutil.copyfile(samples / "R-1010/truncated.jpg", folder / "a.jpg")
        paths = [
            samples / "R-1001/front.jpg",
            tmp_path / "notes.txt",
            tmp_path / "missing.jpg",
            folder,
            tmp_path / "empty.jpg",
        ]
        entries = driver.refund("classify", *paths, "--top-k", "3", "--json").json
        assert [entry["path"] for entry in entries] == [
            *map(str, paths[:3]), str(folder / "a.jpg"), str(folder / "b.jpg"), str(paths[4]),
        ]  # fmt: skip
        reasons = [entry["reason"] and entry["reason"].partition(":")[0] for entry in entries]
        assert reasons == [None, "not_an_image", "vanished", "truncated", None, "empty_file"]
        for entry in entries:
            assert list(entry)[:4] == ["path", "status", "predictions", "reason"]
            assert entry["status"] == ("classified" if entry["reason"] is None else "rejected")
            assert len(entry["predictions"]) == (3 if entry["reason"] is None else 0)
            for prediction in entry["predictions"]:
                assert list(prediction) == ["class_id", "class_name", "confidence", "category"]
            scores = [prediction["confidence"] for prediction in entry["predictions"]]
            assert scores == sorted(scores, reverse=True)
        assert entries[0]["model"] == driver.model
        assert entries[0]["decision"] in {"auto", "review"}

    def test_the_text_names_category_and_classes(self, driver: Driver, samples: Path) -> None:
        paths = samples / "R-1001/front.jpg", samples / "R-1011/notes.jpg"
        entry, _ = driver.refund("classify", *paths, "--json").json
        text = driver.refund("classify", *paths).out
        assert entry["predictions"][0]["class_name"] in text
        assert f"{entry['category']} (" in text
        assert "rejected: not_an_image" in text

    def test_an_unknown_model_is_refused(self, driver: Driver, samples: Path) -> None:
        answer = driver.refund("classify", samples / "R-1001/front.jpg", "--model", "nosuch@1", code=3)
        assert "NoModelError: no model is registered as 'nosuch@1'" in answer.err

    def test_without_the_stack_the_last_copy_of_the_model_serves(
        self, driver: Driver, samples: Path, tmp_path: Path
    ) -> None:
        expected = driver.refund("classify", samples / "R-1001/front.jpg", "--json").json
        home = stopped_home(tmp_path)
        shutil.copytree(driver.home / "cache", StackPaths(home=home).cache, dirs_exist_ok=True)
        answer = run_refund(home, "classify", samples / "R-1001/front.jpg", "--json")
        assert answer.json == expected
        said = " ".join(answer.err.split())
        assert "The registry does not answer" in said
        assert f"using the copy in {home / 'cache' / driver.model}" in said


class TestModel:
    pytestmark = live

    def test_list_names_every_model_with_its_alias(self, driver: Driver) -> None:
        rows = driver.refund("model", "list", "--json").json
        assert {row["model"]: row["aliases"] for row in rows}[driver.model] == ["champion"]
        text = driver.refund("model", "list").out
        assert driver.model in text
        assert "champion" in text

    def test_show_prints_the_card(self, driver: Driver) -> None:
        card = driver.refund("model", "show", "--json").json
        assert f"{card['name']}@{card['version']}" == driver.model
        assert card == driver.refund("model", "show", driver.model, "--json").json
        assert json.loads(driver.refund("model", "show").out) == card

    def test_show_of_an_unknown_model_is_refused(self, driver: Driver) -> None:
        answer = driver.refund("model", "show", "nosuch@1", code=3)
        said = " ".join(answer.err.split())
        assert said.startswith("NoModelError: no model is registered as 'nosuch@1'; build one with: refund model build")


class TestSql:
    pytestmark = live

    def test_an_analyst_reads_the_views(self, driver: Driver) -> None:
        assert driver.refund("sql", "SELECT 1 AS one, NULL AS none", "--json").json == [{"one": 1, "none": None}]
        assert driver.refund("sql", "SELECT count(*) AS photos FROM reporting.photos").out.split()[0] == "photos"

    def test_more_rows_than_asked_for_are_announced(self, driver: Driver) -> None:
        out = driver.refund("sql", "SELECT generate_series(1, 5) AS n", "--limit", "2").out
        assert out.split()[:3] == ["n", "1", "2"]
        assert "more than 2 rows; raise --limit" in out

    @pytest.mark.parametrize(
        ("statement", "message"),
        [
            ("SELECT * FROM refund.photo", "permission denied for schema refund"),
            ("INSERT INTO reporting.photos (key) VALUES ('x')", "cannot insert into view"),
            ("DELETE FROM reporting.runs", "permission denied for view runs"),
            ("CREATE TABLE reporting.mine (n int)", "cannot execute CREATE TABLE in a read-only transaction"),
            ("SELECT no_such_column FROM reporting.photos", 'column "no_such_column" does not exist'),
            ("SELECT", None),
            ("not sql", "syntax error"),
        ],
    )
    def test_everything_else_is_refused_in_words(self, driver: Driver, statement: str, message: str | None) -> None:
        answer = driver.refund("sql", statement, code=0 if message is None else 3)
        assert message is None or message in " ".join(answer.err.split())
        assert "Traceback" not in answer.err


class TestStack:
    pytestmark = live

    def test_status_tells_a_machine_what_runs(self, driver: Driver) -> None:
        status = driver.refund("status", "--json").json
        assert status["state"] == "running"
        assert {service["state"] for service in status["services"]} == {"running"}
        assert status["airflow_url"] == driver.access.airflow_url
        assert driver.access.airflow_password not in json.dumps(status)

    def test_status_tells_a_person_how_to_log_in(self, driver: Driver) -> None:
        out = driver.refund("status").out
        assert f"{driver.access.airflow_url}  login admin  password {driver.access.airflow_password}" in out
        assert f"postgresql://refund_analyst:{driver.access.analyst.password}@127.0.0.1:" in out

    def test_migrating_again_changes_nothing(self, driver: Driver) -> None:
        assert [driver.refund("migrate").out.strip() for _ in range(2)] == ["The schema is up to date"] * 2

    def test_there_is_no_report_of_a_night_that_never_was(self, driver: Driver) -> None:
        answer = driver.refund("report", "--date", "2025-12-31", code=1)
        assert answer.out.startswith("No report for 2025-12-31: no night was published for that date")

    def test_a_malformed_time_of_day_is_refused(self, driver: Driver) -> None:
        answer = driver.refund("check", "--by", "25:00", code=3)
        assert "--by must read HH:MM, for example 06:00; got '25:00'" in " ".join(answer.err.split())


# --- no stack, or one that is down ---------------------------------------------------------------------------------


def stopped_home(folder: Path) -> Path:
    """The home of a stack that was started once and does not run."""
    paths = StackPaths(home=folder / ".refund")
    paths.create()
    load_or_draw(paths.secrets_file, made_before=False)
    ports = Ports(postgres=free_port(), s3=free_port(), airflow=free_port())
    StackState(ports=ports, dags_folder=str(folder)).write(paths.state_file)
    return paths.home


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report"], "Postgres"),
        (["sql", "SELECT 1"], "Postgres"),
        (["check", "--by", "06:00"], "Postgres"),
        (["night", "--date", "2026-11-21"], "cannot be reached"),
        (["model", "list"], "Postgres"),
        (["classify", "photo.jpg"], "Postgres"),
    ],
)
def test_a_stack_that_is_down_is_a_fault_of_the_moment(arguments: list[str], message: str, tmp_path: Path) -> None:
    answer = run_refund(stopped_home(tmp_path), *arguments, code=4)
    assert message in answer.err
    assert "Traceback" not in answer.err


def test_status_and_down_of_a_stack_that_is_down(tmp_path: Path) -> None:
    home = stopped_home(tmp_path)
    assert run_refund(home, "status", "--json", code=1).json["state"] == "stopped"
    assert run_refund(home, "down").out.strip() == "Nothing was running"


@pytest.mark.parametrize("arguments", [["report"], ["sql", "SELECT 1"], ["model", "list"], ["classify", "photo.jpg"]])
def test_without_any_stack_the_way_to_one_is_told(arguments: list[str], tmp_path: Path) -> None:
    answer = run_refund(tmp_path / "none", *arguments, code=3)
    said = " ".join(answer.err.split())
    assert said.startswith("StackError: there is no local stack here and no AIRFLOW_CONN_REFUND_DB in the environment;")
    assert "refund up" in said
    assert not (tmp_path / "none").exists()


# --- help ----------------------------------------------------------------------------------------------------------


def commands() -> dict[str, click.Command]:
    """Every command by its words, for example ``model list``."""
    from refund.cli import load_app

    found: dict[str, click.Command] = {}
    waiting = {"": typer.main.get_command(load_app())}
    while waiting:
        words, command = waiting.popitem()
        inner = getattr(command, "commands", None)
        if inner is None:
            found[words] = command
        else:
            waiting |= {f"{words} {name}".strip(): child for name, child in inner.items()}
    return found


def test_every_command_of_the_plan_is_there() -> None:
    wanted = ["up", "down", "status", "run", "upload", "night", "classify", "report", "sql", "migrate", "check"]
    assert {*wanted, "model list", "model show", "model build"} <= set(commands())


def test_every_command_has_help_with_an_example_and_every_option_a_text() -> None:
    for words, command in commands().items():
        assert f"refund {words}" in (command.help or "").partition("Example:")[2], words
        for parameter in command.params:
            assert getattr(parameter, "help", None), (words, parameter.name)


def test_the_help_tells_the_exit_codes(tmp_path: Path) -> None:
    out = " ".join(run_refund(tmp_path, "--help").out.split())
    for code, meaning in {0: "done", 1: "the answer is no", 2: "wrong usage", 3: "the set-up is wrong"}.items():
        assert f"{code} {meaning}" in out
    assert run_refund(tmp_path, "nosuch", code=2).out == ""
