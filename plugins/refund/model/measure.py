"""What a build measures of its own artefacts: speed on this machine, and accuracy where the truth is known."""

from __future__ import annotations

import platform
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

from refund.model.calibration import CalibrationSet
from refund.model.labels import Labels
from refund.model.load import Model
from refund.model.taxonomy import Taxonomy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TIMED_PHOTOS = 32
_WARM_UP_PHOTOS = 4


def latency_ms(model: Model) -> float:
    """Median milliseconds of one photo through one thread, on this machine as busy as it is now."""
    import numpy as np

    shape = (model.card.input_height, model.card.input_width, 3)
    pixels = np.random.default_rng(0).integers(0, 256, (1, *shape), dtype=np.uint8)
    seconds = []
    for _ in range(_WARM_UP_PHOTOS + _TIMED_PHOTOS):
        begun = time.perf_counter()
        model.runtime.predict(pixels)
        seconds.append(time.perf_counter() - begun)
    return round(statistics.median(seconds[_WARM_UP_PHOTOS:]) * 1000.0, 3)


def predict_holdout(model: Model, photographs: CalibrationSet) -> NDArray[np.float32]:
    """Probabilities ``(N, C)`` of the holdout, in its order."""
    import numpy as np

    parts = [np.zeros((0, len(model.labels)), dtype=np.float32)]
    parts += [model.predict(pixels) for pixels in photographs.chunks(photographs.holdout)]
    return np.concatenate(parts)


def accuracy(
    probabilities: NDArray[np.float32], photographs: CalibrationSet, *, labels: Labels, taxonomy: Taxonomy
) -> dict[str, float]:
    """Shares of the holdout that get their class and their category, 0 to 1, each with the number of photographs.

    A photo's category is the one with the largest category score, as in `refund.model.decide`. Nothing is given where
    no photograph's truth is known.
    """
    figures: dict[str, float] = {}
    holdout = photographs.holdout
    top = probabilities.argmax(axis=1)
    classes = [(row, photographs.class_ids[item]) for row, item in enumerate(holdout)]
    right = [labels.class_ids[top[row]] == truth for row, truth in classes if truth is not None]
    if right:
        figures |= {"top1_accuracy": sum(right) / len(right), "top1_photos": float(len(right))}
    best = (probabilities @ taxonomy.matrix()).argmax(axis=1)
    categories = [(row, photographs.categories[item]) for row, item in enumerate(holdout)]
    right = [taxonomy.categories[best[row]] == truth for row, truth in categories if truth is not None]
    if right:
        figures |= {"category_accuracy": sum(right) / len(right), "category_photos": float(len(right))}
    return figures


def machine() -> str:
    """The processor that a speed was measured on, as Linux names it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{named[0]} ({platform.machine()})" if named else platform.machine()
