from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refund.errors import (
    ConfigurationError,
    LabelledSetError,
    LabelMismatchError,
    ModelArtefactError,
    SettingsError,
    WeightsDownloadError,
)
from refund.model import conversion
from refund.model.build import build_model, build_models
from refund.model.child import child_environment
from refund.model.conversion import raise_failure
from refund.model.labels import load_labels
from refund.model.load import load_model, read_card
from refund.model.network import Network
from refund.model.runtimes.keras import KerasRuntime
from tests.model.factories import imagenet_photographs, make_card, make_labels, make_photographs

HELP = "expected Keras weights of MobileNetV2 (alpha 1.0, 224x224, 1,000 classes) in an .h5 file"


def test_a_built_unit_names_its_source_and_its_content(standin_model: Path) -> None:
    card = read_card(standin_model)
    assert re.fullmatch(r"mobilenet_v2@1\.0_224-float32-[0-9a-f]{8}", card.key)
    assert card.version.endswith(card.artefact_sha256[:8])
    assert card.source_sha256 == "815beb34e388494a301134caa65a121de3f783a7155525e744fd4671fe8a32d4"
    assert card.labels_sha256 == load_labels().sha256
    assert set(card.built_with) == {"keras", "machine", "numpy", "refund", "tensorflow"}
    assert card.metrics["max_probability_difference"] <= 1e-4
    assert sorted(path.name for path in standin_model.iterdir()) == ["card.json", "model.tflite"]
    assert sorted(path.name for path in standin_model.parent.iterdir()) == ["float32", "int8"]
    assert [path.name for path in standin_model.parent.parent.iterdir()] == ["standin"]  # no leftovers beside it


def test_a_target_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    with pytest.raises(ConfigurationError, match="exists and is not empty; a model is never overwritten"):
        build_model(tmp_path, weights=None, allow_fallback=True)
    assert (tmp_path / "precious").read_text() == "x"


