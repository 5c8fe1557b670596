"""Builds: what a unit says of itself, that it appears whole or not at all, and that nothing is guessed."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refund.errors import ConfigurationError, LabelMismatchError, ModelArtefactError
from refund.model import conversion, fallback
from refund.model.build import build_models
from refund.model.child import child_environment
from refund.model.labels import load_labels
from refund.model.load import load_model, read_card
from refund.model.runtimes.keras import KerasRuntime
from tests.model.factories import make_card, make_labels, make_photographs


@pytest.fixture
def fetched(fallback_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The packaged network is at hand: it was fetched and checked once, for `fallback_model`."""
    monkeypatch.setattr(fallback, "fetch_fallback", lambda _: (fallback_model / "model.tflite").read_bytes())


@pytest.mark.slow
def test_a_built_unit_names_its_source_and_its_content(standin_model: Path) -> None:
    card = read_card(standin_model)
    assert re.fullmatch(r"mobilenet_v2@1\.0_224-float32-[0-9a-f]{8}", card.key)
    assert card.version.endswith(card.artefact_sha256[:8])
    assert card.source_sha256 == "815beb34e388494a301134caa65a121de3f783a7155525e744fd4671fe8a32d4"
    assert card.labels_sha256 == load_labels().sha256
    assert set(card.built_with) == {"keras", "machine", "numpy", "refund", "tensorflow"}
    assert card.metrics["max_probability_difference"] <= 1e-4
    assert sorted(path.name for path in standin_model.iterdir()) == ["card.json", "model.tflite"]
    assert [path.name for path in standin_model.parent.iterdir()] == ["float32"]
    assert [path.name for path in standin_model.parent.parent.iterdir()] == ["float32-alone"]  # no leftovers beside it


def test_a_target_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    with pytest.raises(ConfigurationError) as caught:
        build_models(tmp_path, weights=None, allow_fallback=True)
    assert str(caught.value) == (
        f"{tmp_path} exists and is not empty; a model is never overwritten: choose another folder or remove it"
    )
    assert (tmp_path / "precious").read_text() == "x"


