from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refund.errors import FatalRunError, LabelMismatchError, ModelArtefactError
from refund.model import load as load_module
from refund.model.labels import Labels
from refund.model.load import Model, load_model
from refund.model.runtimes.base import to_probabilities
from tests.model.factories import make_card, make_labels
from tests.model.tiny_litert import mean_colour_model

COLOURS = make_labels("red", "green", "blue")


def make_unit(folder: Path, body: bytes | None = None, *, labels: Labels = COLOURS, **overrides: Any) -> Path:
    """Write a unit around the network that answers with the mean colour."""
    body = mean_colour_model() if body is None else body
    values = {
        "artefact_sha256": hashlib.sha256(body).hexdigest(),
        "class_count": len(labels),
        "labels_sha256": labels.sha256,
        "input_height": 4,
        "input_width": 4,
        "input_scale": 1 / 255,
        "input_offset": 0.0,
    }
    folder.mkdir(exist_ok=True)
    (folder / "model.tflite").write_bytes(body)
    (folder / "card.json").write_text(make_card(**values | overrides).to_json(), encoding="utf-8")
    return folder


def plain(*colours: tuple[int, int, int]) -> np.ndarray:
    return np.tile(np.array(colours, dtype=np.uint8)[:, None, None, :], (1, 4, 4, 1))


def load(folder: Path, **arguments: Any) -> Model:
    return load_model(folder, **{"labels": COLOURS} | arguments)


@pytest.mark.parametrize(
    ("dtype", "scale", "zero_point", "card"),
    [
        ("float32", 1.0, 0, {"input_scale": 1 / 255, "input_offset": 0.0}),
        ("uint8", 1 / 256, 0, {"input_scale": 1.0, "input_offset": 0.0, "precision": "int8"}),
    ],
)
def test_probabilities_are_normalised_whatever_the_artefacts_number_format(
    tmp_path: Path, dtype: str, scale: float, zero_point: int, card: dict[str, Any]
) -> None:
    body = mean_colour_model(dtype=dtype, scale=scale, zero_point=zero_point)
    with load(make_unit(tmp_path, body, **card)) as model:
        result = model.predict(plain((100, 50, 50), (0, 0, 30)))
    assert result.dtype == np.float32
    assert result == pytest.approx(np.array([[0.5, 0.25, 0.25], [0, 0, 1]]), abs=1e-6)


def test_the_zero_point_is_taken_off_the_output(tmp_path: Path) -> None:
    body = mean_colour_model(dtype="uint8", scale=1 / 256, zero_point=50)
    with load(make_unit(tmp_path, body, input_scale=1.0, precision="int8")) as model:
        assert model.predict(plain((150, 100, 100))) == pytest.approx(np.array([[0.5, 0.25, 0.25]]))


def test_logits_get_a_softmax(tmp_path: Path) -> None:
    with load(make_unit(tmp_path, output="logits", input_scale=1.0)) as model:
        result = model.predict(plain((2, 1, 0), (255, 0, 0)))
    expected = np.exp([2.0, 1.0, 0.0]) / np.exp([2.0, 1.0, 0.0]).sum()
    assert result[0] == pytest.approx(expected, abs=1e-6)
    assert result[1].tolist() == [1.0, 0.0, 0.0]


def test_scale_and_offset_of_the_card_are_applied(tmp_path: Path) -> None:
    with load(make_unit(tmp_path, input_scale=0.5, input_offset=3.0)) as model:
        assert model.predict(plain((4, 0, 0))) == pytest.approx(np.array([[5 / 11, 3 / 11, 3 / 11]]))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 4, 64])
@pytest.mark.parametrize("count", [0, 1, 13])
def test_order_and_values_do_not_depend_on_batches_and_threads(
    tmp_path: Path, threads: int, batch_size: int, count: int
) -> None:
    pixels = np.random.default_rng(7).integers(1, 256, (count, 4, 4, 3), dtype=np.uint8)
    with load(make_unit(tmp_path), threads=threads) as model:
        assert len(model.runtimes) == threads
        result = model.predict(pixels, batch_size)
    means = pixels.reshape(count, 16, 3).mean(axis=1)
    assert result.shape == (count, 3)
    assert result == pytest.approx(means / means.sum(axis=1, keepdims=True), abs=1e-6)


