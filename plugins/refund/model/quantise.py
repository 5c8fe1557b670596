"""Makes the int8 artefact, in the child process of a build: full integer, per channel, uint8 pixels in, float32 out.

Every operation works on integers; the last step turns the logits back into float32. The network ends in logits and not
in its softmax, because an int8 softmax knows steps of 1/256 only: small probabilities become 0, and a photo's
probabilities add up to about 0.8. The softmax is taken from the logits in float32, by `refund.model.runtimes`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_INPUT_ERROR_LEVELS = 1.0  # of 255: how far the artefact may read a pixel from what float32 is given


def quantise(network: Any, pixels: NDArray[np.uint8], *, alpha: float) -> tuple[bytes, dict[str, float]]:
    """The int8 artefact of a Keras MobileNetV2, calibrated on RGB ``pixels`` (``(N, H, W, 3) uint8``), and its figures.

    ``max_input_error_levels`` is the largest distance, in pixel levels, between x/127.5 - 1 and what the artefact reads
    from the pixel x. The converter puts the zero point on a whole number, 127 for the exact 127.5, which is 0.5 levels.

    Raises:
        ConversionFailure: the artefact is not what was asked for.
    """
    import keras
    import numpy as np
    import tensorflow as tf

    shape = pixels.shape[1:]
    logits = keras.applications.MobileNetV2(
        input_shape=shape, alpha=alpha, weights=None, classes=network.output_shape[-1], classifier_activation=None
    )
    logits.set_weights(network.get_weights())

    def representative() -> Iterator[list[NDArray[np.float32]]]:
        for row in range(len(pixels)):
            photo = np.array(pixels[row : row + 1])
            if row == 0:  # black and white must both occur, or the input's scale would follow the photographs
                photo[0, 0, 0], photo[0, 0, 1] = 0, 255
            yield [photo.astype(np.float32) / np.float32(127.5) - np.float32(1.0)]

    converter = tf.lite.TFLiteConverter.from_keras_model(logits)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]  # fails rather than leave a float
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.float32
    with contextlib.redirect_stdout(sys.stderr):
        body: bytes = converter.convert()
    return body, _checked(body)


def _checked(body: bytes) -> dict[str, float]:
    """The figures of an int8 artefact; refuses one that is not full-integer, per-channel, uint8 in and float32 out."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    from refund.model.convert import ConversionFailure

    interpreter = Interpreter(model_content=body, num_threads=1)
    interpreter.allocate_tensors()
    (into,), (out,) = interpreter.get_input_details(), interpreter.get_output_details()
    tensors = interpreter.get_tensor_details()
    floats = [tensor["name"] for tensor in tensors if np.issubdtype(tensor["dtype"], np.floating)]
    scales = max(len(tensor["quantization_parameters"]["scales"]) for tensor in tensors)
    error = input_error_levels(*into["quantization"])
    faults = []
    if (into["dtype"], out["dtype"]) != (np.uint8, np.float32):
        faults.append(f"it takes {np.dtype(into['dtype'])} and gives {np.dtype(out['dtype'])}")
    if floats != [out["name"]]:
        faults.append(f"{len(floats)} of its tensors are float32, expected the output alone")
    if scales < 2:
        faults.append("its weights have one scale per layer, expected one per channel")
    if not error <= MAX_INPUT_ERROR_LEVELS:  # also refuses NaN
        faults.append(f"it reads pixels up to {error:.2f} levels off, expected at most {MAX_INPUT_ERROR_LEVELS:g}")
    if faults:
        raise ConversionFailure(kind="not_integer", detail="; ".join(faults))
    return {"max_input_error_levels": error}


def input_error_levels(scale: float, zero_point: int) -> float:
    """The largest distance, in pixel levels, between x/127.5 - 1 and scale · (x - zero_point), over all pixels x."""
    import numpy as np

    levels = np.arange(256, dtype=np.float64)
    wanted, read = levels / 127.5 - 1.0, (levels - zero_point) * scale
    return round(float(np.abs(read - wanted).max() * 127.5), 4)


def read_pixels(path: Path, *, input_px: int) -> NDArray[np.uint8]:
    """The calibration pixels that the parent wrote; never a pickle.

    Raises:
        ConversionFailure: it is no ``.npy`` file of ``(N, input_px, input_px, 3) uint8`` with at least one photograph.
    """
    import numpy as np

    from refund.model.convert import ConversionFailure

    try:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as exc:
        raise ConversionFailure(kind="calibration", detail=exc) from exc
    expected = (input_px, input_px, 3)
    shape, dtype = tuple(pixels.shape), pixels.dtype
    if dtype != np.uint8 or len(shape) != 4 or shape[1:] != expected or not shape[0]:
        detail = f"expected (N, {input_px}, {input_px}, 3) of uint8 with N from 1 on, got {shape} of {dtype}"
        raise ConversionFailure(kind="calibration", detail=detail)
    return pixels  # type: ignore[no-any-return]
