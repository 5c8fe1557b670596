"""``refund model build``: from weights to registered models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from refund.cli.access import command_services, find_access, who
from refund.cli.app import AsJson, console, print_json, step
from refund.cli.model import models
from refund.errors import NoModelError, SettingsError

if TYPE_CHECKING:
    from refund.lifecycle.build import BuildOutcome
    from refund.night.services import Services


@models.command()
def build(
    weights: Annotated[str, typer.Option(help="Keras weights (.h5): a path or s3://bucket/key.")] = "",
    alpha: Annotated[float, typer.Option(help="The network's width: 0.35, 0.5, 0.75, 1.0, 1.3 or 1.4.")] = 1.0,
    input_px: Annotated[int, typer.Option(help="The side of its input: 96, 128, 160, 192 or 224.")] = 224,
    calibrate: Annotated[
        str, typer.Option(help="Photographs to calibrate int8 on: a folder, s3://bucket/prefix/ or a CSV of labels.")
    ] = "",
    packaged: Annotated[
        bool, typer.Option("--packaged", help="Take the packaged EfficientNet-Lite0, whatever REFUND_WEIGHTS says.")
    ] = False,
    fallback: Annotated[
        bool | None,
        typer.Option(
            "--fallback/--no-fallback",
            help="Without weights, take the packaged EfficientNet-Lite0; unless given, only on a local stack.",
        ),
    ] = None,
    champion: Annotated[
        bool, typer.Option("--champion/--no-champion", help="Where there is no champion yet, make it the champion.")
    ] = True,
    version: Annotated[
        str,
        typer.Option(help="Its version, to which the precision is added; by default it ends in the content's hash."),
    ] = "",
    reason: Annotated[
        str, typer.Option(help="Why it becomes champion, for the history; required away from a local stack.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Build and register a model: from --weights or REFUND_WEIGHTS, else Keras's download.

    With --calibrate an int8 form is built too; it is served if it agrees with float32. Where weights are not to be had,
    a local stack takes the packaged network; elsewhere only --fallback lets it. --packaged takes it at once.

    Example: refund model build --weights mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5 --calibrate photos/
    """
    on_a_laptop = find_access().local is not None
    as_usual = (alpha, input_px, calibrate) == (1.0, 224, "")  # who asks for another network means no packaged one
    with command_services() as services:
        outcome = build_and_register(
            services,
            weights=weights or None,
            alpha=alpha,
            input_px=input_px,
            calibrate=calibrate or None,
            packaged=packaged,
            fallback=on_a_laptop and as_usual if fallback is None else fallback,
            champion=champion,
            version=version or None,
            reason=history_reason(reason, services, champion=champion, on_a_laptop=on_a_laptop),
        )
    if as_json:
        print_json(outcome.as_json())
    else:
        say(outcome)


def say(outcome: BuildOutcome) -> None:
    """Print what was built, what is served and why, and what became of the champion."""
    for model in outcome.registered:
        console.print(f"Registered {model}")
    console.print(f"Served: {outcome.served}, for {outcome.reason}")
    if outcome.became_champion:
        console.print(f"Champion: {outcome.served}, from the next run on")
    elif outcome.champion == outcome.served:
        console.print(f"Champion: {outcome.champion}, as before")
    elif outcome.champion is not None:
        console.print(f"Champion: still {outcome.champion}; to change it: refund model promote {outcome.served}")


def history_reason(given: str, services: Services, *, champion: bool, on_a_laptop: bool) -> str:
    """The reason that the history keeps where the build becomes champion.

    Raises:
        SettingsError: none was given away from a local stack, and there is no champion yet.
    """
    from refund.lifecycle.build import current_champion

    if given.strip():
        return given.strip()
    if champion and not on_a_laptop and current_champion(services) is None:
        msg = "the champion changes only for a reason, which its history keeps; give --reason TEXT, or --no-champion"
        raise SettingsError(msg)
    return "refund model build"


def build_and_register(
    services: Services,
    *,
    weights: str | None,
    alpha: float = 1.0,
    input_px: int = 224,
    calibrate: str | None = None,
    packaged: bool = False,
    fallback: bool,
    champion: bool,
    version: str | None = None,
    reason: str,
) -> BuildOutcome:
    """As `refund.lifecycle.build.build_and_register`, in the name of who runs the command."""
    from refund.lifecycle import build as lifecycle

    return lifecycle.build_and_register(
        services,
        weights=weights,
        alpha=alpha,
        input_px=input_px,
        calibrate=calibrate,
        packaged=packaged,
        allow_fallback=fallback,
        champion=champion,
        by=who(),
        reason=reason,
        version=version,
        progress=step,
    )


def ensure_champion() -> str:
    """The champion's key; builds and promotes one where there is none yet."""
    with command_services() as services:
        try:
            return services.registry.resolve("champion").model
        except NoModelError:
            step("No model is registered as champion yet: building one")
        outcome = build_and_register(
            services, weights=None, fallback=True, champion=True, reason="first model of this stack"
        )
        return outcome.champion or outcome.served  # another may have become champion meanwhile
