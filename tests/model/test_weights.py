"""Weights that are missing, damaged, of another network or not to be had: what was seen, and the way out."""

from __future__ import annotations

import re
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from refund.errors import (
    ConfigurationError,
    LabelledSetError,
    ModelArtefactError,
    SettingsError,
    WeightsDownloadError,
)
from refund.model.build import build_models
from refund.model.conversion import raise_failure
from refund.model.network import Network

HELP = "expected Keras weights of MobileNetV2 (alpha 1.0, 224x224, 1,000 classes) in an .h5 file"
FIX = "correct --weights or REFUND_WEIGHTS, or give neither to let Keras download its own"


@pytest.mark.parametrize(
    ("name", "body", "expected"),
    [
        ("gone.h5", None, "is missing"),
        ("model.keras", b"PK", "is no .h5 file"),
        ("weights.pkl", b"\x80\x04.", "is no .h5 file"),
        ("page.h5", b"<!DOCTYPE html>", "begins with b'<!DOCTYP', which is no HDF5"),
        ("empty.h5", b"", "begins with b'', which is no HDF5"),
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
        build_models(tmp_path / "unit", weights=weights, allow_fallback=True, progress=told.append)
    assert str(caught.value) == f"{weights} {expected}; {HELP}; {FIX}"
    assert told == []
    assert not (tmp_path / "unit").exists()


def test_truncated_weights_are_refused_and_nothing_else_is_tried(shared: Path, tmp_path: Path) -> None:
    weights = tmp_path / "half.h5"
    weights.write_bytes((shared / "models" / "mobilenet_v2_standin.h5").read_bytes()[:7_000_000])
    told: list[str] = []
    with pytest.raises(ModelArtefactError) as caught:
        build_models(tmp_path / "unit", weights=weights, allow_fallback=True, progress=told.append)
    assert re.fullmatch(
        rf"{re.escape(str(weights))} cannot be read as HDF5: [^;]*truncated file[^;]*; {re.escape(f'{HELP}; {FIX}')}",
        str(caught.value),
    )
    assert told == []
    assert [path.name for path in tmp_path.iterdir()] == ["half.h5"]


@pytest.fixture
def own_weights(shared: Path, tmp_path: Path) -> Path:
    """A copy of the stand-in's weights that a test may spoil."""
    weights = tmp_path / "own.h5"
    shutil.copyfile(shared / "models" / "mobilenet_v2_standin.h5", weights)
    weights.chmod(0o600)
    return weights


@pytest.mark.slow
def test_weights_that_lack_a_layer_are_refused(own_weights: Path, tmp_path: Path) -> None:
    import h5py

    with h5py.File(own_weights, "r+") as opened:
        opened.attrs["layer_names"] = opened.attrs["layer_names"][:-1]
    with pytest.raises(ModelArtefactError) as caught:
        build_models(tmp_path / "units", weights=own_weights)
    assert str(caught.value).startswith(f"{own_weights} does not fit the network: Layer count mismatch")
    assert str(caught.value).endswith(f"; {HELP}; {FIX}")


@pytest.mark.slow
def test_weights_that_are_not_numbers_are_refused(own_weights: Path, tmp_path: Path) -> None:
    import h5py
    import numpy as np

    with h5py.File(own_weights, "r+") as opened:
        kernels: list[Any] = []
        opened.visititems(lambda _, item: kernels.append(item) if isinstance(item, h5py.Dataset) else None)
        kernels[0][...] = np.nan
    with pytest.raises(ModelArtefactError) as caught:
        build_models(tmp_path / "units", weights=own_weights)
    assert str(caught.value) == (
        f"{own_weights} does not fit the network: some weights are not finite numbers; {HELP}; {FIX}"
    )


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


@pytest.mark.slow
@pytest.mark.usefixtures("closed_proxy")
def test_without_a_download_or_a_fallback_both_ways_out_are_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsDownloadError) as caught:
        build_models(tmp_path / "unit", weights=None)
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
            build_models(tmp_path / "unit", weights=None)


@pytest.mark.parametrize(
    ("failure", "kind", "expected"),
    [
        (
            "no_tensorflow",
            ConfigurationError,
            "TensorFlow cannot be imported: why; install it: pip install 'refund[build]'",
        ),
        (
            "download",
            WeightsDownloadError,
            "Keras could not download the weights of MobileNetV2: why. Let this machine reach that address, or give a "
            "file: REFUND_WEIGHTS=FILE.h5.",
        ),
        (
            "corrupt",
            ModelArtefactError,
            f"/k/w.h5 cannot be read as HDF5: why; {HELP}; remove /k/w.h5 and build again",
        ),
        ("mismatch", ModelArtefactError, f"the downloaded file does not fit the network: why; {HELP}; {FIX}"),
        (
            "calibration",
            LabelledSetError,
            "the pixels decoded for calibration cannot be read back: why; free some disk space and build again",
        ),
        (
            "not_integer",
            ModelArtefactError,
            "the int8 artefact made from the downloaded file is not full-integer, per channel, uint8 in, float32 "
            "out: why; reinstall TensorFlow from requirements.txt, or build without --calibrate",
        ),
        (
            "died",
            ModelArtefactError,
            "the process that converts the downloaded file ended early (why); it needs about 1.4 GB of memory and "
            "up to 900 s. Free some and build again",
        ),
    ],
)
def test_every_failure_of_the_conversion_tells_the_way_out(failure: str, kind: type[Exception], expected: str) -> None:
    with pytest.raises(kind) as caught:
        raise_failure({"failure": failure, "detail": "why", "path": "/k/w.h5"}, weights=None, network=Network())
    assert str(caught.value) == expected


def test_weights_of_another_alpha_are_named_before_tensorflow_starts(shared: Path, tmp_path: Path) -> None:
    weights = shared / "models" / "mobilenet_v2_standin.h5"
    told: list[str] = []
    with pytest.raises(ModelArtefactError) as caught:
        build_models(tmp_path / "unit", weights=weights, alpha=0.5, progress=told.append)
    assert str(caught.value) == (
        f"{weights} does not fit the network: these seem to be weights of alpha 1.0, asked was alpha 0.5 (--alpha 1.0 "
        f"reads them); expected Keras weights of MobileNetV2 (alpha 0.5, 224x224, 1,000 classes) in an .h5 file; "
        f"{FIX}"
    )
    assert told == []


def test_weights_of_another_architecture_are_named_before_tensorflow_starts(tmp_path: Path) -> None:
    import h5py

    weights = tmp_path / "resnet.h5"
    with h5py.File(weights, "w") as opened:
        opened.attrs["layer_names"] = ["conv1_conv", "conv1_bn"]
        opened.create_group("conv1_conv")
    with pytest.raises(ModelArtefactError) as caught:
        build_models(tmp_path / "unit", weights=weights)
    assert str(caught.value) == (
        f"{weights} does not fit the network: it has no layer Conv1, so it is no MobileNetV2; its first layers: "
        f"conv1_conv; {HELP}; {FIX}"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["resnet.h5"]


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
        build_models(tmp_path / "unit", weights=None, alpha=alpha, input_px=input_px)
    assert str(caught.value) == f"there is no such MobileNetV2: {expected}"


def test_weights_that_keras_does_not_publish_are_not_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build_models(tmp_path / "unit", weights=None, alpha=1.4, input_px=96)
    assert str(caught.value) == (
        "Keras publishes no weights of alpha 1.4 at 96 px, only at 224; give --input-px 224, or a file of your own: "
        "--weights FILE.h5"
    )
