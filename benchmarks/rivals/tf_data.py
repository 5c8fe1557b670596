"""What a practitioner of TensorFlow writes: a tf.data pipeline that reads and decodes in parallel, and batches of 64.

boto3 reads inside the pipeline, many photos at once; TensorFlow's own kernels decode and resize; batches are made
ahead; ``model.predict`` takes the pipeline as it is, in whatever order photos become ready. Generous to it: keys are
listed beforehand, there is no database, and ``ignore_errors`` drops a photo that cannot be read without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from benchmarks.rivals.clock import Clock
from benchmarks.rivals.photos import BATCH, Config, build_network, read, s3_client

LIBRARIES = ("keras", "tensorflow", "boto3")
_READS_AT_ONCE = 16


@contextmanager
def opened(config: Config) -> Iterator[Callable[[Sequence[str], Clock], list[int | None]]]:
    """The pipeline, its network built and traced for batches of any size."""
    import keras
    import numpy as np
    import tensorflow as tf

    side = config.input_px
    client = s3_client(config)
    network = build_network(config)
    # A photo's number goes through the network beside it: photos come in any order, and broken ones are missing.
    picture, number = keras.Input((side, side, 3)), keras.Input((), dtype="int32")
    numbered = keras.Model([picture, number], [network(picture), keras.layers.Identity()(number)])

    def fetched(number: Any, key: Any) -> tuple[Any, Any]:
        body = tf.numpy_function(lambda name: read(client, config, name.decode()), [key], tf.string, stateful=False)
        return number, tf.ensure_shape(body, ())

    def decoded(number: Any, body: Any) -> tuple[Any, Any]:
        pixels = tf.io.decode_image(body, channels=3, expand_animations=False)
        pixels = tf.ensure_shape(pixels, (None, None, 3))
        small = tf.image.resize(pixels, (side, side), method="bilinear")
        return keras.applications.mobilenet_v2.preprocess_input(small), number

    def pipeline(keys: Sequence[str]) -> Any:
        photos = tf.data.Dataset.from_tensor_slices((np.arange(len(keys), dtype=np.int32), list(keys)))
        photos = photos.map(fetched, num_parallel_calls=_READS_AT_ONCE, deterministic=False)
        photos = photos.map(decoded, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False)
        photos = photos.ignore_errors().batch(BATCH).map(lambda *pair: (pair,))
        return photos.prefetch(tf.data.AUTOTUNE)

    def run(keys: Sequence[str], clock: Clock) -> list[int | None]:
        clock.start()
        scores, numbers = numbered.predict(pipeline(keys), verbose=0)
        found: list[int | None] = [None] * len(keys)
        for position, best in zip(numbers, scores.argmax(axis=1), strict=True):
            found[position] = int(best)
        return found

    blank = np.zeros((BATCH + 1, side, side, 3), np.float32), np.zeros(BATCH + 1, np.int32)
    numbered.predict(blank, batch_size=BATCH, verbose=0)  # a whole batch, and a part of one
    yield run
