"""Opens a model file from outside: in a process of its own, with no secret in its environment and little to spend."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from refund.errors import ModelArtefactError
from refund.model.child import child_environment, module_command

CHILD_TIMEOUT_S = 120.0  # by the clock; `refund.lifecycle.outside_child` limits memory, CPU and writing itself
_SHOWN_CHARACTERS = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a LiteRT file says of itself."""

    input_shape: tuple[int, ...]  # [1, height, width, 3] for a classifier of photographs
    input_type: str  # float32, uint8 …
    output_shape: tuple[int, ...]
    precision: str  # int8 where any tensor is of 8 bits, else float32

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read the child's answer."""
        return cls(
            input_shape=tuple(values["input_shape"]),
            input_type=values["input_type"],
            output_shape=tuple(values["output_shape"]),
            precision=values["precision"],
        )

    @property
    def sentence(self) -> str:
        """Input and output for people."""
        shapes = [" × ".join(str(side) for side in shape) for shape in (self.input_shape, self.output_shape)]
        return f"input {shapes[0]} {self.input_type}, output {shapes[1]}, {self.precision}"


def look(artefact: Path, *, place: str) -> Seen:
    """Input and output of a LiteRT file; ``place`` names it in errors.

    Raises:
        ModelArtefactError: it cannot be loaded, or loading it crashes, hangs or swells.
    """
    return Seen.from_json(_ask("look", artefact, place=place))


def try_out(folder: Path, *, place: str) -> None:
    """Load a whole unit as a night does, SHA-256 and labels checked, and predict fixed pixels.

    Raises:
        ModelArtefactError: the unit cannot be loaded, its scores are not what its card says, or it crashes, hangs or
            swells.
    """
    _ask("try", folder, place=place)


def _environment() -> dict[str, str]:
    """What the child is given: no proxy either, whose address may hold a password; it needs no network."""
    return {name: value for name, value in child_environment().items() if not name.upper().endswith("_PROXY")}


def _ask(question: str, path: Path, *, place: str) -> dict[str, Any]:
    command = module_command("refund.lifecycle.outside_child", question, str(path.resolve()))
    try:
        done = subprocess.run(
            command,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=CHILD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        msg = f"{place} was not opened within {CHILD_TIMEOUT_S:.0f} s; {_REFUSED}"
        raise ModelArtefactError(msg) from exc
    answer: dict[str, Any] = {}
    lines = done.stdout.decode(errors="replace").splitlines()
    if done.returncode == 0 and lines and lines[-1].startswith("{"):
        with suppress(ValueError, RecursionError):  # a child that a file took over says anything
            answer = json.loads(lines[-1])
    if "failure" in answer:
        text = str(answer["failure"]).replace(f"{path.resolve()}", place.rstrip("/"))
        raise ModelArtefactError(text)
    if not answer:
        said = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        last = said[-1][:_SHOWN_CHARACTERS] if said else "it said nothing"
        msg = f"the process that opened {place} ended early (exit code {done.returncode}: {last}); {_REFUSED}"
        raise ModelArtefactError(msg)
    return answer


_REFUSED = "a file that cannot be opened safely is not registered: export it again, or choose another"
