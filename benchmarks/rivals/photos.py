"""What every rival is told on its standard input, how it reads a photo from S3, and the network that all share."""

from __future__ import annotations

import importlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

BATCH = 64


class LeftOutError(RuntimeError):
    """The rival cannot run on this machine, which its message explains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The bucket, and the network; the keys of its photos come with every request."""

    bucket: str
    endpoint_url: str | None
    region: str
    access_key: str | None = field(repr=False)
    secret_key: str | None = field(repr=False)
    ca_file: str | None
    weights: str | None  # a Keras .h5 file; None: random ones
    input_px: int
    warm_up: tuple[str, ...]

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Config:
        """The config from its JSON object."""
        named = {one.name: told[one.name] for one in fields(cls)}
        return cls(**{**named, "warm_up": tuple(told["warm_up"])})


def s3_client(config: Config) -> Any:
    """A boto3 client with a connection for every thread that may read at once; threads may share it."""
    import boto3
    from botocore.config import Config as ClientConfig

    return boto3.client(
        "s3",
        endpoint_url=config.endpoint_url,
        region_name=config.region,
        aws_access_key_id=config.access_key,
        aws_secret_access_key=config.secret_key,
        verify=config.ca_file,
        config=ClientConfig(max_pool_connections=32, s3={"addressing_style": "path"}),
    )


def read(client: Any, config: Config, key: str) -> bytes:
    """The photo's file."""
    body: bytes = client.get_object(Bucket=config.bucket, Key=key)["Body"].read()
    return body


def decode(body: bytes, *, input_px: int) -> Any:
    """The photo as most people decode it with Pillow: ``(input_px, input_px, 3) uint8``; raises what Pillow raises."""
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(body)) as image:
        return np.asarray(image.convert("RGB").resize((input_px, input_px), Image.Resampling.BILINEAR))


def build_network(config: Config) -> Any:
    """MobileNetV2 in Keras, float32."""
    import keras

    keras.utils.set_random_seed(7)  # random weights are then the same for every rival
    side = config.input_px
    return keras.applications.MobileNetV2(input_shape=(side, side, 3), weights=config.weights)


def versions(*modules: str) -> dict[str, str]:
    """Import these modules and tell their versions; raises ModuleNotFoundError for one that is not installed."""
    return {name: importlib.import_module(name).__version__ for name in modules}
