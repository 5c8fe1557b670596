"""`refund model import`: what is built elsewhere is opened in a child first, and nothing wrong is registered."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refund.errors import ConfigurationError, LabelMismatchError, ModelArtefactError, ModelExistsError, SettingsError
from refund.lifecycle import outside
from refund.lifecycle.import_model import BareFile, import_model
from refund.lifecycle.outside import look, try_out
from refund.model.card import CARD_FILE, ModelCard
from refund.model.load import load_model
from refund.night.services import Services
from refund.resources import include_path
from tests.model.tiny_litert import mean_colour_model
from tests.night.factories import write_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole unit from outside."""
    write_model(tmp_path / "unit", name="outside", version="1")
    return tmp_path / "unit"


def change_card(folder: Path, **fields: Any) -> ModelCard:
    card = replace(ModelCard.from_json((folder / CARD_FILE).read_text(encoding="utf-8")), **fields)
    (folder / CARD_FILE).write_text(card.to_json(), encoding="utf-8")
    return card


def put_artefact(folder: Path, body: bytes, **fields: Any) -> None:
    (folder / "model.tflite").write_bytes(body)
    change_card(folder, artefact_sha256=sha256(body).hexdigest(), **fields)


def refused(services: Services, source: Path | str, **given: Any) -> ConfigurationError:
    """The error of an import that changed nothing."""
    before = [row.model for row in services.registry.list()]
    with pytest.raises(ConfigurationError) as caught:
        import_model(services, str(source), by="ada", **given)
    assert [row.model for row in services.registry.list()] == before
    assert list(services.objects.list("models/")) == []
    return caught.value


def test_a_folder_becomes_a_candidate(services: Services, folder: Path, tmp_path: Path) -> None:
    told: list[str] = []
    labels = include_path("imagenet_classes.csv")
    imported = import_model(services, str(folder), by="ada", labels=labels, progress=told.append)
    assert (imported.row.model, imported.row.state, imported.row.aliases) == ("outside@1", "candidate", ())
    assert imported.row.card == change_card(folder)
    assert imported.seen.sentence == "input 1 × 224 × 224 × 3 float32, output 1 × 1000, float32"
    assert told == [
        f"reading {folder}",
        f"opening {folder}/model.tflite in a process of its own",
        "outside@1 loads and predicts: input 1 × 224 × 224 × 3 float32, output 1 × 1000, float32",
    ]
    again = import_model(services, f"{folder}/", by="bob")
    assert again.row == imported.row
    change_card(folder, input_offset=-1.0)
    with pytest.raises(
        ModelExistsError, match=r"^outside@1 is registered already with another input_offset; a version"
    ):
        import_model(services, str(folder), by="ada")


def test_a_prefix_of_a_bucket_becomes_a_candidate(services: Services, folder: Path) -> None:
    change_card(folder, version="s3")
    for name in (CARD_FILE, "model.tflite"):
        services.objects.upload(folder / name, f"from-elsewhere/{name}")
    source = services.objects.uri("from-elsewhere/")
    assert import_model(services, source, by="ada").row.model == "outside@s3"


