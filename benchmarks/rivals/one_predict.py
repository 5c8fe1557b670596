"""The first thing one writes: boto3 reads a photo, Pillow decodes it, Keras's ``model.predict`` classifies it.

Generous to it: no database, no record of why a photo was left out, and a photo that cannot be read is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from benchmarks.rivals.clock import Clock
from benchmarks.rivals.photos import Config, build_network, decode, read, s3_client

LIBRARIES = ("keras", "tensorflow", "boto3", "PIL")


@contextmanager
def opened(config: Config) -> Iterator[Callable[[Sequence[str], Clock], list[int | None]]]:
    """The loop, its network built and traced."""
    import keras
    import numpy as np

    network = build_network(config)
    client = s3_client(config)

    def classify(key: str) -> int | None:
        try:
            pixels = decode(read(client, config, key), input_px=config.input_px)
        except (OSError, ValueError):  # what Pillow raises for a file that is no picture or ends early
            return None
        batch = keras.applications.mobilenet_v2.preprocess_input(pixels[np.newaxis].astype(np.float32))
        return int(network.predict(batch, verbose=0).argmax())

    def run(keys: Sequence[str], clock: Clock) -> list[int | None]:
        clock.start()
        return [classify(key) for key in keys]

    network.predict(np.zeros((1, config.input_px, config.input_px, 3), dtype=np.float32), verbose=0)
    yield run
