from __future__ import annotations

import re
import shutil
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from refund.errors import ConfigurationError, LabelMismatchError, ModelArtefactError, WeightsDownloadError
from refund.model import build
from refund.model.build import _raise_failure, build_model
from refund.model.labels import load_labels
from refund.model.load import read_card
from tests.model.factories import make_labels

HELP = "expected Keras weights of MobileNetV2 (alpha 1.0, 224x224, 1,000 classes) in an .h5 file"


def test_a_built_unit_names_its_source_and_its_content(standin_model: Path) -> None:
    card = read_card(standin_model)
    assert re.fullmatch(r"mobilenet_v2@1\.0_224-float32-[0-9a-f]{8}", card.key)
    assert card.version.endswith(card.artefact_sha256[:8])
    assert card.source_sha256 == "815beb34e388494a301134caa65a121de3f783a7155525e744fd4671fe8a32d4"
    assert card.labels_sha256 == load_labels().sha256
    assert set(card.built_with) == {"keras", "refund", "tensorflow"}
    assert card.metrics["max_probability_difference"] <= 1e-4
    assert sorted(path.name for path in standin_model.iterdir()) == ["card.json", "model.tflite"]
    assert [path.name for path in standin_model.parent.iterdir()] == ["standin"]  # no leftovers beside it


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


@pytest.mark.slow
def test_truncated_weights_are_refused_and_nothing_else_is_tried(shared: Path, tmp_path: Path) -> None:
    weights = tmp_path / "half.h5"
    weights.write_bytes((shared / "models" / "mobilenet_v2_standin.h5").read_bytes()[:7_000_000])
    told: list[str] = []
    with pytest.raises(ModelArtefactError) as caught:
        build_model(tmp_path / "unit", weights=weights, allow_fallback=True, progress=told.append)
    assert f"{weights} cannot be read as HDF5" in str(caught.value)
    assert told == ["starting TensorFlow", "reading half.h5"]
    assert [path.name for path in tmp_path.iterdir()] == ["half.h5"]


@pytest.mark.slow
def test_weights_of_another_network_are_refused(shared: Path, tmp_path: Path) -> None:
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

    monkeypatch.setattr(build, "_run_child", refused)
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
        ("died", ModelArtefactError, r"converts the downloaded weights ended early \(why\); it needs about 1\.4 GB"),
    ],
)
def test_every_failure_of_the_conversion_tells_the_way_out(failure: str, kind: type[Exception], expected: str) -> None:
    with pytest.raises(kind, match=expected):
        _raise_failure({"failure": failure, "detail": "why", "path": "/k/w.h5"}, None)