def test_a_memory_map_is_read_in_place(tmp_path: Path) -> None:
    pixels = plain((1, 2, 1), (4, 2, 2), (1, 0, 0))
    np.save(tmp_path / "pixels.npy", pixels)
    with load(make_unit(tmp_path), threads=2) as model:
        mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
        assert np.array_equal(model.predict(mapped, 1), model.predict(pixels, 3))


@pytest.mark.parametrize(
    ("dtype", "zero_point", "card", "nothing"),
    [
        ("float32", 0, {"input_scale": 1 / 255}, (0, 0, 0)),
        ("uint8", 50, {"input_scale": 1.0, "precision": "int8"}, (50, 50, 50)),
    ],
)
def test_a_photo_that_looks_like_no_class_is_as_probable_in_each(
    tmp_path: Path, dtype: str, zero_point: int, card: dict[str, Any], nothing: tuple[int, int, int]
) -> None:
    body = mean_colour_model(dtype=dtype, scale=1 / 256, zero_point=zero_point)
    with load(make_unit(tmp_path, body, **card)) as model:
        result = model.predict(plain(nothing, (200, zero_point, zero_point)))
    assert result == pytest.approx(np.array([[1 / 3, 1 / 3, 1 / 3], [1, 0, 0]]))


@pytest.mark.parametrize("wrong", [(np.nan, 0.0, 0.0), (np.nan,) * 3, (np.inf, 0.0, 0.0), (0.5, -0.5, 0.0)])
@pytest.mark.parametrize("output", ["probabilities", "logits"])
def test_values_that_are_no_scores_are_left_for_decide_to_refuse(output: str, wrong: tuple[float, ...]) -> None:
    scores = np.array([wrong, (0.0, 0.0, 0.0)], dtype=np.float32)
    result = to_probabilities(scores, output=output)
    assert np.isfinite(result[0]).all() == (output == "logits" and bool(np.isfinite(wrong).all()))
    assert result[1] == pytest.approx(np.full(3, 1 / 3))


def test_a_failing_thread_stops_the_shard_with_its_own_error(tmp_path: Path) -> None:
    class Failing:
        class_count = 3
        calls = 0
        lock = threading.Lock()

        def predict(self, pixels: np.ndarray, spent_s: np.ndarray | None = None) -> np.ndarray:
            with self.lock:
                Failing.calls += 1
            msg = "out of luck"
            raise FatalRunError(msg)

        def close(self) -> None: ...

    card = load(make_unit(tmp_path)).card
    model = Model(card=card, labels=COLOURS, runtimes=(Failing(), Failing()))
    with pytest.raises(FatalRunError, match="out of luck"):
        model.predict(np.zeros((5000, 4, 4, 3), dtype=np.uint8), 1)
    assert Failing.calls < 5000


@pytest.mark.parametrize(
    ("pixels", "seen"),
    [
        (np.zeros((1, 5, 4, 3), dtype=np.uint8), "got uint8 of shape (1, 5, 4, 3)"),
        (np.zeros((4, 4, 3), dtype=np.uint8), "got uint8 of shape (4, 4, 3)"),
        (np.zeros((1, 4, 4, 3), dtype=np.float32), "got float32 of shape (1, 4, 4, 3)"),
    ],
)
def test_pixels_of_another_shape_are_refused(tmp_path: Path, pixels: np.ndarray, seen: str) -> None:
    with load(make_unit(tmp_path)) as model, pytest.raises(FatalRunError) as caught:
        model.predict(pixels)
    assert "takes uint8 pixels of shape (N, 4, 4, 3)" in str(caught.value)
    assert seen in str(caught.value)


def test_counts_below_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="threads must be 1 or more, got 0"):
        load(make_unit(tmp_path), threads=0)
    with load(tmp_path) as model, pytest.raises(ValueError, match="batch_size must be 1 or more, got 0"):
        model.predict(plain((1, 1, 1)), 0)


REBUILD = "restore it, or build the model again: refund model build"


