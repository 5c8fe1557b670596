"""``refund model build``: from weights to a registered model."""

from __future__ import annotations

import getpass
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from refund.cli.access import command_services, find_access
from refund.cli.app import AsJson, console, print_json, step
from refund.cli.model import models
from refund.errors import BucketMissingError, ModelArtefactError, NoModelError, RejectedPhotoError, SettingsError
from refund.settings import S3Access


@models.command()
def build(
    weights: Annotated[str, typer.Option(help="Keras weights (.h5): a path or s3://bucket/key.")] = "",
    fallback: Annotated[
        bool | None,
        typer.Option(
            "--fallback/--no-fallback",
            help="Without weights, take the packaged EfficientNet-Lite0; unless given, only on a local stack.",
        ),
    ] = None,
    champion: Annotated[
        bool, typer.Option("--champion/--no-champion", help="Let the night use it from the next run on.")
    ] = True,
    reason: Annotated[
        str, typer.Option(help="Why it becomes champion, for the history; required away from a local stack.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Build and register a model: from --weights or REFUND_WEIGHTS, else Keras's download.

    Where neither is to be had, a local stack takes the packaged network; elsewhere only --fallback lets it.

    Example: refund model build --weights mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5
    """
    on_a_laptop = find_access().local is not None
    key = build_and_register(
        weights=weights or None,
        fallback=on_a_laptop if fallback is None else fallback,
        champion=champion,
        reason=history_reason(reason, champion=champion, on_a_laptop=on_a_laptop),
    )
    if as_json:
        print_json({"model": key, "champion": champion})
    else:
        console.print(f"Registered {key}" + (" as champion" if champion else ""))


def history_reason(given: str, *, champion: bool, on_a_laptop: bool) -> str:
    """The reason that the history keeps with a change of champion.

    Raises:
        SettingsError: none was given, away from a local stack.
    """
    if given.strip():
        return given.strip()
    if champion and not on_a_laptop:
        msg = "the champion changes only for a reason, which its history keeps; give --reason TEXT, or --no-champion"
        raise SettingsError(msg)
    return "refund model build"


def build_and_register(*, weights: str | None, fallback: bool, champion: bool, reason: str) -> str:
    """Build in a temporary folder, register in S3 and Postgres, and make it champion if asked; returns its key."""
    from refund.model.build import build_model

    with command_services() as services, tempfile.TemporaryDirectory(prefix="refund-model-") as scratch:
        weights = weights or services.settings.weights
        file = weights_file(weights, Path(scratch), s3=find_access().s3) if weights else None
        target = Path(scratch) / "model"
        build_model(target, weights=file, allow_fallback=fallback, progress=step)
        who = getpass.getuser()
        row = services.registry.register(target, created_by=who)
        if champion:
            services.registry.set_alias("champion", row.model, by=who, reason=reason)
        services.registry.fetch(row.model, services.settings.cache_folder)
        return row.model


def ensure_champion() -> str:
    """The champion's key; builds and promotes one where there is none yet."""
    with command_services() as services:
        try:
            return services.registry.resolve("champion").model
        except NoModelError:
            step("No model is registered yet: building one")
    return build_and_register(weights=None, fallback=True, champion=True, reason="first model of this stack")


def weights_file(weights: str, scratch: Path, *, s3: S3Access) -> Path:
    """A local path as it is; what ``s3://bucket/key`` names is copied into ``scratch``.

    Raises:
        ModelArtefactError: there is no such object.
    """
    if not weights.startswith("s3://"):
        return Path(weights)
    from refund.store.objects import ObjectStore

    bucket, _, key = weights.removeprefix("s3://").partition("/")
    remedy = "correct --weights or REFUND_WEIGHTS, which read s3://bucket/key, or upload the weights there"
    if not bucket or not key or key.endswith("/"):
        msg = f"{weights} names no object; {remedy}"
        raise ModelArtefactError(msg)
    target = scratch / Path(key).name
    try:
        ObjectStore(replace(s3, bucket=bucket)).download(key, target)
    except (RejectedPhotoError, BucketMissingError) as exc:
        what = f"bucket {bucket!r}" if isinstance(exc, BucketMissingError) else f"object {key!r}"
        msg = f"{weights} is not there, S3 at {s3.place} has no {what}; {remedy}"
        raise ModelArtefactError(msg) from exc
    return target
