"""``python -m benchmarks``: measure what a night costs on this machine, show it, and keep it (docs/performance.md)."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from benchmarks.bench import Sizes
    from benchmarks.results import Measured, Pairs


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is named, by default the whole; the process's exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments and arguments[0] in _OF_THEIR_OWN:
        module = importlib.import_module(f"benchmarks.{_OF_THEIR_OWN[arguments[0]][0]}")
        return int(module.main(arguments[1:]))
    if not arguments or (arguments[0] not in _WHAT and arguments[0] not in {"-h", "--help"}):
        arguments.insert(0, "night")
    given = _parser().parse_args(arguments)
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):  # one core is one core, also for numpy's products
        os.environ.setdefault(variable, "1")
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 120)
    status: int = _WHAT[given.what][0](given, console)
    return status


def _night(given: argparse.Namespace, console: Console) -> int:
    from benchmarks import bench, page, tables

    sizes = _sized(bench.QUICK if given.quick else bench.FULL, given)
    content = bench.run(sizes=sizes, model=given.model, progress=console.print)
    tables.show(console, content)
    folder = given.output or (page.DOCS if sizes == bench.FULL else None)
    if folder is None:
        console.print("not kept, for it is no full run; --output FOLDER keeps it")
    else:
        page.keep(folder, content)
        console.print(f"kept in {folder}")
    return 0


def _sized(sizes: Sizes, given: argparse.Namespace) -> Sizes:
    """The sizes with what was asked for otherwise."""
    from dataclasses import replace

    if given.rounds:
        sizes = replace(sizes, rounds=given.rounds)
    if given.without:
        kept = {name: counts for name, counts in sizes.rivals.items() if name not in given.without}
        sizes = replace(sizes, rivals=kept)
    if given.photos:
        few = {name: min(count, given.photos) for name, count in sizes.ours.items()}
        rivals = {
            rival: {name: min(count, given.photos) for name, count in counts.items()}
            for rival, counts in sizes.rivals.items()
        }
        enlarge = min(sizes.enlarge, given.photos)
        sizes = replace(sizes, ours=few, rivals=rivals, memory=(given.photos, 2 * given.photos), enlarge=enlarge)
    return sizes


def _memory(given: argparse.Namespace, console: Console) -> int:
    import json

    from benchmarks import bench

    sizes = bench.QUICK if given.quick else bench.FULL
    found = bench.run_memory(sizes=sizes, model=given.model, progress=console.print)
    console.print_json(json.dumps(found))
    if given.output:
        from benchmarks.results import write_json

        write_json(given.output, found)
    return 0


def _isolation(given: argparse.Namespace, console: Console) -> int:
    from benchmarks import isolation

    found = isolation.run(
        photos=given.photos or (48 if given.quick else 500),
        rounds=given.rounds or (2 if given.quick else 5),
        progress=console.print,
    )
    return _tell(console, given.output or isolation.RESULTS_FILE, found, isolation.PAIRS)


def _parts(given: argparse.Namespace, console: Console) -> int:
    from benchmarks import parts

    found = parts.run(
        photos=given.photos or (48 if given.quick else 250),
        rounds=given.rounds or (2 if given.quick else 5),
        model=given.model,
        progress=console.print,
    )
    return _tell(console, given.output or parts.RESULTS_FILE, found, parts.PAIRS)


def _tell(console: Console, output: Path, found: tuple[Measured, dict[str, Any]], pairs: Pairs) -> int:
    from benchmarks import results

    measured, facts = found
    facts = {**facts, "load_after": round(os.getloadavg()[0], 2)}
    title = f"{facts['photos']} photos ({facts['photographs']}), {facts['rounds_run']} rounds, {facts['model']}"
    results.show(console, measured=measured, pairs=pairs, title=title)
    results.write_json(output, results.content_of(measured, pairs, facts))
    console.print(f"load average {facts['load_after']} after; kept in {output}")
    return 0


def _drift(given: argparse.Namespace, console: Console) -> int:
    """The tables of docs/drift.md are written by a full run alone."""
    from benchmarks import drift_page

    said = "few windows" if given.quick else f"simulating drift: 4 minutes of CPU in {given.workers} process(es)"
    console.print(said)
    sizes = {"windows": 3, "nights": 10, "draws": 499, "direct": 3} if given.quick else drift_page.FULL
    kept = given.output or drift_page.RESULTS_FILE
    whole = not given.quick and given.output is None
    tables = drift_page.run(
        sizes=sizes,
        workers=given.workers,
        output=kept,
        page=drift_page.PAGE if whole else None,
        progress=console.print,
    )
    print(tables)
    console.print(f"kept in {kept}{' and docs/drift.md' if whole else ''}")
    return 0


def _desk(given: argparse.Namespace, console: Console) -> int:
    from benchmarks import desk
    from benchmarks.results import write_json
    from benchmarks.units import find_units

    with tempfile.TemporaryDirectory(prefix="refund-bench-") as folder:
        unit = find_units(given.model, Path(folder) / "models", progress=console.print).served
        found = desk.run(quick=given.quick, model=unit, progress=console.print)
    for line in desk.tell(found):
        console.print(line)
    kept = given.output or desk.RESULTS_FILE
    write_json(kept, found)
    console.print(f"kept in {kept}")
    return 0


def _desk_start(given: argparse.Namespace, console: Console) -> int:
    from benchmarks import desk_start

    return desk_start.main(given.rounds or (2 if given.quick else desk_start.ROUNDS))


_MODEL, _ROUNDS, _PHOTOS = "--model", "--rounds", "--photos"
_WHAT = {
    "night": (
        _night,
        (_MODEL, _ROUNDS, _PHOTOS),
        "our stages, the floor and the rivals; what is done where nothing is named",
    ),
    "memory": (_memory, (_MODEL,), "only the peak memory of a small and of a large night"),
    "parts": (_parts, (_MODEL, _ROUNDS, _PHOTOS), "the choices inside our stages, each against another"),
    "isolation": (_isolation, (_ROUNDS, _PHOTOS), "what isolated decoding costs; no servers, no model"),
    "drift": (_drift, (), "how often the drift rule is wrong, simulated; no servers"),
    "desk": (_desk, (_MODEL,), "what a request to the refund desk costs"),
    "desk-start": (_desk_start, (_ROUNDS,), "what the plugin costs a cold API server; no servers"),
}

_OF_THEIR_OWN = {  # what takes other options: the module, and what it measures
    "fixed": ("fixed_cost", "seconds of a night of ten photos on a live Airflow"),
    "overlap": ("overlap", "nights whose shards overlap, and nights whose shards do not, on a live Airflow"),
    "profile": ("profile_night", "where the CPU of our stages goes, by py-spy"),
    "large": ("large_night", "whether a photo costs more in a night of 100,000 photos"),
    "ten-million": ("ten_million", "the report's queries on ten million decisions, with their plans"),
}


def _parser() -> argparse.ArgumentParser:
    others = "".join(f"\n  {name:<13} {told}" for name, (_, told) in _OF_THEIR_OWN.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=f"further ones, each with a --help of its own:{others}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="what", required=True)
    options: dict[str, dict[str, Any]] = {
        _MODEL: {"type": Path, "help": "folder of a built model unit, float32 beside it (default: build both)"},
        _ROUNDS: {"type": _count, "help": "rounds"},
        _PHOTOS: {"type": _count, "help": "photos per round, at most"},
    }
    for name, (_, takes, told) in _WHAT.items():
        command = commands.add_parser(name, help=told, description=told)
        command.add_argument("--quick", action="store_true", help="few photos and rounds: whether it works")
        command.add_argument("--output", type=Path, help="where to keep what was found (night: a folder, else a file)")
        for option in takes:
            command.add_argument(option, **options[option])
        if name == "night":
            command.add_argument("--without", action="append", metavar="RIVAL", help="leave out a rival")
        if name == "drift":
            command.add_argument("--workers", type=_count, default=1, help="processes (default 1)")
    return parser


def _count(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {value}")  # noqa: EM102  (argparse prints it)
    return value


if __name__ == "__main__":
    sys.exit(main())
