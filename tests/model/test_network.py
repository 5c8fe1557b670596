"""The networks that can be named are those that the installed Keras knows, and their widths are told by two layers."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from refund.model.child import child_environment
from refund.model.network import ALPHAS, INPUT_SIZES_PX, Network, alpha_of


@pytest.fixture(scope="module")
def keras_source() -> str:
    """Keras's MobileNetV2, read and not imported."""
    spec = find_spec("keras")
    if spec is None or spec.origin is None:
        pytest.skip("Keras is not installed")
    path = Path(spec.origin).parent / "src" / "applications" / "mobilenet_v2.py"
    return path.read_text(encoding="utf-8")


def test_widths_sizes_and_file_names_are_those_of_keras(keras_source: str) -> None:
    (alphas,) = set(re.findall(r"if alpha not in (\[[^]]+\])", keras_source))
    assert tuple(ast.literal_eval(alphas)) == ALPHAS
    sizes = set(re.findall(r"rows (?:not )?in (\[[^]]+\])", keras_source))
    assert [tuple(ast.literal_eval(size)) for size in sizes] == [INPUT_SIZES_PX]
    prefix = Network().weights_file.removesuffix("_1.0_224.h5")
    assert f'"{prefix}"' in keras_source
    assert "_{float(alpha)}_{rows}.h5" in keras_source


def test_the_22_networks_that_their_authors_trained_are_published() -> None:
    published = {
        (alpha, side) for alpha in ALPHAS for side in INPUT_SIZES_PX if Network(alpha=alpha, input_px=side).is_published
    }
    assert len(published) == 22
    assert {side for alpha, side in published if alpha > 1.0} == {224}


@pytest.mark.slow
def test_every_width_is_told_by_the_channels_that_keras_gives_two_layers() -> None:
    program = (
        "import json, keras, sys; print(json.dumps([[m.get_layer(n).output.shape[-1] for n in ('Conv1', "
        "'block_1_project')] for m in (keras.applications.MobileNetV2(alpha=float(a), weights=None) for a in "
        "sys.argv[1:])]))"
    )
    command = [sys.executable, "-c", program, *map(str, ALPHAS)]
    done = subprocess.run(command, env=child_environment(), check=True, capture_output=True, text=True)
    channels = json.loads(done.stdout.splitlines()[-1])
    assert tuple(alpha_of(first=first, second=second) for first, second in channels) == ALPHAS
    assert alpha_of(first=64, second=56) is None