def test_no_source_of_weights_is_an_error_not_a_guess(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no weights were given and neither download nor packaged network"):
        build_model(tmp_path / "unit", weights=None, allow_download=False, allow_fallback=False)


@pytest.mark.parametrize(
    ("name", "body", "expected"),
    [
        ("gone.h5", None, "gone.h5 is missing; " + HELP),
        ("model.keras", b"PK", "model.keras is no .h5 file; " + HELP),
        ("weights.pkl", b"\x80\x04.", "weights.pkl is no .h5 file; " + HELP),
        ("page.h5", b"<!DOCTYPE html>", "page.h5 begins with b'<!DOCTYP', which is no HDF5; " + HELP),
        ("empty.h5", b"", "empty.h5 begins with b'', which is no HDF5; " + HELP),
    ],
)
def test_what_cannot_be_weights_is_refused_before_tensorflow_starts(
    tmp_path: Path, name: str, body: bytes | None, expected: str
) -> None:
    weights = tmp_path / name
    if body is not None:
        weights.write_bytes(body)
    told: list[str] = []
    with pytest.raises(ModelArtefactError) as caught:
        build_model(tmp_path / "unit", weights=weights, allow_fallback=True, progress=told.append)
    assert expected in str(caught.value)
    assert "correct REFUND_WEIGHTS, or unset it" in str(caught.value)
    assert told == []
    assert not (tmp_path / "unit").exists()


def test_truncated_weights_are_refused_and_nothing_else_is_tried(shared: Path, tmp_path: Path) -> None:
    weights = tmp_path / "half.h5"
    weights.write_bytes((shared / "models" / "mobilenet_v2_standin.h5").read_bytes()[:7_000_000])
    told: list[str] = []
    with pytest.raises(ModelArtefactError) as caught:
        build_model(tmp_path / "unit", weights=weights, allow_fallback=True, progress=told.append)
    assert f"{weights} cannot be read as HDF5" in str(caught.value)
    assert told == []
    assert [path.name for path in tmp_path.iterdir()] == ["half.h5"]


@pytest.mark.slow
def test_weights_that_lack_a_layer_are_refused(shared: Path, tmp_path: Path) -> None:
    import h5py

    weights = tmp_path / "other.h5"
    shutil.copyfile(shared / "models" / "mobilenet_v2_standin.h5", weights)
    weights.chmod(0o600)
    with h5py.File(weights, "r+") as opened:
        opened.attrs["layer_names"] = opened.attrs["layer_names"][:-1]
    with pytest.raises(ModelArtefactError) as caught:
        build_model(tmp_path / "unit", weights=weights, allow_fallback=False)
    assert "does not fit the network: Layer count mismatch" in str(caught.value)
    assert HELP in str(caught.value)


@pytest.mark.slow
def test_weights_that_are_not_numbers_are_refused(shared: Path, tmp_path: Path) -> None:
    import h5py
    import numpy as np

    weights = tmp_path / "nan.h5"
    shutil.copyfile(shared / "models" / "mobilenet_v2_standin.h5", weights)
    weights.chmod(0o600)
    with h5py.File(weights, "r+") as opened:
        kernels: list[Any] = []
        opened.visititems(lambda _, item: kernels.append(item) if isinstance(item, h5py.Dataset) else None)
        kernels[0][...] = np.nan
    with pytest.raises(ModelArtefactError, match="does not fit the network: some weights are not finite numbers"):
        build_model(tmp_path / "unit", weights=weights, allow_fallback=False)


@pytest.mark.slow
def test_name_version_and_time_can_be_given(shared: Path, tmp_path: Path) -> None:
    weights = shared / "models" / "mobilenet_v2_standin.h5"
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    card = build_model(
        tmp_path / "unit", weights=weights, allow_fallback=False, name="mine", version="7", created_at=moment
    )
    assert (card.key, card.created_at) == ("mine@7", "2026-01-02T03:04:05+00:00")
    assert read_card(tmp_path / "unit") == card


@pytest.fixture
def closed_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Downloads by the build's child are refused at once, wherever the test runs."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))


@pytest.mark.usefixtures("closed_proxy")
def test_without_a_download_or_a_fallback_both_ways_out_are_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsDownloadError) as caught:
        build_model(tmp_path / "unit", weights=None, allow_fallback=False)
    assert "Keras could not download the weights of MobileNetV2: URL fetch failure on https://" in str(caught.value)
    assert "Let this machine reach that address, or give a file: REFUND_WEIGHTS=FILE.h5." in str(caught.value)
    assert not (tmp_path / "unit").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("closed_proxy")
def test_a_server_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for name in ("https_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(WeightsDownloadError, match="timed out"):
            build_model(tmp_path / "unit", weights=None, allow_fallback=False)


def test_the_packaged_network_takes_over_only_aloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> dict[str, Any]:
        return {"failure": "download", "detail": "no route"}

    monkeypatch.setattr(conversion, "run_child", refused)
    told: list[str] = []
    card = build_model(tmp_path / "unit", weights=None, allow_fallback=True, progress=told.append)
    assert card.name == "efficientnet_lite0"
    assert "no route" in told[0]
    assert told[0].endswith("Using the packaged network efficientnet_lite0 instead.")


def test_a_class_list_of_another_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelMismatchError, match="gives 1000 scores but its labels name 2 classes"):
        build_model(
            tmp_path / "unit", weights=None, allow_download=False, allow_fallback=True, labels=make_labels("a", "b")
        )
    assert not (tmp_path / "unit").exists()


def test_a_name_that_the_registry_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="the model cannot be named so: name must be text like"):
        build_model(tmp_path / "unit", weights=None, allow_fallback=True, name="My Model")


@pytest.mark.parametrize(
    ("failure", "kind", "expected"),
    [
        ("no_tensorflow", ConfigurationError, "TensorFlow cannot be imported: why; install it: pip install 'refund"),
        ("download", WeightsDownloadError, "could not download the weights of MobileNetV2: why. Let this machine"),
        ("corrupt", ModelArtefactError, "/k/w.h5 cannot be read as HDF5: why; .*; remove /k/w.h5 and build again"),
        (
            "calibration",
            LabelledSetError,
            "the pixels decoded for calibration cannot be read back: why; free some disk",
        ),
        (
            "not_integer",
            ModelArtefactError,
            "the int8 artefact made from the downloaded weights is not full-integer, .*",
        ),
        ("died", ModelArtefactError, r"converts the downloaded weights ended early \(why\); it needs about 1\.4 GB"),
    ],
)
def test_every_failure_of_the_conversion_tells_the_way_out(failure: str, kind: type[Exception], expected: str) -> None:
    with pytest.raises(kind, match=expected):
        raise_failure({"failure": failure, "detail": "why", "path": "/k/w.h5"}, weights=None, network=Network())


