"""The child process of `refund.lifecycle.outside`: limits itself, opens one model file, answers in one line of JSON."""

from __future__ import annotations

import json
import math
import os
import resource
import sys
from pathlib import Path
from typing import Any

from refund.errors import RefundError

MEMORY_BYTES = 4 * 1024**3  # of address space; loading a unit of 14 MB takes under 1 GB of it
CPU_S = 60
_PHOTOS = 2


def run(question: str, path: Path) -> None:
    """Answer ``look`` (what a LiteRT file takes and gives) or ``try`` (whether a unit's folder loads and predicts)."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever libraries print is no answer
    for kind, limit in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CPU, CPU_S),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (limit, limit))
    sys.dont_write_bytecode = True  # no file may be written from here on
    try:
        answer = _look(path) if question == "look" else _try(path)
    except RefundError as exc:
        answer = {"failure": str(exc)}
    print(json.dumps(answer), file=stream, flush=True)  # the protocol with the parent
    stream.close()


def _look(path: Path) -> dict[str, Any]:
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_content=path.read_bytes(), num_threads=1)
        interpreter.allocate_tensors()
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        tensors = interpreter.get_tensor_details()
    except (ValueError, RuntimeError) as exc:
        return {"failure": f"{path} cannot be loaded by LiteRT: {exc}; export it again as .tflite"}
    if len(inputs) != 1 or len(outputs) != 1:
        return {
            "failure": f"{path} has {len(inputs)} inputs and {len(outputs)} outputs; a classifier has one of each: "
            f"export it again"
        }
    small = any(np.dtype(tensor["dtype"]) in (np.dtype(np.int8), np.dtype(np.uint8)) for tensor in tensors)
    return {
        "input_shape": [int(side) for side in inputs[0]["shape"]],
        "input_type": np.dtype(inputs[0]["dtype"]).name,
        "output_shape": [int(side) for side in outputs[0]["shape"]],
        "precision": "int8" if small else "float32",
    }


def _try(folder: Path) -> dict[str, Any]:
    import numpy as np

    from refund.model.load import load_model

    with load_model(folder) as model:
        card = model.card
        pixels = np.random.default_rng(0).integers(
            0, 256, (_PHOTOS, card.input_height, card.input_width, 3), dtype=np.uint8
        )
        scores = model.predict(pixels)
    if not np.isfinite(scores).all():
        return {"failure": f"model {card.key} gives scores that are not finite numbers; export it again"}
    if card.output == "probabilities" and (scores.min() < 0 or scores.max() > 1):
        return {
            "failure": f"model {card.key} gives scores from {scores.min():.3g} to {scores.max():.3g} while its card "
            f"says probabilities; a network without a softmax gives logits: correct output"
        }
    if card.output == "logits" and (scores.max(axis=1) <= scores.min(axis=1) * math.e * 1.001).all():
        return {
            "failure": f"model {card.key} gives scores within 0..1 of each other while its card says logits; a network "
            f"that ends in a softmax gives probabilities: correct output"
        }
    return {"scores": int(scores.shape[1])}


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]))
