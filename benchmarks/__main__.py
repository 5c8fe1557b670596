"""``python -m benchmarks``: measure what a night costs on this machine, show it, and keep it as JSON."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

_ALTERNATIVE_PHOTOS = 64


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; the process's exit status."""
    given = _parser().parse_args(arguments)
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):  # one core is one core, also for numpy's products
        os.environ.setdefault(variable, "1")
    from benchmarks import results

    console = Console(width=None if sys.stdout.isatty() else 120)
    if given.drift:
        return run_drift(quick=given.quick, workers=given.workers, output=given.output, console=console)
    if given.desk:
        return run_desk(quick=given.quick, model=given.model, output=given.output, console=console)
    if given.desk_start:
        from benchmarks import desk_start

        return desk_start.main(given.rounds or (2 if given.quick else desk_start.ROUNDS))
    if given.isolation:
        measured, facts = run_isolation(photos=given.photos or 500, rounds=given.rounds or 5, console=console)
        return _tell(console, given.output or results.ISOLATION_FILE, measured, facts)
    measured, facts = run(
        photos=given.photos or (48 if given.quick else 500),
        rounds=given.rounds or (2 if given.quick else 5),
        quick=given.quick,
        model=given.model,
        console=console,
    )
    return _tell(console, given.output or results.RESULTS_FILE, measured, facts)


def _tell(console: Console, output: Path, measured: Any, facts: dict[str, Any]) -> int:
    from benchmarks import results

    results.show(console, measured=measured, facts=facts)
    results.write_json(output, measured=measured, facts=facts)
    console.print(f"load average {facts['load_before']} before, {facts['load_after']} after; kept in {output}")
    return 0


def run_drift(*, quick: bool, workers: int, output: Path | None, console: Console) -> int:
    """Simulate how often the drift rule is wrong; the tables of docs/drift.md are written by a full run alone."""
    from benchmarks import drift_page

    console.print(f"simulating drift: about 4 minutes of CPU in {workers} process(es)" if not quick else "few windows")
    sizes = {"windows": 3, "nights": 10, "draws": 499, "direct": 3} if quick else drift_page.FULL
    kept = output or drift_page.RESULTS_FILE
    whole = not quick and output is None
    tables = drift_page.run(
        sizes=sizes,
        workers=workers,
        output=kept,
        page=drift_page.PAGE if whole else None,
        progress=console.print,
    )
    print(tables)
    console.print(f"kept in {kept}{' and docs/drift.md' if whole else ''}")
    return 0


def run_desk(*, quick: bool, model: Path | None, output: Path | None, console: Console) -> int:
    """Measure what a request to the refund desk costs."""
    import json

    from benchmarks import desk
    from benchmarks.arena import SHARED

    with tempfile.TemporaryDirectory(prefix="refund-bench-") as folder:
        unit = model or desk.build_int8(
            Path(folder) / "models",
            weights=_weights(SHARED),
            photographs=SHARED / "images" / "imagenet",
            progress=console.print,
        )
        found = desk.run(quick=quick, model=unit, progress=console.print)
    for line in desk.tell(found):
        console.print(line)
    kept = output or desk.RESULTS_FILE
    kept.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    console.print(f"kept in {kept}")
    return 0


