"""The contenders of the first benchmark: our stages, the bare loops they are made of, and the choices inside them."""

from __future__ import annotations

import io
import secrets
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import obstore
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.store import S3Store
from PIL import Image

from benchmarks import isolation
from benchmarks.arena import DAY, LONE_PREFIX, PREFIX, Arena
from benchmarks.measure import Contender, Measurement, measure, tree_cpu_s
from refund.imaging.decode import decode_rgb
from refund.imaging.fingerprint import perceptual_hash, sha256_hex
from refund.imaging.pack import PIXELS_FILE
from refund.imaging.quality import luminance, measure_quality
from refund.model.load import Model, load_model
from refund.night.classify import classify_shard
from refund.night.fetch import fetch_manifest
from refund.night.health_check import check_health
from refund.night.persist import persist_run
from refund.night.services import NightRun
from refund.night.validate import validate_shard
from refund.params import NightParams

_INFERENCE_PHOTOS = 128  # for the comparison of threads and batches: enough for 16 batches of 8
FLOOR_PARTS = ("floor: GET", "floor: decode", "floor: hash and quality", "floor: inference")


def night(arena: Arena) -> Contender:
    """Validate, classify and persist as the tasks do, in one shard; listing and reporting are not measured.

    The servers' CPU, which no other figure counts, is reported as a measurement of its own.
    """

    def run() -> dict[str, Measurement]:
        photos = len(arena.keys)
        servers_s = sum(map(tree_cpu_s, arena.server_pids))
        stages = _stages(arena, prefix=PREFIX, photos=photos)
        servers_s = sum(map(tree_cpu_s, arena.server_pids)) - servers_s  # with those of the listing, a few requests
        whole = _sum(stages.values())
        return {
            "night": whole,
            **{f"night: {name}": stage for name, stage in stages.items()},
            "servers during the night": replace(whole, cpu_s=servers_s),
        }

    return Contender(name="night", run=run)


def night_of_one(arena: Arena) -> Contender:
    """A night of one photo: what a shard costs however few its photos are."""
    name = "night of one photo"
    return Contender(name=name, run=lambda: {name: _sum(_stages(arena, prefix=LONE_PREFIX, photos=1).values())})


def _stages(arena: Arena, *, prefix: str, photos: int) -> dict[str, Measurement]:
    services = arena.services
    arena.forget_outcomes()
    params = NightParams(prefix=prefix, late_days=0)
    run = NightRun(run_id=f"bench-{secrets.token_hex(6)}", run_date=DAY, params=params)
    check_health(run, services, plugin_errors={})
    (shard_uri,) = fetch_manifest(run, services)
    counts: dict[str, int] = {}
    stages = {
        "validate": measure(photos, lambda: validate_shard(shard_uri, run=run, services=services)),
        "classify": measure(photos, lambda: classify_shard(shard_uri, run=run, services=services)),
        "persist": measure(photos, lambda: counts.update(persist_run(run, services))),
    }
    if counts["classified"] != photos:  # a figure for less work would be a wrong figure
        msg = f"the night classified {counts['classified']} of {photos} photos: {counts}"
        raise RuntimeError(msg)
    return stages


def _sum(parts: Iterable[Measurement]) -> Measurement:
    parts = list(parts)
    return replace(parts[0], wall_s=sum(one.wall_s for one in parts), cpu_s=sum(one.cpu_s for one in parts))


def floor(arena: Arena, model: Model, pixels: np.ndarray[Any, Any]) -> list[Contender]:
    """The four things that must be done to a photo, each in a bare loop of one thread."""
    access, limits = arena.services.objects.access, arena.services.settings.limits
    store = S3Store(
        access.bucket,
        endpoint=access.endpoint_url,
        region=access.region,
        virtual_hosted_style_request=False,
        credential_provider=Boto3CredentialProvider(_session(arena)),
        client_options={"allow_http": True},
    )

    def get() -> None:
        for key in arena.keys:
            obstore.get(store, key).bytes()

    def decode() -> None:
        for body in arena.bodies:
            decode_rgb(body, limits=limits)

    def fingerprint() -> None:
        for body, photo in zip(arena.bodies, pixels, strict=True):
            grey = luminance(photo)
            sha256_hex(body)
            perceptual_hash(photo, grey=grey)
            measure_quality(photo, width_px=500, height_px=375, grey=grey)

    def infer() -> None:
        model.runtime.predict(pixels)

    works = dict(zip(FLOOR_PARTS, (get, decode, fingerprint, infer), strict=True))
    return [simple(name, len(arena.keys), work) for name, work in works.items()]


