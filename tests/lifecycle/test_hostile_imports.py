"""What somebody who means harm may put before `refund model import`: nothing of it is registered, read on or told."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from refund.errors import ModelArtefactError, ModelRetiredError, RefundError
from refund.lifecycle import outside
from refund.lifecycle.import_model import MAX_CARD_BYTES, BareFile, import_model
from refund.lifecycle.outside import look
from refund.lifecycle.verify import verify_models
from refund.model.card import CARD_FILE
from refund.model.load import MAX_ARTEFACT_BYTES
from refund.night.services import Services
from tests.night.factories import write_model

SECRET = "hush-7141"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole unit from outside."""
    write_model(tmp_path / "unit", name="outside", version="1")
    return tmp_path / "unit"


def forge(folder: Path, **fields: Any) -> None:
    values = json.loads((folder / CARD_FILE).read_text(encoding="utf-8")) | fields
    (folder / CARD_FILE).write_text(json.dumps(values), encoding="utf-8")


def refused(services: Services, source: Path | str, **given: Any) -> str:
    """The text of the error of an import that registered and stored nothing."""
    with pytest.raises(RefundError) as caught:
        import_model(services, str(source), by="mallory", **given)
    assert services.registry.list() == []
    assert list(services.objects.list("models/")) == []
    assert SECRET not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"artefact_file": "../secret.tflite"}, "artefact_file must be a plain file name"),
        ({"artefact_file": "/etc/passwd"}, "artefact_file must be a plain file name"),
        ({"artefact_file": "a\0.tflite"}, "artefact_file must be a plain file name"),
        ({"artefact_file": ".tflite"}, "artefact_file must be a plain file name"),
        ({"artefact_file": CARD_FILE}, "artefact_file must be a plain file name"),
        ({"artefact_file": "x" * 250}, "artefact_file must be a plain file name"),
        ({"artefact_file": "model.pkl"}, "model.pkl is a pickle, expected a LiteRT model (.tflite); pickles are never"),
        ({"artefact_file": "model.pb"}, "model.pb is no .tflite file, expected a LiteRT model (.tflite); export the"),
        ({"artefact_file": "evaluations"}, "evaluations is no .tflite file, expected a LiteRT model (.tflite)"),
        ({"name": "../models"}, "name must be text like"),
        ({"name": "x" * 300}, "name must be text like"),
        ({"version": "1/../../champion"}, "version must be text like"),
        ({"source": "\0"}, "U+0000, which Postgres cannot store"),
        ({"metrics": {"top1_accuracy": float("nan")}}, "is malformed: Out of range float values"),
        ({"input_scale": 10**400}, "input_scale must be a finite number"),
        ({"schema_version": "2; DROP TABLE refund.model"}, "schema_version must be a value of type int"),
        ({"uri": "s3://elsewhere/"}, "has unknown fields uri"),
    ],
)
def test_a_hostile_card_is_refused_before_anything_else_is_read(
    fields: dict[str, Any], text: str, services: Services, folder: Path
) -> None:
    (folder.parent / "secret.tflite").write_text(SECRET)
    (folder / "model.tflite").unlink()
    forge(folder, **fields)
    told = refused(services, folder)
    assert text in told
    assert told.startswith(f"{folder}/")


@pytest.mark.parametrize(("name", "limit"), [(CARD_FILE, MAX_CARD_BYTES), ("model.tflite", MAX_ARTEFACT_BYTES)])
def test_a_file_that_is_too_large_is_not_copied(name: str, limit: int, services: Services, folder: Path) -> None:
    os.truncate(folder / name, limit + 1)  # sparse
    assert refused(services, folder) == (
        f"{folder}/{name} has {limit + 1:,} bytes, expected at most {limit:,}; choose a smaller network"
    )


def test_a_file_that_says_it_is_empty_is_counted_while_it_is_read(
    services: Services, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("refund.lifecycle.import_model.MAX_CARD_BYTES", 1000)
    (folder / CARD_FILE).unlink()
    (folder / CARD_FILE).symlink_to("/proc/kallsyms")
    assert (folder / CARD_FILE).stat().st_size == 0
    assert f"{CARD_FILE} has 1," in refused(services, folder)


@pytest.mark.parametrize("name", [CARD_FILE, "model.tflite"])
def test_links_to_what_is_no_model_tell_nothing_of_it(
    name: str, services: Services, folder: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "credentials"
    secret.write_text(f"[default]\naws_secret_access_key = {SECRET}\n")
    path = folder / name
    for target in (secret, Path("/dev/zero"), path, tmp_path):
        path.unlink()
        path.symlink_to(target)
        assert refused(services, folder).startswith(f"{path}")


@pytest.mark.parametrize(
    "source",
    [
        "s3://",
        "s3:///",
        "s3:///model/",
        "s3://Not_A_Bucket!/model/",
        "s3://bucket/" + "x" * 1100 + "/",
        "\0/",
        "x" * 300,
    ],
)
def test_a_place_that_cannot_be_is_told(source: str, services: Services) -> None:
    assert refused(services, source)
    assert refused(services, f"{source}.tflite", bare=BareFile(name="a", version="1", output="logits"))


def test_what_else_lies_in_the_folder_is_left_alone(services: Services, folder: Path) -> None:
    (folder / "run_me.pkl").write_bytes(b"\x80\x04")
    (folder / "link").symlink_to("/etc/passwd")
    row = import_model(services, str(folder), by="ada").row
    assert [item.key for item in services.objects.list("models/")] == [
        "models/outside/1/card.json", "models/outside/1/model.tflite",
    ]  # fmt: skip
    assert (row.state, row.created_by) == ("candidate", "ada")
    services.registry.retire("outside@1", by="ada", reason="wrong labels")
    with pytest.raises(ModelRetiredError, match=r"^model outside@1 is retired and may not be used; choose another"):
        import_model(services, str(folder), by="ada")


def test_whatever_lies_beside_a_model_is_counted_and_five_are_named(services: Services, folder: Path) -> None:
    forge(folder, version="2")
    for number in range(12):
        services.objects.put(f"lab/{number:02}.bin", b"")
        services.objects.put(f"models/outside/2/{number:02}.bin", b"")
    for path in (folder / CARD_FILE, folder / "model.tflite"):
        services.objects.upload(path, f"lab/{path.name}")
    assert import_model(services, services.objects.uri("lab/"), by="ada").row.model == "outside@2"
    (verified,) = verify_models(services, "outside@2")
    assert len(verified.faults) == 6
    assert verified.faults[0].startswith(f"{verified.uri}00.bin is no file of outside@2, ")
    assert verified.faults[-1] == f"{verified.uri} holds 7 more that are none of its files"


def test_the_child_gets_no_password_of_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "http_proxy", "AWS_SECRET_ACCESS_KEY", "AIRFLOW__CORE__FERNET_KEY", "PGPASSWORD"):
        monkeypatch.setenv(name, f"http://user:{SECRET}@proxy")
    assert not [name for name, value in outside._environment().items() if SECRET in value]


@pytest.mark.parametrize("answer", ["{", "{}", '{"a":' * 100_000, "[1]"])
def test_a_child_that_was_taken_over_cannot_break_its_parent(
    answer: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"import sys; sys.stdout.write(open({str(folder / 'says')!r}).read())"
    (folder / "says").write_text(answer)
    python = outside.module_command("m")[0]
    monkeypatch.setattr(outside, "module_command", lambda *_: [python, "-S", "-c", code])
    with pytest.raises(ModelArtefactError, match=r"^the process that opened there ended early \(exit code 0: it said"):
        look(folder / "model.tflite", place="there")
