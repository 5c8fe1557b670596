"""What one would write without us: Pillow decodes a photo, Keras's ``model.predict`` classifies it, one at a time.

Runs in a process of its own: ``python -m benchmarks.keras_alone WEIGHTS FOLDER``, where WEIGHTS is an .h5 file or
``none``. Every line on its standard input asks for one round over the photos in FOLDER; the answer is one line of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from benchmarks.measure import Contender, Measurement, measure

NAME = "alternative: Pillow and model.predict"


@contextmanager
def keras_alone(*, weights: Path | None, folder: Path, bodies: tuple[bytes, ...]) -> Iterator[Contender]:
    """A contender that asks the other process for a round; without weights the network has random ones, as fast."""
    folder.mkdir()
    for number, body in enumerate(bodies):
        (folder / f"{number:06d}.jpg").write_bytes(body)
    environ = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.keras_alone", str(weights or "none"), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env=environ,
            cwd=Path(__file__).resolve().parents[1],
        )

        def ask() -> dict[str, Measurement]:
            assert process.stdin is not None
            assert process.stdout is not None
            print(file=process.stdin, flush=True)
            answer = process.stdout.readline()
            if not answer:
                said.seek(0)
                msg = f"the Keras process ended early: {said.read().strip()[-500:]}"
                raise RuntimeError(msg)
            return {NAME: Measurement(**json.loads(answer))}

        try:
            yield Contender(name=NAME, run=ask)
        finally:
            process.communicate()  # closes its input, which ends it


def _serve(weights: str, folder: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what TensorFlow prints must not mix with the answers
    import keras
    import numpy as np
    from PIL import Image

    network = keras.applications.MobileNetV2(weights=None if weights == "none" else weights)
    paths = sorted(Path(folder).iterdir())

    def classify(path: Path) -> int:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB").resize((224, 224)), dtype=np.float32)
        batch = keras.applications.mobilenet_v2.preprocess_input(pixels[np.newaxis])
        return int(network.predict(batch, verbose=0).argmax())

    classify(paths[0])  # builds the graph
    for _ in sys.stdin:
        measurement = measure(len(paths), lambda: [classify(path) for path in paths])
        print(json.dumps(asdict(measurement)), file=answers, flush=True)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
