from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from refund.errors import LabelledSetError
from refund.model.calibration import CalibrationSet
from refund.model.convert import ConversionFailure
from refund.model.labels import load_labels
from refund.model.measure import accuracy
from refund.model.network import ALPHAS, INPUT_SIZES_PX, Network, alpha_of
from refund.model.quantise import input_error_levels, read_pixels
from refund.model.taxonomy import load_taxonomy
from tests.model.factories import make_photographs


def of(count: int, *, order: int = 1) -> CalibrationSet:
    names = [f"photo {number}".encode() for number in range(count)][::order]
    return make_photographs(count, side_px=1, sha256s=tuple(sha256(name).hexdigest() for name in names))


@pytest.mark.parametrize(
    ("count", "calibrating", "holdout"),
    [(8, 8, 0), (16, 16, 0), (40, 16, 24), (116, 16, 100), (150, 50, 100), (164, 64, 100), (250, 64, 186)],
)
def test_photographs_are_split_so_that_a_hundred_measure_where_there_are_enough(
    count: int, calibrating: int, holdout: int
) -> None:
    photographs = of(count)
    assert (len(photographs.calibrating), len(photographs.holdout)) == (calibrating, holdout)
    assert sorted(photographs.calibrating + photographs.holdout) == list(range(count))


def test_the_split_follows_the_photographs_and_not_their_order() -> None:
    forwards, backwards = of(120), of(120, order=-1)
    assert forwards.sha256 == backwards.sha256
    assert [forwards.sha256s[item] for item in forwards.holdout] == [
        backwards.sha256s[item] for item in backwards.holdout
    ]
    assert of(121).sha256 != forwards.sha256


def test_too_few_photographs_are_refused() -> None:
    with pytest.raises(LabelledSetError) as caught:
        make_photographs(7, rejected=3)
    assert str(caught.value) == (
        "photos/ holds 7 different photographs that can be decoded (3 cannot); calibration needs at least 8, and to "
        "serve int8 16 and 100 to measure with. Give more, or build without --calibrate"
    )


def test_a_photograph_counts_once() -> None:
    with pytest.raises(ValueError, match="a photograph occurs twice in a calibration set; give each once"):
        make_photographs(8, sha256s=("a" * 64,) * 8)


def test_pixels_come_in_the_order_of_the_digests() -> None:
    photographs = make_photographs(24, side_px=2)
    parts = np.concatenate(list(photographs.chunks(photographs.calibrating)))
    assert (parts == photographs.pixels[list(photographs.calibrating)]).all()
    assert (photographs.pixels_of(photographs.holdout[:1])[0] == photographs.pixels[photographs.holdout[0]]).all()


def test_accuracy_counts_only_photographs_whose_truth_is_known() -> None:
    labels = load_labels()
    taxonomy = load_taxonomy(labels=labels)
    tench, shoe = labels.class_ids[0], labels.class_ids[770]
    class_ids, categories = [None] * 24, [None] * 24
    photographs = make_photographs(24, side_px=1)
    for item, class_id in zip(photographs.holdout, (tench, shoe, shoe, None), strict=False):
        class_ids[item] = class_id
        categories[item] = None if class_id is None else taxonomy.category_of(class_id)
    photographs = make_photographs(24, side_px=1, class_ids=tuple(class_ids), categories=tuple(categories))
    probabilities = np.zeros((8, 1000), dtype=np.float32)
    probabilities[:, 770] = 1.0
    assert accuracy(probabilities, photographs, labels=labels, taxonomy=taxonomy) == {
        "top1_accuracy": pytest.approx(2 / 3),
        "top1_photos": 3.0,
        "category_accuracy": pytest.approx(2 / 3),
        "category_photos": 3.0,
    }
    assert accuracy(probabilities, make_photographs(24, side_px=1), labels=labels, taxonomy=taxonomy) == {}


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x93NUMPY\x01\x00"])
def test_a_broken_file_of_pixels_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "calibration.npy"
    path.write_bytes(content)
    with pytest.raises(ConversionFailure) as caught:
        read_pixels(path, input_px=4)
    assert caught.value.report["failure"] == "calibration"


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.zeros((0, 4, 4, 3), np.uint8), "got (0, 4, 4, 3) of uint8"),
        (
            np.zeros((2, 5, 4, 3), np.uint8),
            "expected (N, 4, 4, 3) of uint8 with N from 1 on, got (2, 5, 4, 3) of uint8",
        ),
        (np.zeros((2, 4, 4, 3), np.float32), "got (2, 4, 4, 3) of float32"),
        (np.zeros(3, np.uint8), "got (3,) of uint8"),
    ],
)
def test_pixels_of_another_shape_are_refused(tmp_path: Path, array: np.ndarray, expected: str) -> None:
    np.save(tmp_path / "calibration.npy", array, allow_pickle=False)
    with pytest.raises(ConversionFailure) as caught:
        read_pixels(tmp_path / "calibration.npy", input_px=4)
    assert expected in caught.value.report["detail"]


def test_a_pickle_is_never_read(tmp_path: Path) -> None:
    np.save(tmp_path / "calibration.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ConversionFailure) as caught:
        read_pixels(tmp_path / "calibration.npy", input_px=4)
    assert (
        "Object arrays cannot be loaded" in caught.value.report["detail"] or "memory" in caught.value.report["detail"]
    )


@pytest.mark.parametrize(
    ("scale", "zero_point", "expected"), [(1 / 127.5, 127, 0.5), (1 / 127.5, 128, 0.5), (1.1 / 127.5, 127, 13.3)]
)
def test_what_int8_reads_from_a_pixel_is_compared_with_what_float32_is_given(
    scale: float, zero_point: int, expected: float
) -> None:
    assert input_error_levels(scale, zero_point) == pytest.approx(expected, abs=1e-3)


def test_every_published_network_has_a_file_of_its_own_and_is_told_by_two_layers() -> None:
    names = {Network(alpha=alpha, input_px=side).weights_file for alpha in ALPHAS for side in INPUT_SIZES_PX}
    assert len(names) == 30
    assert Network(alpha=0.35, input_px=96).weights_file == (
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_96.h5"
    )
    assert Network().weights_file == "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5"
    first_and_second = [(16, 8), (16, 16), (24, 24), (32, 24), (40, 32), (48, 32)]  # as Keras 3.15 makes them
    assert [alpha_of(first=first, second=second) for first, second in first_and_second] == list(ALPHAS)
    assert alpha_of(first=64, second=64) is None
