"""Runs a LiteRT (TensorFlow Lite) artefact: what nights, desk and command line use."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from refund.errors import FatalRunError, ModelArtefactError
from refund.model.card import ModelCard
from refund.model.runtimes.base import to_probabilities

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class LiteRtRuntime:
    """One interpreter of one thread over an artefact already in memory.

    The artefact is passed as bytes, so that what was checked by SHA-256 is what runs; interpreters share them. `invoke`
    releases the GIL: two runtimes in two threads use two cores.

    Raises:
        ModelArtefactError: the bytes are no LiteRT model, or its input or output is not what the card says.
    """

    def __init__(self, artefact: bytes, *, card: ModelCard) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._card = card
        try:
            self._interpreter: Any = Interpreter(model_content=artefact, num_threads=1)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as exc:
            msg = (
                f"model {card.key}: {card.artefact_file} cannot be loaded by LiteRT: {exc}; it matches its card, so it "
                f"was built wrong: build the model again (refund model build)"
            )
            raise ModelArtefactError(msg) from exc
        self._input, self._output = self._single_tensors()
        self._check_input()

    @property
    def class_count(self) -> int:
        """How many scores the network gives per photo."""
        return int(self._output["shape"][-1])

    def predict(self, pixels: NDArray[np.uint8], spent_s: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Probabilities ``(N, C)`` for RGB pixels ``(N, H, W, 3) uint8``, photo by photo.

        The tensors keep batch size 1. Measured with MobileNetV2, photo for photo in the same minute: 2, 4 or 8 at once
        take 0.93 to 1.01 of the time in int8 and 1.05 to 1.26 in float32, with the same scores; and an artefact with a
        fixed reshape (EfficientNet-Lite0) refuses them. Nothing of int8 runs outside of XNNPACK, and of the time
        0.2 % goes into laying pixels in and taking scores out.

        Raises:
            FatalRunError: the interpreter failed.
        """
        import numpy as np

        raw = np.empty((len(pixels), self.class_count), dtype=self._output["dtype"])
        try:
            for row in range(len(pixels)):
                began_s = time.perf_counter()
                self._interpreter.set_tensor(self._input["index"], self._feed(pixels[row : row + 1]))
                self._interpreter.invoke()
                raw[row] = self._interpreter.get_tensor(self._output["index"])[0]
                if spent_s is not None:
                    spent_s[row] = time.perf_counter() - began_s
        except (ValueError, RuntimeError) as exc:
            msg = f"model {self._card.key} failed on pixels of shape {pixels.shape}: {exc}; build it again"
            raise FatalRunError(msg) from exc
        return to_probabilities(_dequantise(raw, self._output["quantization"]), output=self._card.output)

    def close(self) -> None:
        """Drop the interpreter and its memory."""
        self._interpreter = None

    def _feed(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        import numpy as np

        if self._input["dtype"] == np.uint8:
            return np.ascontiguousarray(pixels)
        scaled = pixels.astype(np.float32)
        scaled *= np.float32(self._card.input_scale)
        scaled += np.float32(self._card.input_offset)
        return scaled

    def _single_tensors(self) -> tuple[dict[str, Any], dict[str, Any]]:
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        if len(inputs) != 1 or len(outputs) != 1 or len(outputs[0]["shape"]) != 2:
            shapes = [list(map(int, tensor["shape"])) for tensor in outputs]
            msg = (
                f"model {self._card.key} has {len(inputs)} inputs and outputs of shapes {shapes}; a classifier has one "
                f"input and one output of shape [1, classes]"
            )
            raise ModelArtefactError(msg)
        return inputs[0], outputs[0]

    def _check_input(self) -> None:
        import numpy as np

        expected = [1, self._card.input_height, self._card.input_width, 3]
        seen = [int(side) for side in self._input["shape"]]
        if seen != expected:
            msg = f"model {self._card.key} takes input of shape {seen}, its card says {expected}; build it again"
            raise ModelArtefactError(msg)
        kind = np.dtype(self._input["dtype"])
        if kind not in (np.dtype(np.float32), np.dtype(np.uint8)):
            msg = f"model {self._card.key} takes {kind} input, this code gives float32 or uint8; build it again"
            raise ModelArtefactError(msg)
        if kind == np.uint8 and (self._card.input_scale, self._card.input_offset) != (1.0, 0.0):
            msg = (
                f"model {self._card.key} takes uint8 pixels as they are, its card says scale {self._card.input_scale} "
                f"and offset {self._card.input_offset}, expected 1 and 0; build it again"
            )
            raise ModelArtefactError(msg)


def _dequantise(raw: NDArray[Any], quantisation: tuple[float, int]) -> NDArray[np.float32]:
    """Real values of a tensor: ``(raw - zero point) * scale`` for integers, floats as they are."""
    import numpy as np

    if np.issubdtype(raw.dtype, np.floating):
        return raw.astype(np.float32, copy=False)
    scale, zero_point = quantisation
    return ((raw.astype(np.int32) - zero_point) * scale).astype(np.float32)
