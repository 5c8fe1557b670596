"""The commands that change the registry, and those that look at it, on real stores."""

from __future__ import annotations

import getpass
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from refund.cli import access, load_app
from refund.cli.access import Access
from refund.errors import PromotionRefusedError, RefundError, RollbackError, SettingsError
from refund.night.services import Services
from tests.conftest import Roles
from tests.lifecycle.conftest import bucket as bucket  # fixtures
from tests.lifecycle.conftest import services as services
from tests.lifecycle.test_promote import evaluate
from tests.night.factories import write_model


@pytest.fixture(autouse=True)
def _at_these_stores(services: Services, database: Roles, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The commands find this test's stores; no model is registered that another test left, none is champion."""
    found = Access(s3=services.objects.access, database=database.app, settings=services.settings, local=None)
    monkeypatch.setattr(access, "find_access", lambda: found)
    yield
    from refund.store.database import Database

    with Database(database.admin).connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")  # past the trigger that lets nobody do this
        cursor.execute("TRUNCATE refund.model CASCADE")


def refund(*arguments: str) -> Result:
    return CliRunner().invoke(load_app(), ["model", *arguments])


def said(*arguments: str) -> str:
    result = refund(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def answer(*arguments: str) -> Any:
    return json.loads(said(*arguments, "--json"))


def failure(*arguments: str) -> RefundError:
    result = refund(*arguments)
    assert isinstance(result.exception, RefundError), result.output
    assert result.stdout == ""
    return result.exception


@pytest.fixture
def two(services: Services, tmp_path: Path) -> tuple[str, str]:
    """A champion and a better candidate."""
    for name in ("old", "new"):
        write_model(tmp_path / name, name=name, seed=len(name) + (name == "new"))
        services.registry.register(tmp_path / name, created_by="ada")
    services.registry.promote("champion", "old@1", by="ada", reason="first")
    evaluate(services, "old@1", wrong=range(40))
    evaluate(services, "new@1", wrong=range(10))
    return "old@1", "new@1"


def test_import_registers_a_candidate(tmp_path: Path) -> None:
    write_model(tmp_path / "unit", name="outside")
    assert said("import", str(tmp_path / "unit")) == (
        "Registered outside@1 as a candidate: input 1 × 224 × 224 × 3 float32, output 1 × 1000, float32\n"
    )
    (row,) = answer("list")
    assert (row["model"], row["state"], row["created_by"]) == ("outside@1", "candidate", getpass.getuser())
    said("promote", "outside@1", "--reason", "first")
    assert said("import", str(tmp_path / "unit")).startswith("outside@1 is registered already and is champion: input ")
    (tmp_path / "unit" / "model.tflite").rename(tmp_path / "bare.tflite")
    told = answer(
        "import", str(tmp_path / "bare.tflite"), "--name", "bare", "--version", "2", "--output", "logits",
        "--input-scale", str(1 / 255), "--input-offset", "0",
    )  # fmt: skip
    assert (told["model"], told["card"]["output"]) == ("bare@2", "logits")


def test_a_bare_file_that_is_half_described_is_wrong_usage(tmp_path: Path) -> None:
    result = refund("import", str(tmp_path / "x.tflite"), "--name", "bare", "--output", "logits")
    assert result.exit_code == 2
    assert "a .tflite file has no card" in result.stderr
    assert "--version" in result.stderr


def test_list_shows_aliases_agreement_and_the_last_accuracy(two: tuple[str, str]) -> None:
    lines = [re.split(r"\s{2,}", line.rstrip()) for line in said("list").splitlines()]
    assert lines[0] == ["model", "alias", "precision", "agreement", "accuracy", "registered", "by", "state"]
    assert [line[:3] for line in lines[1:]] == [
        ["new@1", "float32", "0.950 on photos/"],
        ["old@1", "champion", "float32"],
    ]
    assert [(row["model"], row["accuracy"], row["evaluated_on"]) for row in answer("list")] == [
        ("new@1", 0.95, "photos/"),
        ("old@1", 0.8, "photos/"),
    ]


def test_promote_compares_and_rollback_goes_back_and_history_keeps_both(two: tuple[str, str]) -> None:
    shown = said("promote", "new@1", "--reason", "better on shoes").splitlines()
    assert shown[0] == "On the 200 photographs of photos/, old@1 and new@1:"
    assert re.fullmatch(r"  accuracy 0\.800 and 0\.950, \+0\.150 \(95 % interval \+0\.\d{3} to \+0\.\d{3}\)", shown[1])
    assert shown[2].startswith("  macro-F1 0.800 and 0.950, +0.150 (95 % interval ")
    assert shown[3:] == ["new@1 is champion from the next run on; before: old@1"]
    assert said("promote", "new@1", "--reason", "again") == "new@1 is champion already\n"
    assert said("rollback", "--reason", "bags go wrong") == (
        "old@1 is champion again, in a running night from its next shard on; before: new@1\n"
    )
    error = failure("rollback", "--reason", "still wrong")
    assert isinstance(error, RollbackError)
    assert str(error).startswith("champion means old@1 and has no earlier model to go back to; ")
    lines = [re.split(r"\s{2,}", line.rstrip())[1:] for line in said("history").splitlines()]
    who = getpass.getuser()
    assert lines == [
        ["alias", "action", "model", "by", "reason"],
        ["champion", "rollback", "old@1", who, "bags go wrong"],
        ["champion", "promote", "new@1", who, "better on shoes"],
        ["champion", "promote", "old@1", "ada", "first"],
    ]
    told = answer("history", "--alias", "champion")
    assert [change["action"] for change in told] == ["rollback", "promote", "promote"]
    assert told[1]["details"]["comparison"]["paired"]["accuracy"]["value"] == pytest.approx(0.15)
    assert answer("history", "--alias", "challenger") == []


def test_a_refused_promotion_changes_nothing_and_an_override_says_what_was_objected(two: tuple[str, str]) -> None:
    said("promote", "new@1", "--reason", "better")
    error = failure("promote", "old@1", "--reason", "I liked it")
    assert isinstance(error, PromotionRefusedError)
    assert "by more than chance: -0.150 (95 % interval" in str(error)
    shown = said("promote", "old@1", "--reason", "new one is too slow", "--override").splitlines()
    assert shown[3].startswith("Overridden: on the 200 photographs of photos/ its accuracy is lower than that of new@1")
    assert shown[-1] == "old@1 is champion from the next run on; before: new@1"
    assert "promote, overridden" in said("history")
    assert answer("promote", "old@1", "--reason", "x")["changed"] is False


def test_a_reason_is_required(two: tuple[str, str]) -> None:
    for arguments in (("promote", "new@1"), ("rollback",), ("retire", "new@1")):
        result = refund(*arguments)
        assert result.exit_code == 2
        assert "--reason" in result.stderr
    assert isinstance(failure("promote", "new@1", "--reason", " "), SettingsError)


def test_a_challenger_and_a_retired_model(two: tuple[str, str]) -> None:
    assert said("promote", "new@1", "--alias", "challenger", "--reason", "to compare").splitlines() == [
        "new@1 is challenger; before: none"
    ]
    assert said("promote", "old@1", "--alias", "challenger", "--reason", "and another").count("from the next") == 0
    assert said("rollback", "--alias", "challenger", "--reason", "no") == "new@1 is challenger again; before: old@1\n"
    assert str(failure("retire", "new@1", "--reason", "old")).startswith("new@1 is the challenger, so it cannot be ret")
    said("promote", "old@1", "--alias", "challenger", "--reason", "to free it")
    assert said("retire", "new@1", "--reason", "wrong labels") == "new@1 is retired\n"
    assert said("retire", "new@1", "--reason", "wrong labels") == "new@1 is retired already\n"
    assert answer("show", "new@1")["name"] == "new"
    assert [row["state"] for row in answer("list")] == ["retired", "candidate"]
    error = failure("rollback", "--alias", "challenger", "--reason", "x")
    assert "no earlier model to go back to but new@1, retired; " in str(error)


def test_diff_shows_what_differs_and_what_both_scored(two: tuple[str, str]) -> None:
    told = answer("diff", "old@1", "new@1")
    assert (told["first"], told["second"]) == ("old@1", "new@1")
    assert told["fields"]["name"] == ["old", "new"]
    assert set(told["fields"]) == {"name", "artefact_sha256", "source", "source_sha256"}
    assert told["comparison"]["paired"]["accuracy"]["value"] == pytest.approx(0.15)
    lines = said("diff", "champion", "new@1").splitlines()
    assert re.split(r"\s{2,}", lines[0].rstrip()) == ["field", "old@1", "new@1"]
    assert lines[5] == "On the 200 photographs of photos/, old@1 and new@1:"
    assert said("diff", "old@1", "champion") == "The cards of old@1 and old@1 say the same\n"


def test_diff_says_what_is_missing_to_compare(services: Services, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_model(tmp_path / name, name=name)
        services.registry.register(tmp_path / name, created_by="ada")
    assert said("diff", "a@1", "b@1").splitlines()[-1] == (
        "They were not evaluated on one and the same set: refund model evaluate NAME@VERSION --labels SET"
    )


def test_verify_finds_every_spoilt_file_and_says_no(services: Services, two: tuple[str, str]) -> None:
    assert said("verify") == ("new@1: as registered, loads and predicts\nold@1: as registered, loads and predicts\n")
    uri = services.objects.uri
    body = services.objects.get("models/new/1/model.tflite")
    services.objects.put("models/new/1/model.tflite", body + b"\0")
    services.objects.put("models/old/1/left.tflite", b"from a killed registration")
    result = refund("verify")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert (lines[0], lines[2]) == ("new@1: wrong", "old@1: wrong")
    assert lines[1].startswith(f"  {uri('models/new/1/model.tflite')} has SHA-256 ")
    assert lines[3] == (
        f"  {uri('models/old/1/left.tflite')} is no file of old@1, a registration that was killed may have left it; "
        f"remove it"
    )
    result = refund("verify", "old@1", "--json")
    assert result.exit_code == 1
    (one,) = json.loads(result.stdout)
    assert (one["model"], one["ok"], len(one["faults"])) == ("old@1", False, 1)
    services.objects.delete("models/old/1/card.json")
    services.objects.delete("models/old/1/left.tflite")
    (one,) = json.loads(refund("verify", "champion", "--json").stdout)
    assert one["faults"] == [
        f"{uri('models/old/1/card.json')} of model old@1 is missing; put it back, or build and register the model "
        f"again: refund model build"
    ]


def test_without_models_the_commands_say_what_to_do() -> None:
    assert said("verify") == "No model is registered; build one with: refund model build\n"
    assert said("history").startswith("No alias was ever set; set one: refund model promote NAME@VERSION")
    assert str(failure("rollback", "--reason", "x")).startswith("champion means no model yet, so there is nothing")


def test_a_container_without_a_user_name_is_known_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 71_413)
    assert access.who() == "uid 71413"
    monkeypatch.setenv("USER", "ada")
    assert access.who() == "ada"
