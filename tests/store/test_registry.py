"""The registry on a real Postgres and a real S3 server."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from refund.errors import ConfigurationError, ModelArtefactError, NoModelError, SettingsError
from refund.model.card import CARD_FILE, ModelCard
from refund.settings import S3Access
from refund.store.database import Database
from refund.store.objects import ObjectStore
from refund.store.registry import Registry
from tests.conftest import Roles
from tests.store.factories import rows

BODY = b"weights" * 1000
CARD = ModelCard(
    name="net",
    version="1",
    runtime="litert",
    artefact_file="net.tflite",
    artefact_sha256=sha256(BODY).hexdigest(),
    input_height=224,
    input_width=224,
    input_scale=1 / 127.5,
    input_offset=-1.0,
    class_count=1000,
    labels_sha256="0" * 64,
    precision="float32",
    source="made up",
    source_sha256="1" * 64,
    created_at="2026-11-21T00:00:00+00:00",
)


@pytest.fixture
def registry(database: Roles, s3_moto: S3Access) -> Registry:
    return Registry(objects=ObjectStore(s3_moto), database=Database(database.app))


def model_folder(path: Path, card: ModelCard = CARD, body: bytes = BODY) -> Path:
    path.mkdir(exist_ok=True)
    (path / card.artefact_file).write_bytes(body)
    (path / CARD_FILE).write_text(card.to_json(), encoding="utf-8")
    return path


def version(number: str) -> ModelCard:
    return replace(CARD, version=number)


def test_a_model_is_registered_once_and_fetched(registry: Registry, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "built")
    row = registry.register(folder, created_by="ada")
    assert (row.model, row.card, row.state, row.created_by, row.aliases) == ("net@1", CARD, "candidate", "ada", ())
    assert row.uri == "s3://refund-test/models/net/1/"
    rebuilt = model_folder(tmp_path / "again", replace(CARD, created_at="2026-11-22T00:00:00+00:00"))
    assert registry.register(rebuilt, created_by="bob") == row
    assert [listed.model for listed in registry.list()] == ["net@1"]
    cached = registry.fetch("net@1", tmp_path / "cache")
    assert cached == tmp_path / "cache" / "net@1"
    assert {path.name: path.read_bytes() for path in cached.iterdir()}["net.tflite"] == BODY
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["net@1"]


def test_a_version_never_changes(registry: Registry, tmp_path: Path) -> None:
    registry.register(model_folder(tmp_path / "a", version("2")), created_by="ada")
    other = replace(version("2"), artefact_sha256=sha256(b"other").hexdigest(), input_offset=0.0)
    with pytest.raises(ConfigurationError) as caught:
        registry.register(model_folder(tmp_path / "b", other, b"other"), created_by="ada")
    assert str(caught.value) == (
        "net@2 is registered already with another artefact_sha256 and input_offset; a version never changes: "
        "give the new model a new version"
    )


def test_an_unknown_model_says_how_to_build_one(registry: Registry, tmp_path: Path) -> None:
    for call in (lambda: registry.resolve("challenger"), lambda: registry.fetch("net@99", tmp_path)):
        with pytest.raises(NoModelError, match=r"no model is registered as .*refund model build"):
            call()


def test_an_alias_means_one_model_at_a_time_and_remembers_why(
    registry: Registry, database: Roles, tmp_path: Path
) -> None:
    for number in ("3", "4"):
        registry.register(model_folder(tmp_path / number, version(number)), created_by="ada")
    assert registry.set_alias("champion", "net@3", by="ada", reason="first")
    assert registry.set_alias("champion", "net@4", by="bob", reason="better")
    assert not registry.set_alias("champion", "net@4", by="bob", reason="again")
    assert registry.resolve("champion").model == "net@4"
    assert registry.resolve("net@4").aliases == ("champion",)
    history = "SELECT model, set_by, reason, ended_at IS NULL FROM refund.model_alias_history ORDER BY change_id"
    assert rows(database.owner, history) == [("net@3", "ada", "first", False), ("net@4", "bob", "better", True)]
    audit = "SELECT actor, subject, details ->> 'to' FROM refund.audit WHERE action = 'model.promote' ORDER BY audit_id"
    assert rows(database.owner, audit) == [("ada", "champion", "net@3"), ("bob", "champion", "net@4")]


def test_an_alias_needs_a_reason_a_known_name_and_a_usable_model(
    registry: Registry, database: Roles, tmp_path: Path
) -> None:
    registry.register(model_folder(tmp_path / "5", version("5")), created_by="ada")
    with pytest.raises(SettingsError, match="a change of champion needs a reason; say why net@5 shall be it"):
        registry.set_alias("champion", "net@5", by="ada", reason=" ")
    with pytest.raises(SettingsError, match="there is no alias 'best'; expected champion or challenger"):
        registry.set_alias("best", "net@5", by="ada", reason="why")
    with pytest.raises(NoModelError, match="'net@98'"):
        registry.set_alias("champion", "net@98", by="ada", reason="why")
    with Database(database.app).connect() as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE refund.model SET state = 'retired' WHERE model = 'net@5'")
    with pytest.raises(ConfigurationError, match="model net@5 is retired and may not be used; choose another"):
        registry.set_alias("challenger", "net@5", by="ada", reason="why")


def test_a_spoilt_copy_is_fetched_anew(registry: Registry, tmp_path: Path) -> None:
    registry.register(model_folder(tmp_path / "6", version("6")), created_by="ada")
    cached = registry.fetch("net@6", tmp_path / "cache")
    (cached / "net.tflite").write_bytes(b"spoilt")
    assert (registry.fetch("net@6", tmp_path / "cache") / "net.tflite").read_bytes() == BODY


def test_an_altered_or_missing_artefact_is_refused_and_put_back_by_registering(
    registry: Registry, tmp_path: Path
) -> None:
    folder = model_folder(tmp_path / "7", version("7"))
    registry.register(folder, created_by="ada")
    registry.objects.put("models/net/7/net.tflite", b"altered")
    with pytest.raises(ModelArtefactError, match=rf"has SHA-256 {sha256(b'altered').hexdigest()}, its card says"):
        registry.fetch("net@7", tmp_path / "cache")
    registry.objects.put("models/net/7/card.json", replace(version("7"), name="other").to_json().encode())
    registry.objects.put("models/net/7/net.tflite", BODY)
    with pytest.raises(ModelArtefactError, match=r"holds other@7 with SHA-256 .*, the registry has net@7 with"):
        registry.fetch("net@7", tmp_path / "cache")
    registry.objects.delete("models/net/7/card.json")
    with pytest.raises(ModelArtefactError, match=r"models/net/7/card\.json of model net@7 is missing; put it back"):
        registry.fetch("net@7", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    registry.register(folder, created_by="ada")
    assert registry.fetch("net@7", tmp_path / "cache").is_dir()


def test_a_folder_that_is_no_model_is_not_registered(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(ModelArtefactError, match=r"is not a whole model .*; expected card\.json and its artefact"):
        registry.register(tmp_path, created_by="ada")
    with pytest.raises(ModelArtefactError, match="was altered or damaged"):
        registry.register(model_folder(tmp_path / "8", version("8"), b"other"), created_by="ada")
    assert "net@8" not in [row.model for row in registry.list()]