def test_no_source_of_weights_is_an_error_not_a_guess(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build_models(tmp_path / "units", weights=None, allow_download=False)
    assert str(caught.value) == (
        "no weights were given and neither download nor packaged network is allowed; correct --weights or "
        "REFUND_WEIGHTS, or give neither to let Keras download its own"
    )


@pytest.mark.usefixtures("fetched")
def test_version_and_time_can_be_given(tmp_path: Path) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    built = build_models(
        tmp_path / "units",
        weights=None,
        allow_download=False,
        allow_fallback=True,
        version="7",
        created_at=moment,
    )
    card = built.served
    assert (card.key, card.created_at) == ("efficientnet_lite0@7-int8", "2026-01-02T03:04:05+00:00")
    assert read_card(tmp_path / "units" / "int8") == card


@pytest.mark.usefixtures("fetched")
@pytest.mark.parametrize("count", [0, 24], ids=["alone", "with photographs"])
def test_the_packaged_network_takes_over_only_aloud(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> dict[str, Any]:
        return {"failure": "download", "detail": "no route"}

    monkeypatch.setattr(conversion, "run_child", refused)
    told: list[str] = []
    photographs = make_photographs(count, side_px=224) if count else None
    built = build_models(
        tmp_path / "units", weights=None, calibration=photographs, allow_fallback=True, progress=told.append
    )
    assert (built.float32, built.served.name) == (None, "efficientnet_lite0")
    assert built.reason == "the packaged network is int8 as it comes"
    assert [path.name for path in (tmp_path / "units").iterdir()] == ["int8"]
    assert told[0] == (
        "Keras could not download the weights of MobileNetV2: no route. Let this machine reach that address, or give a "
        "file: REFUND_WEIGHTS=FILE.h5. Using the packaged network efficientnet_lite0 instead."
    )
    unused = "the packaged network comes quantised, so the photographs given are not used"
    assert (unused in told) == bool(count)


@pytest.mark.usefixtures("fetched")
def test_a_class_list_of_another_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelMismatchError) as caught:
        build_models(
            tmp_path / "units", weights=None, allow_download=False, allow_fallback=True, labels=make_labels("a", "b")
        )
    assert str(caught.value) == (
        "model efficientnet_lite0@1.0.0-int8-aa03e401 gives 1000 scores but its labels name 2 classes; rebuild and "
        "register the model with this release: refund model build"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_version_that_the_registry_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build_models(tmp_path / "units", weights=None, allow_fallback=True, version="My Model")
    assert str(caught.value) == (
        "the model cannot be named so: version must be text like [A-Za-z0-9][A-Za-z0-9._+-]{0,79}, got 'My Model'; "
        "choose another version"
    )


def test_a_conversion_that_is_killed_leaves_nothing(shared: Path, tmp_path: Path) -> None:
    import psutil

    def kill(_: str) -> None:
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.NoSuchProcess):  # ended since it was listed
                if "refund.model.convert_child" in child.cmdline():
                    child.kill()

    weights = shared / "models" / "mobilenet_v2_standin.h5"
    with pytest.raises(
        ModelArtefactError, match=r"ended early \(exit code -9: it said nothing\); it needs about 1\.4 GB"
    ):
        build_models(tmp_path / "units", weights=weights, calibration=make_photographs(24, side_px=224), progress=kill)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_int8_card_tells_how_far_it_agrees_and_what_it_costs(standin_models: Path) -> None:
    float32, int8 = read_card(standin_models / "float32"), read_card(standin_models / "int8")
    assert re.fullmatch(r"mobilenet_v2@1\.0_224-int8-[0-9a-f]{8}", int8.key)
    assert (int8.input_scale, int8.input_offset, int8.output, int8.alpha) == (1.0, 0.0, "logits", 1.0)
    assert int8.agreement is not None
    assert (int8.agreement.state, int8.agreement.reference, int8.agreement.photos) == ("passed", float32.key, 186)
    assert int8.agreement.top1_ratio == int8.metrics["top1_agreement"] >= 0.95
    assert int8.calibration is not None
    assert (int8.calibration["photos"], int8.calibration["holdout_photos"]) == (64, 186)
    assert int8.metrics["max_input_error_levels"] == pytest.approx(0.5, abs=0.01)
    assert float32.metrics["artefact_bytes"] > 3 * int8.metrics["artefact_bytes"]
    for card in (float32, int8):
        assert card.metrics["latency_ms_per_photo"] > 0
        assert card.metrics["top1_accuracy"] >= 0.82
        assert card.metrics["category_accuracy"] >= 0.88
        assert card.metrics["top1_photos"] == card.metrics["category_photos"] == 186
    assert float32.inputs_sha256 != int8.inputs_sha256
    assert (float32.agreement, float32.calibration) == (None, None)


@pytest.mark.slow
def test_the_same_weights_give_the_same_bytes_in_another_process(standin_model: Path, standin_models: Path) -> None:
    """And int8 of the same photographs, in tests/lifecycle/test_build.py."""
    first, second = read_card(standin_model), read_card(standin_models / "float32")
    assert (standin_model / "model.tflite").read_bytes() == (standin_models / "float32" / "model.tflite").read_bytes()
    assert (first.key, first.inputs_sha256) == (second.key, second.inputs_sha256)


@pytest.mark.slow
def test_a_narrow_network_of_small_input_is_built_and_runs_as_keras_runs_it(tiny_weights: Path, tmp_path: Path) -> None:
    photographs = make_photographs(24, side_px=96)
    built = build_models(
        tmp_path / "units", weights=tiny_weights, alpha=0.35, input_px=96, calibration=photographs, version="7"
    )
    assert [card.key for card in built.cards] == ["mobilenet_v2@7-float32", "mobilenet_v2@7-int8"]
    assert built.int8 is not None
    assert built.int8.agreement is not None
    assert (built.int8.agreement.state, built.int8.agreement.photos) == ("not_assessed", 8)
    assert built.served == built.float32
    assert built.reason.endswith("required are 95% of at least 100: not assessed")
    keras = KerasRuntime(tiny_weights, card=make_card(runtime="keras", alpha=0.35, input_height=96, input_width=96))
    with load_model(tmp_path / "units" / "float32") as model, load_model(tmp_path / "units" / "int8") as int8:
        reference = keras.predict(photographs.pixels)
        assert np.abs(model.predict(photographs.pixels) - reference).max() < 1e-4
        assert int8.predict(photographs.pixels).sum(axis=1) == pytest.approx(1.0)
    keras.close()
    with pytest.raises(ModelArtefactError, match="does not fit the network"):
        build_models(tmp_path / "wrong", weights=tiny_weights)


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of alpha 0.35 for 96 px, in Keras's present format, from a process of its own."""
    path = tmp_path_factory.mktemp("weights") / "tiny.weights.h5"
    program = (
        "import sys, keras; keras.utils.set_random_seed(0); "
        "keras.applications.MobileNetV2(input_shape=(96, 96, 3), alpha=0.35, weights=None).save_weights(sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], env=child_environment(), check=True, capture_output=True)
    return path
