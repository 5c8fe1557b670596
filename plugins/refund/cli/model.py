"""``refund model``: the registry from the command line."""

from __future__ import annotations

import getpass
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from refund.cli.access import command_services, find_access
from refund.cli.app import AsJson, app, console, print_json, step
from refund.errors import (
    BucketMissingError,
    ModelArtefactError,
    NoModelError,
    RejectedPhotoError,
    RetriableRunError,
    SettingsError,
    StackError,
)
from refund.keys import path_safe
from refund.settings import S3Access, Settings

models = typer.Typer(name="model", help="Build, list and show models.", no_args_is_help=True)
app.add_typer(models)


@models.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List every registered model and the aliases that point at it.

    Example: refund model list
    """
    with command_services() as services:
        rows = services.registry.list()
    if as_json:
        print_json([row.as_json() for row in rows])
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("model", "alias", "precision", "registered", "by", "state"):
        table.add_column(column, overflow="fold")  # a key that is cut off cannot be typed
    for row in rows:
        table.add_row(
            row.model,
            ", ".join(row.aliases),
            row.card.precision,
            f"{row.created_at:%Y-%m-%d %H:%M}",
            row.created_by,
            row.state,
        )
    console.print(table if rows else "No model is registered; build one with: refund model build")


@models.command()
def show(
    model: Annotated[str, typer.Argument(help="An alias or name@version.")] = "champion", as_json: AsJson = False
) -> None:
    """Show a model's card.

    Example: refund model show champion
    """
    with command_services() as services:
        row = services.registry.resolve(model)
    card = json.loads(row.card.to_json())
    if as_json:
        print_json(card)
    else:
        console.print_json(data=card)


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


def local_model_folder(model: str) -> tuple[Settings, Path]:
    """A verified model folder, from the registry where it answers, else the copy that was used last.

    Raises:
        NoModelError: the registry does not know it, or does not answer and there is no copy.
    """
    access = find_access()
    try:
        with command_services() as services:
            key = services.registry.resolve(model).model
            folder = services.registry.fetch(key, access.settings.cache_folder)
    except (RetriableRunError, StackError) as exc:
        pointer = _pointer(access.settings, model)
        if not pointer.exists():
            raise
        kept = access.settings.cache_folder / pointer.read_text(encoding="utf-8")
        step(f"The registry does not answer ({exc.args[0].splitlines()[0]}); using the copy in {kept}")
        return access.settings, kept
    pointer = _pointer(access.settings, model)
    temporary = pointer.with_suffix(".tmp")
    temporary.write_text(folder.name, encoding="utf-8")
    temporary.replace(pointer)
    return access.settings, folder


def _pointer(settings: Settings, alias: str) -> Path:
    """The file that remembers which copy an alias meant when the registry last answered."""
    return settings.cache_folder / f"{path_safe(alias)}.last"


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