def run_isolation(*, photos: int, rounds: int, console: Console) -> tuple[Any, dict[str, Any]]:
    """Measure only what isolation costs: no server, no model; returns as `run` does."""
    from benchmarks import isolation
    from benchmarks.arena import find_photographs
    from benchmarks.measure import interleave
    from refund.settings import Settings

    with tempfile.TemporaryDirectory(prefix="refund-bench-") as name:
        folder = Path(name)
        photographs, source = find_photographs(folder / "samples")
        bodies = [photographs[number % len(photographs)] for number in range(photos)]
        large = isolation.enlarged(photographs, photos=max(2, photos // 5))
        entered = [
            *isolation.decoding(bodies, folder=folder / "small", settings=Settings()),
            *isolation.decoding(large, folder=folder / "large", settings=Settings(), suffix=isolation.LARGE),
        ]
        load_before = _load()
        measured = interleave(entered, rounds=rounds, progress=console.print)
    facts = {"photos": photos, "rounds_run": rounds, "photographs": source, "model": "no model"}
    return measured, {**facts, "load_before": load_before, "load_after": _load()}


def run(*, photos: int, rounds: int, quick: bool, model: Path | None, console: Console) -> tuple[Any, dict[str, Any]]:
    """Prepare, measure, clean up; returns the measurements by name and what they are of."""
    from benchmarks import contenders
    from benchmarks.arena import SHARED, find_photographs, open_arena
    from benchmarks.keras_alone import keras_alone
    from benchmarks.measure import interleave
    from benchmarks.results import with_sums
    from refund.model.load import load_model

    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="refund-bench-")))
        photographs, source = find_photographs(scratch / "samples")
        weights = _weights(SHARED)
        if model is None:
            model = _build(scratch / "models", weights, console)
        arena = stack.enter_context(
            open_arena(photographs=photographs, photos=photos, model_folder=model, progress=console.print)
        )
        one = stack.enter_context(load_model(model))
        pixels = contenders.decoded_pixels(arena)
        entered = [
            contenders.night(arena),
            contenders.night_of_one(arena),
            *contenders.floor(arena, one, pixels),
            contenders.downloads(arena),
            *contenders.decoding(arena),
            contenders.full_decode(arena),
            *contenders.inference(arena, pixels, stack),
        ]
        if not quick and importlib.util.find_spec("keras") and importlib.util.find_spec("tensorflow"):
            entered.append(
                stack.enter_context(
                    keras_alone(
                        weights=weights, folder=scratch / "alternative", bodies=arena.bodies[:_ALTERNATIVE_PHOTOS]
                    )
                )
            )
        load_before = _load()
        measured = with_sums(interleave(entered, rounds=rounds, progress=console.print))
        facts = {
            "photos": photos,
            "rounds_run": rounds,
            "photographs": source,
            "model": one.card.key,
            "load_before": load_before,
            "load_after": _load(),
        }
    return measured, facts


def _build(target: Path, weights: Path | None, console: Console) -> Path:
    """The folder of the unit that was built below ``target``."""
    from refund.model.build import build_models

    console.print("building the model (20 s; --model FOLDER takes one that is built)")
    built = build_models(target, weights=weights, allow_fallback=True, progress=console.print)
    return target / built.served.precision


def _weights(shared: Path) -> Path | None:
    """``REFUND_WEIGHTS`` where it is a file here, else the weights beside the checkout, else none."""
    named = [Path(text) for text in (os.environ.get("REFUND_WEIGHTS"),) if text]
    return next((path for path in (*named, *sorted((shared / "models").glob("*.h5"))) if path.is_file()), None)


def _load() -> float:
    return round(os.getloadavg()[0], 2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--photos", type=_count, help="photos per round (default 500, with --quick 48)")
    parser.add_argument("--rounds", type=_count, help="rounds (default 5, with --quick 2)")
    parser.add_argument("--quick", action="store_true", help="few photos, two rounds, without TensorFlow's alternative")
    parser.add_argument("--model", type=Path, help="folder of a built model unit (default: build one)")
    parser.add_argument("--isolation", action="store_true", help="only what isolated decoding costs; needs no servers")
    parser.add_argument("--desk", action="store_true", help="only what a request to the refund desk costs")
    parser.add_argument(
        "--desk-start", action="store_true", help="only what the plugin costs a cold API server (7 rounds); no servers"
    )
    parser.add_argument("--drift", action="store_true", help="only the simulation of drift; needs no servers")
    parser.add_argument("--workers", type=_count, default=1, help="processes of the simulation of drift (default 1)")
    parser.add_argument("--output", type=Path, help="JSON file to write (default: in benchmarks/results)")
    return parser


def _count(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {value}")  # noqa: EM102  (argparse prints it)
    return value


if __name__ == "__main__":
    sys.exit(main())