def test_weights_of_another_alpha_are_named_before_tensorflow_starts(shared: Path, tmp_path: Path) -> None:
    weights = shared / "models" / "mobilenet_v2_standin.h5"
    told: list[str] = []
    with pytest.raises(ModelArtefactError) as caught:
        build_model(tmp_path / "unit", weights=weights, alpha=0.5, allow_fallback=False, progress=told.append)
    assert str(caught.value) == (
        f"{weights} does not fit the network: these seem to be weights of alpha 1.0, asked was alpha 0.5 (--alpha 1.0 "
        f"reads them); expected Keras weights of MobileNetV2 (alpha 0.5, 224x224, 1,000 classes) in an .h5 file; "
        f"correct REFUND_WEIGHTS, or unset it to let Keras download its own"
    )
    assert told == []


def test_weights_of_another_architecture_are_named_before_tensorflow_starts(tmp_path: Path) -> None:
    import h5py

    weights = tmp_path / "resnet.h5"
    with h5py.File(weights, "w") as opened:
        opened.attrs["layer_names"] = ["conv1_conv", "conv1_bn"]
        opened.create_group("conv1_conv")
    with pytest.raises(
        ModelArtefactError, match="it has no layer Conv1, so it is no MobileNetV2; its first layers: conv1"
    ):
        build_model(tmp_path / "unit", weights=weights, allow_fallback=False)


@pytest.mark.parametrize(
    ("alpha", "input_px", "expected"),
    [
        (0.6, 224, "alpha must be 0.35, 0.5, 0.75, 1.0, 1.3 or 1.4, got 0.6; correct --alpha and --input-px"),
        (1.0, 200, "the input's side must be 96, 128, 160, 192 or 224 px, got 200; correct --alpha and --input-px"),
    ],
)
def test_a_network_that_keras_does_not_know_is_refused(
    tmp_path: Path, alpha: float, input_px: int, expected: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        build_model(tmp_path / "unit", weights=None, alpha=alpha, input_px=input_px, allow_fallback=False)
    assert str(caught.value) == f"there is no such MobileNetV2: {expected}"


def test_weights_that_keras_does_not_publish_are_not_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build_model(tmp_path / "unit", weights=None, alpha=1.4, input_px=96, allow_fallback=False)
    assert str(caught.value) == (
        "Keras publishes no weights of alpha 1.4 at 96 px, only at 224; give --input-px 224, or a file of your own: "
        "--weights FILE.h5"
    )


def test_a_conversion_that_is_killed_leaves_nothing(shared: Path, tmp_path: Path) -> None:
    import psutil

    def kill(_: str) -> None:
        for child in psutil.Process().children():
            if "refund.model.convert_child" in child.cmdline():
                child.kill()

    weights = shared / "models" / "mobilenet_v2_standin.h5"
    with pytest.raises(
        ModelArtefactError, match=r"ended early \(exit code -9: it said nothing\); it needs about 1\.4 GB"
    ):
        build_models(tmp_path / "units", weights=weights, calibration=make_photographs(24, side_px=224), progress=kill)
    assert list(tmp_path.iterdir()) == []


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
def test_the_same_inputs_give_the_same_bytes(shared: Path, standin_models: Path, tmp_path: Path) -> None:
    weights = shared / "models" / "mobilenet_v2_standin.h5"
    built = build_models(tmp_path / "again", weights=weights, calibration=imagenet_photographs(shared))
    for card in built.cards:
        before = read_card(standin_models / card.precision)
        assert (card.key, card.artefact_sha256) == (before.key, before.artefact_sha256)
        assert card.inputs_sha256 == before.inputs_sha256


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
        build_model(tmp_path / "wrong", weights=tiny_weights, allow_fallback=False)


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
