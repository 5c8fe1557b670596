"""Our side of a rival: start its process, ask it for rounds, and end it with everything that it started.

A rival gets the keys in every request, reads the photos from the same S3, and writes to no database, which is generous:
our night does. Importing TensorFlow, loading the model, tracing it and starting workers happen before its clock runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import selectors
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

from benchmarks.measure import Measurement
from refund.settings import S3Access

NAMES = ("tf_data", "one_predict", "ray_data")
INTERPRETER = Path(__file__).resolve().parents[2] / ".venv-bench" / "bin" / "python"
_CHECKOUT = Path(__file__).resolve().parents[2]
_MARK = "REFUND_RIVAL"  # in the environment of all that a rival starts, by which it is found and ended
_OURS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PYTHONPATH")  # the benchmark's own choices, not the rival's
_PATIENCE_S = 900.0
_FAREWELL_S = 20.0  # for it to end by itself, and for what it left behind
_LOOK_S = 0.5
_LAST_WORDS = 800  # characters


class RivalLeftOutError(RuntimeError):
    """This rival cannot run here, which is no fault of the benchmark: leave it out and say why."""


class RivalFailedError(RuntimeError):
    """A rival that had started died, kept silent or answered nonsense."""


@dataclass(slots=True, kw_only=True)
class Rival:
    """A rival that has started, loaded its model and is warm."""

    name: str
    versions: Mapping[str, str]  # of the libraries it uses
    classified: int = 0  # photos of the last round that got a class; broken ones do not
    _process: subprocess.Popen[str]
    _said: IO[str] = field(repr=False)
    _patience_s: float = _PATIENCE_S

    def run(self, keys: Sequence[str]) -> Measurement:
        """One round over these photos. CPU is that of the rival's process and all its descendants."""
        answer = self._round(keys, predictions=False)
        return Measurement(photos=len(keys), wall_s=answer["wall_s"], cpu_s=answer["cpu_s"])

    def classify(self, keys: Sequence[str]) -> list[int | None]:
        """The class index with the highest probability of each photo, None where it could not be read."""
        found = self._round(keys, predictions=True).get("predictions")
        if not isinstance(found, list) or len(found) != len(keys):
            msg = f"{self.name} was asked for {len(keys)} classes and answered {str(found)[:80]}"
            raise RivalFailedError(msg)
        return found

    def _round(self, keys: Sequence[str], *, predictions: bool) -> dict[str, Any]:
        answer = self._ask({"keys": list(keys), "predictions": predictions})
        numbers = [answer.get(field_name) for field_name in ("photos", "classified", "wall_s", "cpu_s")]
        if answer.get("photos") != len(keys) or not all(isinstance(number, int | float) for number in numbers):
            msg = f"{self.name} was given {len(keys)} keys and answered {str(answer)[:200]}"
            raise RivalFailedError(msg)
        self.classified = answer["classified"]
        return answer

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died; its last words are told below
            print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._hear()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        give_up_at = time.monotonic() + self._patience_s
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._process.stdout, selectors.EVENT_READ)
            # Who has died may have left children that hold the pipe open, so that its end is never read.
            while not waiting.select(_LOOK_S) and self._process.poll() is None:
                if time.monotonic() > give_up_at:
                    msg = f"{self.name} did not answer within {self._patience_s:.0f} s{self._last_words()}"
                    raise RivalFailedError(msg)
            heard = bool(waiting.select(0))
        line = self._process.stdout.readline() if heard else ""
        if not line:
            status = self._process.wait()
            msg = f"{self.name} ended with status {status} before it answered{self._last_words()}"
            raise RivalFailedError(msg)
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            msg = f"{self.name} must answer with one JSON object on a line, got {line[:80]!r}"
            raise RivalFailedError(msg)
        return answer

    def _last_words(self) -> str:
        self._said.seek(0)
        said = self._said.read().strip()
        return f"; its last words: {said[-_LAST_WORDS:]}" if said else "; it said nothing"


@contextmanager
def rival(
    name: str,
    *,
    python: Path,
    access: S3Access,
    weights: Path | None,
    warm_up: Sequence[str] = (),
    module: str = "benchmarks.rivals",
    patience_s: float = _PATIENCE_S,
) -> Iterator[Rival]:
    """Start the rival ``name`` with the interpreter ``python``; it and all that it started end with the block.

    Without ``weights`` (a Keras .h5 file) the network gets random ones, which are as fast. ``warm_up`` are keys of
    photos that it classifies once before it is ready, so that its connections and its memory are warm too. Raises
    `RivalLeftOutError` where it cannot run here, `RivalFailedError` if it dies later.
    """
    if not os.access(python, os.X_OK):
        made = f"{INTERPRETER.parents[1].name}/.installed"
        msg = f"{name} is left out: there is no interpreter {python}; make it: make {made}"
        raise RivalLeftOutError(msg)
    mark = secrets.token_hex(8)
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        process = subprocess.Popen(
            [str(python), "-m", module, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env=_environment(mark),
            cwd=_CHECKOUT,
        )
        started = Rival(name=name, versions={}, _process=process, _said=said, _patience_s=patience_s)
        try:
            config = {**asdict(access), "weights": str(weights) if weights else None, "input_px": 224}
            ready = started._ask({**config, "warm_up": list(warm_up)})
            if "left_out" in ready:
                msg = f"{name} is left out: {ready['left_out']}"
                raise RivalLeftOutError(msg)
            started.versions = dict(ready.get("versions", {}))
            yield started
        finally:
            _end(process, mark)


def accuracy(predictions: Sequence[int | None], labels: Sequence[int]) -> float:
    """The part of the photos whose class was found, 0 to 1; a photo without a class is a wrong one."""
    right = sum(found == label for found, label in zip(predictions, labels, strict=True))
    return right / len(labels)


def _environment(mark: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in _OURS and not name.startswith("RAY_")}
    return {**inherited, _MARK: mark, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}


def _end(process: subprocess.Popen[str], mark: str) -> None:
    """Close its input, which ends it, and end whatever of it is still there after a while."""
    left = _descendants(process.pid)
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(_FAREWELL_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
    left = [*{*left, *_marked(mark)}]
    for one in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.terminate()
    _, alive = psutil.wait_procs(left, timeout=_FAREWELL_S)
    for one in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(alive, timeout=_FAREWELL_S)


def _descendants(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return list(psutil.Process(pid).children(recursive=True))
    return []


def _marked(mark: str) -> list[psutil.Process]:
    """The living processes whose environment carries the mark, also those that an ended parent left behind.

    Not all of them: who changes its own title, as Ray's workers do, may write over its environment.
    """
    found: list[psutil.Process] = []
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if one.environ().get(_MARK) == mark:
                found.append(one)
    return found