def refusal(folder: Path, **arguments: Any) -> str:
    """What loading the unit is refused with."""
    with pytest.raises(ModelArtefactError) as caught:
        load(folder, **arguments)
    return str(caught.value)


def test_a_card_that_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    card = tmp_path / "card.json"
    assert refusal(tmp_path) == f"{card} is missing, expected a model card; {REBUILD}"
    make_unit(tmp_path)
    card.write_bytes(b"\xff")
    assert refusal(tmp_path) == (
        f"{card} cannot be read: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte; {REBUILD}"
    )
    card.write_text("{")
    assert refusal(tmp_path) == (
        f"{card} is not valid JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)); "
        f"restore the file, or build the model again: refund model build"
    )


def test_an_artefact_that_is_missing_altered_or_out_of_all_proportion_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_unit(tmp_path)
    artefact = tmp_path / "model.tflite"
    body = artefact.read_bytes()
    altered = body[:-1] + bytes([body[-1] ^ 1])
    artefact.write_bytes(altered)
    assert refusal(tmp_path) == (
        f"{artefact} has SHA-256 {hashlib.sha256(altered).hexdigest()}, its card says "
        f"{hashlib.sha256(body).hexdigest()}: the file was altered; {REBUILD}"
    )
    artefact.unlink()
    assert refusal(tmp_path) == f"{artefact} of model tiny@1.0-float32 is missing; {REBUILD}"
    artefact.write_bytes(bytes(11))
    monkeypatch.setattr(load_module, "MAX_ARTEFACT_BYTES", 10)
    assert refusal(tmp_path) == f"{artefact} has 11 bytes, expected at most 10; {REBUILD}"


def test_an_artefact_that_litert_cannot_read_is_refused(tmp_path: Path) -> None:
    make_unit(tmp_path, b"no model at all")
    seen = refusal(tmp_path)
    assert seen.startswith("model tiny@1.0-float32: model.tflite cannot be loaded by LiteRT: ")
    assert seen.endswith("; it matches its card, so it was built wrong: build the model again (refund model build)")


def test_a_card_for_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    make_unit(tmp_path, class_count=4)
    with pytest.raises(LabelMismatchError) as caught:
        load(tmp_path)
    assert str(caught.value) == (
        "model tiny@1.0-float32 gives 4 scores but its labels name 3 classes; rebuild and register the model with this "
        "release: refund model build"
    )


def test_a_network_with_another_number_of_outputs_is_refused(tmp_path: Path) -> None:
    two = make_labels("warm", "cold")
    make_unit(tmp_path, labels=two)
    with pytest.raises(LabelMismatchError) as caught:
        load(tmp_path, labels=two)
    assert str(caught.value) == (
        "model tiny@1.0-float32 gives 3 scores but its labels name 2 classes; rebuild and register the model with this "
        "release: refund model build"
    )


def test_another_class_list_of_the_same_length_is_refused(tmp_path: Path) -> None:
    make_unit(tmp_path)
    french = make_labels("rouge", "vert", "bleu")
    assert refusal(tmp_path, labels=french) == (
        f"model tiny@1.0-float32 was built with another class list (SHA-256 {COLOURS.sha256[:12]}…) than the present "
        f"one ({french.sha256[:12]}…), so its predictions could carry wrong names; restore "
        f"include/imagenet_classes.csv, or build the model again: refund model build"
    )


@pytest.mark.parametrize(
    ("body", "card", "expected"),
    [
        ({"side": 5}, {}, "takes input of shape [1, 5, 5, 3], its card says [1, 4, 4, 3]; build it again"),
        ({"dtype": "int8"}, {}, "takes int8 input, this code gives float32 or uint8; build it again"),
        (
            {"dtype": "uint8"},
            {"input_scale": 1.0, "input_offset": -1.0},
            "takes uint8 pixels as they are, its card says scale 1.0 and offset -1.0, expected 1 and 0; build it again",
        ),
    ],
)
def test_an_input_that_differs_from_the_card_is_refused(
    tmp_path: Path, body: dict[str, Any], card: dict[str, Any], expected: str
) -> None:
    make_unit(tmp_path, mean_colour_model(**body), **card)
    assert refusal(tmp_path) == f"model tiny@1.0-float32 {expected}"