def downloads(arena: Arena) -> Contender:
    """The same photos through our own `ObjectStore.get_many`, as validation reads them."""
    from refund import keys
    from refund.records import PhotoObject

    objects = arena.services.objects
    photos = [
        PhotoObject(
            photo_id=keys.photo_id(bucket=objects.bucket, key=item.key, etag=item.etag),
            photo_date=DAY,
            bucket=objects.bucket,
            key=item.key,
            etag=item.etag,
            size_bytes=item.size_bytes,
            refund_id=None,
            declared_category=None,
        )
        for item in objects.list(keys.date_prefix(PREFIX, DAY))
    ]

    def run() -> None:
        downloaded = objects.get_many(photos, max_bytes=10**9, max_in_flight_bytes=64 * 1024 * 1024, concurrency=16)
        if not all(isinstance(body, bytes) for _, body in downloaded):
            msg = "a photo of the benchmark could not be read back"
            raise RuntimeError(msg)

    return simple("get_many, 16 at once", len(photos), run)


def decoding(arena: Arena) -> list[Contender]:
    """Decoding with and without isolation, photographs as they are and of 12 megapixels; and the start of a pool."""
    settings = arena.services.settings
    large = isolation.enlarged(arena.bodies, photos=max(2, len(arena.bodies) // 5))

    def start_and_stop() -> None:
        with isolation.pool_on(arena.folder / PIXELS_FILE, settings.cores, settings):
            pass

    return [
        *isolation.decoding(arena.bodies, folder=arena.folder, settings=settings),
        *isolation.decoding(large, folder=arena.folder / "large", settings=settings, suffix=isolation.LARGE),
        simple("decode: starting a pool", 1, start_and_stop),
    ]


def full_decode(arena: Arena) -> Contender:
    """What one writes first: decode every pixel, then resize."""

    def run() -> None:
        for body in arena.bodies:
            with Image.open(io.BytesIO(body)) as image:
                np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR))

    return simple("decode: every pixel, then resize", len(arena.bodies), run)


def inference(arena: Arena, pixels: np.ndarray[Any, Any], stack: ExitStack) -> list[Contender]:
    """One and two interpreters, batches of 1, 4 and 8."""
    some = pixels[:_INFERENCE_PHOTOS]
    found = []
    for threads in (1, 2):
        model = stack.enter_context(load_model(arena.model_folder, threads=threads))
        for batch_size in (1, 4, 8):
            name = f"inference: {threads} thread{'s'[: threads > 1]}, batch {batch_size}"
            found.append(simple(name, len(some), _predict(model, some, batch_size)))
    return found


def decoded_pixels(arena: Arena) -> np.ndarray[Any, Any]:
    """All photos as the network takes them, ``(N, 224, 224, 3) uint8``."""
    limits = arena.services.settings.limits
    once = {body: decode_rgb(body, limits=limits).pixels for body in set(arena.bodies)}
    return np.stack([once[body] for body in arena.bodies])


def simple(name: str, photos: int, work: Callable[[], object]) -> Contender:
    """A contender of one measurement, named as itself."""
    return Contender(name=name, run=lambda: {name: measure(photos, work)})


def _predict(model: Model, pixels: np.ndarray[Any, Any], batch_size: int) -> Callable[[], object]:
    return lambda: model.predict(pixels, batch_size=batch_size)


def _session(arena: Arena) -> Any:
    import boto3

    access = arena.services.objects.access
    return boto3.session.Session(
        aws_access_key_id=access.access_key, aws_secret_access_key=access.secret_key, region_name=access.region
    )
