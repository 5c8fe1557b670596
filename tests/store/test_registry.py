"""The registry on a real Postgres and a real S3 server."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from refund.errors import ModelArtefactError, ModelExistsError, ModelRetiredError, NoModelError
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
    with pytest.raises(ModelExistsError) as caught:
        registry.register(model_folder(tmp_path / "b", other, b"other"), created_by="ada")
    assert str(caught.value) == (
        "net@2 is registered already with another artefact_sha256 and input_offset; a version never changes: "
        "give the new model a new version"
    )


def test_an_unknown_model_says_how_to_build_one(registry: Registry, tmp_path: Path) -> None:
    for call in (
        lambda: registry.resolve("challenger"),
        lambda: registry.fetch("net@99", tmp_path),
        lambda: registry.resolve("net@\0"),
        lambda: registry.resolve("net@\udcff"),
    ):
        with pytest.raises(NoModelError, match=r"no model is registered as .*refund model build"):
            call()


def test_an_alias_means_one_model_at_a_time_and_remembers_why(
    registry: Registry, database: Roles, tmp_path: Path
) -> None:
    for number in ("3", "4"):
        registry.register(model_folder(tmp_path / number, version(number)), created_by="ada")
    assert registry.promote("champion", "net@3", by="ada", reason="first").changed
    assert registry.promote("champion", "net@4", by="bob", reason="better").changed
    assert not registry.promote("champion", "net@4", by="bob", reason="again").changed
    assert registry.resolve("champion").model == "net@4"
    assert registry.resolve("net@4").aliases == ("champion",)
    history = "SELECT model, set_by, reason, ended_at IS NULL FROM refund.model_alias_history ORDER BY change_id"
    assert rows(database.owner, history) == [("net@3", "ada", "first", False), ("net@4", "bob", "better", True)]
    audit = "SELECT actor, subject, details ->> 'to' FROM refund.audit WHERE action = 'model.promote' ORDER BY audit_id"
    assert rows(database.owner, audit) == [("ada", "champion", "net@3"), ("bob", "champion", "net@4")]


def test_a_spoilt_copy_is_fetched_anew(registry: Registry, tmp_path: Path) -> None:
    registry.register(model_folder(tmp_path / "6", version("6")), created_by="ada")
    cached = registry.fetch("net@6", tmp_path / "cache")
    (cached / "net.tflite").write_bytes(b"spoilt")
    assert (registry.fetch("net@6", tmp_path / "cache") / "net.tflite").read_bytes() == BODY


def fetch_error(registry: Registry, model: str, tmp_path: Path) -> str:
    with pytest.raises(ModelArtefactError) as caught:
        registry.fetch(model, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    return str(caught.value)


def test_an_altered_or_missing_file_is_refused_by_its_uri_and_put_back_by_registering(
    registry: Registry, tmp_path: Path
) -> None:
    folder = model_folder(tmp_path / "7", version("7"))
    row = registry.register(folder, created_by="ada")
    registry.objects.put("models/net/7/net.tflite", b"altered")
    assert fetch_error(registry, "net@7", tmp_path) == (
        f"{row.uri}net.tflite has SHA-256 {sha256(b'altered').hexdigest()}, its card says {row.sha256}: it was altered "
        f"or damaged. Restore it, or run: refund model build"
    )
    registry.objects.put("models/net/7/card.json", replace(version("7"), input_offset=0.0).to_json().encode())
    registry.objects.put("models/net/7/net.tflite", BODY)
    assert fetch_error(registry, "net@7", tmp_path) == (
        f"{row.uri}card.json differs from the card of net@7 in the registry in input_offset; it was altered. Restore "
        f"it, or run: refund model build"
    )
    registry.objects.put("models/net/7/card.json", b"{")
    assert fetch_error(registry, "net@7", tmp_path).startswith(f"{row.uri}card.json is not valid JSON (")
    registry.objects.delete("models/net/7/card.json")
    assert fetch_error(registry, "net@7", tmp_path) == (
        f"{row.uri}card.json of model net@7 is missing; put it back, or build and register the model again: "
        f"refund model build"
    )
    for lost in ("card.json", "net.tflite"):
        registry.objects.delete(f"models/net/7/{lost}")
        registry.register(folder, created_by="ada")
        assert registry.fetch("net@7", tmp_path / "cache").is_dir()
    registry.objects.put("models/net/7/net.tflite", b"altered")
    registry.register(folder, created_by="ada")
    assert registry.objects.get("models/net/7/net.tflite") == BODY


def test_what_a_rebuild_measured_does_not_change_the_registered_card(registry: Registry, tmp_path: Path) -> None:
    first = registry.register(model_folder(tmp_path / "9", version("9")), created_by="ada")
    again = replace(version("9"), metrics={"top1_accuracy": 0.9}, source="elsewhere")
    assert registry.register(model_folder(tmp_path / "9b", again), created_by="ada") == first
    assert registry.objects.get("models/net/9/card.json") == version("9").to_json().encode()
    registry.objects.put("models/net/9/card.json", again.to_json().encode())
    assert registry.fetch("net@9", tmp_path / "cache").is_dir()  # it predicts the same
    with pytest.raises(
        ModelArtefactError, match="differs from the card of net@9 in the registry in source and metrics"
    ):
        registry.download(first, tmp_path / "9", exact=True)


class Killed(BaseException):
    """Stands for the end of the process."""


@dataclass
class DyingStore:
    """The real store, until one write is the last thing that its process does."""

    store: ObjectStore
    dies_after: str

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def upload(self, path: Path, key: str) -> None:
        self.store.upload(path, key)
        self._die(key)

    def put(self, key: str, body: bytes) -> None:
        self.store.put(key, body)
        self._die(key)

    def _die(self, key: str) -> None:
        if key.endswith(self.dies_after):
            raise Killed


@pytest.mark.parametrize("last", ["net.tflite", "card.json"])
def test_a_killed_registration_leaves_no_model_and_the_next_one_is_whole(
    last: str, registry: Registry, database: Roles, tmp_path: Path
) -> None:
    card, other = version(f"killed-{last}"), b"other weights"
    dying: Any = DyingStore(store=registry.objects, dies_after=last)
    with pytest.raises(Killed):
        Registry(objects=dying, database=Database(database.app)).register(
            model_folder(tmp_path / "a", card), created_by="ada"
        )
    with pytest.raises(NoModelError):
        registry.resolve(card.key)
    rival = replace(card, artefact_sha256=sha256(other).hexdigest())
    registry.register(model_folder(tmp_path / "b", rival, other), created_by="bob")  # nobody holds the version yet
    assert (registry.fetch(card.key, tmp_path / "cache") / "net.tflite").read_bytes() == other
    with pytest.raises(ModelExistsError):
        registry.register(tmp_path / "a", created_by="ada")
    assert registry.objects.get(f"models/net/{card.version}/net.tflite") == other


@pytest.mark.parametrize("s3", ["s3_moto", "s3_nanio"])
def test_of_builders_of_one_version_at_once_one_wins_and_nothing_of_the_others_is_stored(
    s3: str, database: Roles, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """More builders than fit side by side, each with a store and connection of its own, as processes have."""
    access, card = request.getfixturevalue(s3), version(f"race-{s3}")
    barrier = threading.Barrier(6)
    wins: list[int] = []
    texts: list[str] = []

    def build(number: int) -> None:
        body = f"weights {number}".encode() * 200_000
        mine = replace(card, artefact_sha256=sha256(body).hexdigest())
        folder = model_folder(tmp_path / str(number), mine, body)
        registry = Registry(objects=ObjectStore(access), database=Database(database.app))
        barrier.wait()
        try:
            registry.register(folder, created_by=f"builder {number}")
        except ModelExistsError as exc:
            texts.append(str(exc))
        else:
            wins.append(number)

    threads = [threading.Thread(target=build, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) == 1
    assert texts == 5 * [
        f"{card.key} is registered already with another artefact_sha256; a version never changes: give the new model a "
        f"new version"
    ]
    registry = Registry(objects=ObjectStore(access), database=Database(database.app))
    registry.download(registry.resolve(card.key), tmp_path, exact=True)
    assert (tmp_path / "net.tflite").read_bytes().startswith(f"weights {wins[0]}".encode())


def test_builders_of_the_same_content_at_once_all_get_the_one_model(
    s3_moto: S3Access, database: Roles, tmp_path: Path
) -> None:
    folder = model_folder(tmp_path / "same", version("same"))
    barrier = threading.Barrier(4)

    def build(number: int) -> str:
        registry = Registry(objects=ObjectStore(s3_moto), database=Database(database.app))
        barrier.wait()
        return registry.register(folder, created_by=str(number)).created_by

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(build, range(4)))) == 1


def test_a_retired_model_is_shown_and_not_used(registry: Registry, tmp_path: Path) -> None:
    registry.register(model_folder(tmp_path / "10", version("10")), created_by="ada")
    registry.fetch("net@10", tmp_path / "cache")
    registry.retire("net@10", by="ada", reason="wrong labels")
    assert registry.resolve("net@10").state == "retired"
    assert "net@10" in [row.model for row in registry.list()]
    with pytest.raises(ModelRetiredError) as caught:
        registry.fetch("net@10", tmp_path / "cache")
    assert str(caught.value) == "model net@10 is retired and may not be used; choose another: refund model list"


def test_what_lies_beside_a_models_files_is_told(registry: Registry, tmp_path: Path) -> None:
    row = registry.register(model_folder(tmp_path / "11", version("11")), created_by="ada")
    registry.objects.put("models/net/11/evaluations/plot.png", b"of an evaluation")
    assert registry.strangers(row) == []
    registry.objects.put("models/net/11/old.tflite", b"from a killed registration")
    assert registry.strangers(row) == [f"{row.uri}old.tflite"]


def test_a_folder_that_is_no_model_is_not_registered(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(ModelArtefactError, match=r"is not a whole model .*; expected card\.json and its artefact"):
        registry.register(tmp_path, created_by="ada")
    with pytest.raises(ModelArtefactError, match="was altered or damaged"):
        registry.register(model_folder(tmp_path / "8", version("8"), b"other"), created_by="ada")
    assert "net@8" not in [row.model for row in registry.list()]
