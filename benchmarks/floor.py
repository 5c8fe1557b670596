"""The floor: what must be done to a photo, each in a bare loop of one thread that does nothing else."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import obstore
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.store import S3Store
from PIL import Image

from benchmarks.arena import Arena
from benchmarks.measure import Contender, Measurement, measure
from benchmarks.photographs import PhotoSet
from refund.imaging.decode import load_plugins
from refund.imaging.fingerprint import perceptual_hash, sha256_hex
from refund.imaging.quality import luminance, measure_quality
from refund.model.load import read_artefact, read_card
from refund.settings import S3Access

PARTS = ("floor: GET", "floor: decode", "floor: hash", "floor: quality", "floor: inference")
SUM = "floor: sum"
_WIDTH_PX, _HEIGHT_PX = 500, 375  # quality is told them; its cost does not depend on them
_WARM_UP = 8


def floor(arena: Arena, photos: PhotoSet) -> list[Contender]:
    """The five loops over a set. Hash and quality are our own measures; all else is the library's bare call.

    Photos that must be rejected are downloaded, tried and hashed, as they have to be, and go no further.
    """
    store = bare_store(arena.services.objects.access)
    load_plugins()
    pixels = [bare_decode(body) if good else None for body, good in zip(photos.bodies, photos.good, strict=True)]
    decoded = [one for one in pixels if one is not None]
    grey = [None if one is None else luminance(one) for one in pixels]
    classify = _interpreter(arena.model_folder)

    def get() -> None:
        for key in photos.keys:
            obstore.get(store, key).bytes()

    def decode() -> None:
        for body in photos.bodies:
            with contextlib.suppress(Exception):
                bare_decode(body)

    def fingerprint() -> None:
        for body, one, light in zip(photos.bodies, pixels, grey, strict=True):
            sha256_hex(body)
            if one is not None:
                perceptual_hash(one, grey=light)

    def quality() -> None:
        for one in decoded:
            measure_quality(one, width_px=_WIDTH_PX, height_px=_HEIGHT_PX, grey=luminance(one))

    def infer() -> None:
        for one in decoded:
            classify(one)

    for one in decoded[:_WARM_UP]:
        classify(one)
    works = dict(zip(PARTS, (get, decode, fingerprint, quality, infer), strict=True))
    return [_simple(name, len(photos.keys), work) for name, work in works.items()]


def bare_store(access: S3Access) -> S3Store:
    """The client of obstore, without ours around it."""
    session = boto3.Session(
        aws_access_key_id=access.access_key, aws_secret_access_key=access.secret_key, region_name=access.region
    )
    return S3Store(
        access.bucket,
        endpoint=access.endpoint_url,
        region=access.region,
        virtual_hosted_style_request=False,
        credential_provider=Boto3CredentialProvider(session),
        client_options={"allow_http": True},
    )


def bare_decode(body: bytes) -> np.ndarray[Any, Any]:
    """The fastest way to the same pixels: scaled down while decoding, then resized with a reducing gap."""
    with Image.open(io.BytesIO(body)) as image:
        image.draft(None, (336, 336))  # `refund.imaging.decode.DRAFT_FACTOR` times 224
        small = image.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(small)


def full_decode(body: bytes) -> np.ndarray[Any, Any]:
    """What one writes first: every pixel, then resize."""
    with Image.open(io.BytesIO(body)) as image:
        return np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR))


def _interpreter(model_folder: Path) -> Callable[[np.ndarray[Any, Any]], int]:
    """One LiteRT interpreter of one thread over the served unit's own bytes."""
    from ai_edge_litert.interpreter import Interpreter

    card = read_card(model_folder)
    interpreter = Interpreter(model_content=read_artefact(model_folder, card), num_threads=1)
    interpreter.allocate_tensors()
    (given,), (scores,) = interpreter.get_input_details(), interpreter.get_output_details()
    as_they_are = given["dtype"] == np.uint8

    def classify(pixels: np.ndarray[Any, Any]) -> int:
        fed = pixels if as_they_are else pixels * np.float32(card.input_scale) + np.float32(card.input_offset)
        interpreter.set_tensor(given["index"], fed[np.newaxis])
        interpreter.invoke()
        return int(interpreter.get_tensor(scores["index"])[0].argmax())

    return classify


def _simple(name: str, photos: int, work: Callable[[], object]) -> Contender:
    def run() -> dict[str, Measurement]:
        return {name: measure(photos, work)}

    return Contender(name=name, run=run)
