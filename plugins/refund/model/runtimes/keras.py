"""Runs Keras weights as they are: the reference that tests compare other runtimes with, never used in a night.

TensorFlow lives in a child process (``python -m refund.model.runtimes.keras``): forking after it has run would
deadlock, and it would add 500 MB to whoever imports it. Parent and child speak over pipes: a little-endian uint32
count, then that many photos as raw bytes; back come that many rows of float32 scores. A count of 0 ends the child.
"""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

from refund.errors import FatalRunError, ModelArtefactError
from refund.model.card import ModelCard
from refund.model.child import child_environment, module_command
from refund.model.runtimes.base import to_probabilities

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_COUNT = struct.Struct("<I")
_CHUNK = 32  # photos per message: 4.8 MB of pixels


class KerasRuntime:
    """A child process that holds ``keras.applications.MobileNetV2`` with weights from an ``.h5`` file.

    Its alpha (1.0 where the card names none) and input size are the card's.

    Raises:
        ModelArtefactError: the child could not load the weights; the text ends with what it said.
    """

    def __init__(self, weights: Path, *, card: ModelCard) -> None:
        self._card = card
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close
        self._child = subprocess.Popen(
            module_command(
                "refund.model.runtimes.keras", str(weights), repr(1.0 if card.alpha is None else card.alpha),
                str(card.input_height), str(card.input_width), repr(card.input_scale), repr(card.input_offset),
            ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,  # a file: nobody drains a pipe, and a full one would stop the child
            env=child_environment(),
        )  # fmt: skip
        ready = self._stdout.read(_COUNT.size)
        if len(ready) < _COUNT.size:
            msg = f"model {card.key}: Keras could not load {weights.name}: {self._last_words()}"
            raise ModelArtefactError(msg)
        self._class_count = int(_COUNT.unpack(ready)[0])

    @property
    def class_count(self) -> int:
        """How many scores the network gives per photo."""
        return self._class_count

    def predict(self, pixels: NDArray[np.uint8], spent_s: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Probabilities ``(N, C)`` for RGB pixels ``(N, H, W, 3) uint8``.

        Raises:
            FatalRunError: the child died.
        """
        import numpy as np

        parts = [np.zeros((0, self.class_count), dtype=np.float32)]
        for start in range(0, len(pixels), _CHUNK):
            began_s = time.perf_counter()
            chunk = np.ascontiguousarray(pixels[start : start + _CHUNK])
            expected_bytes = len(chunk) * self.class_count * 4
            try:
                self._stdin.write(_COUNT.pack(len(chunk)) + chunk.tobytes())
                self._stdin.flush()
                body = self._stdout.read(expected_bytes)
            except (OSError, ValueError):  # ValueError: the pipe is closed already
                body = b""
            if len(body) < expected_bytes:
                msg = f"the Keras process of model {self._card.key} ended early: {self._last_words()}; run it again"
                raise FatalRunError(msg)
            parts.append(np.frombuffer(body, dtype="<f4").reshape(len(chunk), self.class_count))
            if spent_s is not None:  # the chunk goes through the network as one: an equal share for each photo
                spent_s[start : start + len(chunk)] = (time.perf_counter() - began_s) / len(chunk)
        return to_probabilities(np.concatenate(parts), output=self._card.output)

    def close(self) -> None:
        """End the child process; a second call does nothing."""
        if self._child.poll() is None:
            self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout, self._said):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # unsent bytes to a child that is gone
                    pipe.close()

    @property
    def _stdin(self) -> IO[bytes]:
        assert self._child.stdin is not None  # noqa: S101  # opened with PIPE
        return self._child.stdin

    @property
    def _stdout(self) -> IO[bytes]:
        assert self._child.stdout is not None  # noqa: S101  # opened with PIPE
        return self._child.stdout

    def _last_words(self) -> str:
        """End the child and return the last line that it wrote to stderr."""
        if self._said.closed:
            return "it was closed before"
        if self._child.poll() is None:
            self._child.kill()
        self._child.wait()
        self._said.seek(0)
        said = self._said.read()
        self.close()
        lines = said.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"it said nothing, exit code {self._child.returncode}"


def _serve(weights: str, alpha: str, height: str, width: str, scale: str, offset: str) -> None:
    """The child: announce the number of classes, then answer batches until the pipe closes."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever TensorFlow prints must not mix with the answers
    import keras
    import numpy as np

    shape = (int(height), int(width), 3)
    network = keras.applications.MobileNetV2(input_shape=shape, alpha=float(alpha), weights=weights)
    answers.write(_COUNT.pack(network.output_shape[-1]))
    answers.flush()
    size = shape[0] * shape[1] * shape[2]
    while (head := sys.stdin.buffer.read(_COUNT.size)) and (count := _COUNT.unpack(head)[0]):
        pixels = np.frombuffer(sys.stdin.buffer.read(count * size), dtype=np.uint8).reshape(count, *shape)
        scaled = pixels.astype(np.float32) * np.float32(float(scale)) + np.float32(float(offset))
        answers.write(np.asarray(network(scaled, training=False), dtype="<f4").tobytes())
        answers.flush()


if __name__ == "__main__":
    _serve(*sys.argv[1:])