def test_a_bare_file_needs_what_it_does_not_say(services: Services, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "network.tflite"
    (folder / "model.tflite").rename(file)
    assert str(refused(services, file)) == (
        f"{file} comes without a card; say --name, --version and --output, and where it takes float32 --input-scale "
        f"and --input-offset"
    )
    bare = BareFile(name="bare", version="1", output="logits")
    assert str(refused(services, file, bare=bare)) == (
        f"{file} takes float32 pixels; say how they are made of 0 to 255: --input-scale and --input-offset (for -1 to "
        f"1: 0.00784313725490196 and -1)"
    )
    assert str(refused(services, file, bare=replace(bare, name="Bare", input_scale=1.0, input_offset=0.0))) == (
        f"no card can be made for {file}: name must be text like [a-z0-9][a-z0-9._-]{{0,79}}, got 'Bare'"
    )
    told = import_model(services, str(file), by="ada", bare=replace(bare, input_scale=1 / 255, input_offset=0.0))
    card = told.row.card
    assert (card.key, card.input_width, card.output, card.precision) == ("bare@1", 224, "logits", "float32")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    write_model(tmp_path / "same", name="outside", version="1")
    fetched = services.registry.fetch("bare@1", tmp_path / "cache")
    with load_model(fetched) as model, load_model(tmp_path / "same") as same:
        np.testing.assert_array_equal(model.predict(pixels), same.predict(pixels))


def test_a_folder_says_all_itself(services: Services, folder: Path) -> None:
    error = refused(services, folder, bare=BareFile(name="bare", version="1", output="logits"))
    assert isinstance(error, SettingsError)
    assert str(error) == f"{folder} is a folder, whose card says everything; leave --name, --version and --output out"


@pytest.mark.parametrize("place", ["folder", pytest.param("bucket", marks=pytest.mark.slow)])
def test_an_artefact_that_is_not_the_cards_is_refused_by_its_place(
    place: str, services: Services, folder: Path
) -> None:
    body = (folder / "model.tflite").read_bytes() + b"\0"
    (folder / "model.tflite").write_bytes(body)
    source = f"{folder}/"
    if place == "bucket":
        source = services.objects.uri("elsewhere/")
        for name in (CARD_FILE, "model.tflite"):
            services.objects.upload(folder / name, f"elsewhere/{name}")
    assert str(refused(services, source)) == (
        f"{source}model.tflite has SHA-256 {sha256(body).hexdigest()}, its card says "
        f"{change_card(folder).artefact_sha256}: it was altered or damaged; get both files anew from where they were "
        f"built"
    )


def test_a_network_of_another_number_of_classes_is_refused(services: Services, folder: Path) -> None:
    put_artefact(folder, mean_colour_model(side=224), class_count=3, output="probabilities")
    error = refused(services, folder)
    assert isinstance(error, LabelMismatchError)
    assert str(error).startswith("model outside@1 gives 3 scores but its labels name 1000 classes; ")


@pytest.mark.slow
def test_a_card_that_counts_other_classes_is_refused(services: Services, folder: Path) -> None:
    change_card(folder, class_count=999)
    assert str(refused(services, folder)).startswith(
        "model outside@1 gives 999 scores but its labels name 1000 classes"
    )


@pytest.mark.slow
def test_a_card_for_another_class_list_is_refused(services: Services, folder: Path) -> None:
    change_card(folder, labels_sha256="0" * 64)
    assert str(refused(services, folder)).startswith("model outside@1 was built with another class list (SHA-256 0000")


def test_a_card_of_a_newer_schema_is_refused(services: Services, folder: Path) -> None:
    text = (folder / CARD_FILE).read_text(encoding="utf-8")
    newer = change_card(folder).schema_version + 1
    (folder / CARD_FILE).write_text(text.replace(f'"schema_version": {newer - 1}', '"schema_version": 99'))
    error = refused(services, folder)
    assert str(error).startswith(f"{folder}/card.json has schema version 99, this code reads up to ")
    assert str(error).endswith("upgrade refund, or choose a model that this version built")


def test_a_unit_for_keras_is_refused(services: Services, folder: Path) -> None:
    change_card(folder, runtime="keras")
    assert str(refused(services, folder)) == (
        f"{folder}/card.json is of a unit for keras, nights run LiteRT alone; build one from the Keras weights: "
        f"refund model build --weights FILE.h5"
    )


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (lambda lines: lines[:-1], "lists 999 classes, expected 1000; "),
        (
            lambda lines: [*lines[:1], lines[1].replace("tench", "trout"), *lines[2:]],
            "line 2 says n01440764 'trout', the project's own class list n01440764 'tench'; every model gives its "
            "scores in that order: export the network in the order of include/imagenet_classes.csv",
        ),
    ],
)
def test_labels_that_are_not_ours_are_refused(
    lines: Callable[[list[str]], list[str]], text: str, services: Services, folder: Path, tmp_path: Path
) -> None:
    ours = include_path("imagenet_classes.csv").read_text(encoding="utf-8").splitlines()
    labels = tmp_path / "labels.csv"
    labels.write_text("\n".join(lines(ours)) + "\n", encoding="utf-8")
    assert str(refused(services, folder, labels=labels)).startswith(f"{labels} {text}")


class Bomb:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (os.environ["BOMB"],)


ZIP = "is a zip archive, as .keras and .pt are, expected a LiteRT model (.tflite); save Keras weights as .h5 and run: "
PICKLE = "is a pickle, expected a LiteRT model (.tflite); pickles are never read: export the network as .tflite"


@pytest.mark.parametrize(
    ("name", "body", "seen"),
    [
        ("model.pkl", None, PICKLE),
        ("model.pt", b"PK\x03\x04", f"{ZIP}refund model build --weights"),
        ("model.keras", b"PK\x03\x04", f"{ZIP}refund model build --weights"),
        (
            "model.h5",
            b"\x89HDF\r\n\x1a\n",
            "is HDF5, expected a LiteRT model (.tflite); build a model from Keras weights: refund model build "
            "--weights FILE.h5",
        ),
        ("model.bin", b"?", "is no .tflite file; give one, or a folder with card.json and its artefact (s3://…/)"),
        ("gone.tflite", b"", "is not there; give a folder with card.json and its artefact, or a .tflite file"),
    ],
)
def test_other_formats_are_refused_by_name_and_never_read(
    name: str, body: bytes | None, seen: str, services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    file = tmp_path / name
    if name != "gone.tflite":
        file.write_bytes(pickle.dumps(Bomb()) if body is None else body)
    bare = BareFile(name="bare", version="1", output="logits")
    assert str(refused(services, file, bare=bare)) == f"{file} {seen}"
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        (b"\x80\x04\x95pickled", PICKLE),
        (b"hello, world", "begins with b'hello, w', a LiteRT file has TFL3 at its fifth byte; export the network as "
                          ".tflite"),
        (b"", "begins with b'', a LiteRT file has TFL3 at its fifth byte; export the network as .tflite"),
    ],
)  # fmt: skip
def test_other_formats_under_the_name_of_an_artefact_are_refused(
    body: bytes, seen: str, services: Services, folder: Path
) -> None:
    put_artefact(folder, body)
    assert str(refused(services, folder)) == f"{folder}/model.tflite {seen}"


