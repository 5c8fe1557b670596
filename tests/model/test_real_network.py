"""The real network: Keras and LiteRT agree, and photographs get the label in their file name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from refund.errors import FatalRunError, ModelArtefactError
from refund.imaging.decode import decode_rgb
from refund.model.labels import load_labels
from refund.model.load import load_model
from refund.model.runtimes.keras import KerasRuntime
from refund.records import ImageLimits
from tests.model.factories import make_card


def photographs(shared: Path) -> list[Path]:
    return sorted((shared / "images" / "imagenet").glob("*.JPEG"))


def decode(paths: list[Path]) -> np.ndarray:
    return np.stack([decode_rgb(path.read_bytes(), limits=ImageLimits()).pixels for path in paths])


@pytest.fixture(scope="module")
def keras_runtime(shared: Path) -> Iterator[KerasRuntime]:
    runtime = KerasRuntime(shared / "models" / "mobilenet_v2_standin.h5", card=make_card(runtime="keras"))
    yield runtime
    runtime.close()


@pytest.mark.slow  # Keras alone takes 8 s to start; a build compares the two on noise
def test_litert_agrees_with_keras(shared: Path, standin_model: Path, keras_runtime: KerasRuntime) -> None:
    pixels = decode(photographs(shared)[::25])
    assert len(pixels) == 10
    reference = keras_runtime.predict(pixels)
    with load_model(standin_model) as model:
        result = model.predict(pixels)
    assert result.argmax(axis=1).tolist() == reference.argmax(axis=1).tolist()
    assert np.abs(result - reference).max() < 1e-4


@pytest.mark.slow
def test_keras_takes_no_photos_and_more_than_one_message(keras_runtime: KerasRuntime) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (33, 224, 224, 3), dtype=np.uint8)
    assert keras_runtime.predict(pixels[:0]).shape == (0, 1000)
    result = keras_runtime.predict(pixels)
    assert result.shape == (33, 1000)
    assert result[32] == pytest.approx(keras_runtime.predict(pixels[32:])[0], abs=1e-5)


@pytest.mark.slow
def test_a_keras_process_that_died_or_was_closed_says_so(shared: Path) -> None:
    runtime = KerasRuntime(shared / "models" / "mobilenet_v2_standin.h5", card=make_card(runtime="keras"))
    runtime._child.kill()
    pixels = np.zeros((1, 224, 224, 3), dtype=np.uint8)
    with pytest.raises(FatalRunError, match=r"the Keras process of model tiny@1\.0-float32 ended early: .*; run it ag"):
        runtime.predict(pixels)
    runtime.close()
    with pytest.raises(FatalRunError, match="ended early: it was closed before; run it again"):
        runtime.predict(pixels)


@pytest.mark.slow
def test_weights_that_keras_cannot_load_are_refused(tmp_path: Path) -> None:
    weights = tmp_path / "broken.h5"
    weights.write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(ModelArtefactError, match=r"Keras could not load broken\.h5: OSError: Unable to"):
        KerasRuntime(weights, card=make_card(runtime="keras"))


@pytest.mark.parametrize(("unit", "expected"), [("standin_model", 0.76), ("fallback_model", 0.70)])
def test_photographs_get_the_label_in_their_file_name(
    shared: Path, request: pytest.FixtureRequest, unit: str, expected: float
) -> None:
    """Every fifth of them (the stand-in has 0.78 there); tests/lifecycle/test_evaluate.py measures int8 and all 250."""
    labels = load_labels()
    paths = photographs(shared)[::5]
    wanted = np.array([labels.class_ids.index(path.name.partition("_")[0]) for path in paths])
    with load_model(request.getfixturevalue(unit), threads=2) as model:
        top = model.predict(decode(paths)).argmax(axis=1)
    assert (top == wanted).mean() >= expected