def test_a_broken_network_costs_its_child_and_nothing_else(services: Services, folder: Path) -> None:
    body = (folder / "model.tflite").read_bytes()
    put_artefact(folder, body[:16] + bytes(reversed(body[16:200])) + body[200:])
    error = refused(services, folder)
    assert isinstance(error, ModelArtefactError)
    assert f"{folder}/model.tflite" in str(error)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {"output": "probabilities"},
            "while its card says probabilities; a network without a softmax gives logits: correct output",
        ),
        ({"input_width": 112}, "takes input of shape [1, 224, 224, 3], its card says [1, 224, 112, 3]; build it again"),
    ],
)
def test_a_card_that_misleads_is_refused(fields: dict[str, Any], text: str, services: Services, folder: Path) -> None:
    change_card(folder, **fields)
    error = str(refused(services, folder))
    assert error.startswith("model outside@1 ")
    assert error.endswith(text)


@pytest.mark.parametrize("missing", [CARD_FILE, "model.tflite"])
@pytest.mark.parametrize("place", ["folder", pytest.param("bucket", marks=pytest.mark.slow)])
def test_a_missing_file_is_named(missing: str, place: str, services: Services, folder: Path) -> None:
    source = f"{folder}/"
    if place == "bucket":
        source = services.objects.uri("half/")
        for path in folder.iterdir():
            services.objects.upload(path, f"half/{path.name}")
        services.objects.delete(f"half/{missing}")
    (folder / missing).unlink()
    assert str(refused(services, source)) == (
        f"{source}{missing} is missing; a model from outside is a folder with card.json and the artefact that it names"
    )


def test_a_bucket_that_is_not_there_is_named(services: Services) -> None:
    assert str(refused(services, "s3://no-such-bucket/model/")).startswith(
        "s3://no-such-bucket/model/card.json cannot be read: bucket 'no-such-bucket' does not exist at "
    )


def test_a_pipe_is_not_waited_for(services: Services, folder: Path) -> None:
    (folder / "model.tflite").unlink()
    os.mkfifo(folder / "model.tflite")
    assert str(refused(services, folder)).startswith(f"{folder}/model.tflite is missing; ")


def test_the_child_sees_no_secret_and_can_write_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real child's command, environment and limits, with a spy in the place of the network's loader."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-7141")
    monkeypatch.setenv("AIRFLOW_CONN_REFUND_DB", "hush-7141")
    spy = tmp_path / "spy"
    (spy / "refund").mkdir(parents=True)
    shutil.copytree(Path(outside.__file__).parents[1], spy / "refund", dirs_exist_ok=True)
    (spy / "refund" / "model" / "load.py").write_text(
        "import os, resource, pathlib\n"
        "from refund.errors import ModelArtefactError\n"
        "def load_model(folder):\n"
        "    secrets = [name for name, value in os.environ.items() if 'hush-7141' in value]\n"
        "    try:\n"
        f"        pathlib.Path({str(tmp_path / 'written')!r}).write_text('x' * 10)\n"
        "    except OSError as exc:\n"
        "        written = type(exc).__name__\n"
        "    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU)]\n"
        "    raise ModelArtefactError(f'{secrets} {written} {limits}')\n"
    )
    real = outside.child_environment
    monkeypatch.setattr(outside, "child_environment", lambda: real() | {"PYTHONPATH": str(spy)})
    with pytest.raises(ModelArtefactError) as caught:
        try_out(folder, place="there")
    assert str(caught.value) == f"[] OSError [{4 * 1024**3}, 60]"


def test_a_child_that_hangs_or_dies_is_told_by_the_place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = outside.module_command
    for code, text in (
        (
            "import os; os.kill(os.getpid(), 9)",
            "the process that opened there ended early (exit code -9: it said nothing)",
        ),
        ("print('Killed', file=__import__('sys').stderr); exit(7)", "ended early (exit code 7: Killed)"),
        ("print('hello')", "ended early (exit code 0: it said nothing)"),
    ):
        monkeypatch.setattr(outside, "module_command", lambda *_, code=code: [real("m")[0], "-c", code])
        with pytest.raises(ModelArtefactError) as caught:
            look(folder / "model.tflite", place="there")
        assert text in str(caught.value)
        assert str(caught.value).endswith(
            "; a file that cannot be opened safely is not registered: export it again, or choose another"
        )
    monkeypatch.setattr(outside, "CHILD_TIMEOUT_S", 0.2)
    monkeypatch.setattr(outside, "module_command", lambda *_: [real("m")[0], "-c", "while True: pass"])
    with pytest.raises(ModelArtefactError, match=r"^there was not opened within 0 s; a file that cannot"):
        look(folder / "model.tflite", place="there")
