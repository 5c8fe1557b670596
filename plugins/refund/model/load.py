"""Loads a model unit from its folder, checks it, and runs it over batches on several threads."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from refund.errors import FatalRunError, LabelMismatchError, ModelArtefactError
from refund.model.card import CARD_FILE, ModelCard
from refund.model.labels import Labels, load_labels
from refund.model.runtimes.base import Runtime

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_ARTEFACT_BYTES = 512 * 1024 * 1024
_AHEAD = 1  # blocks that the runtimes may be ahead of the caller; one keeps them busy while it works on the last
_REBUILD = "restore it, or build the model again: refund model build"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predicted:
    """What the network said of N photos; row *i* of both is photo *i*."""

    probabilities: NDArray[np.float32]  # (N, C), rows adding up to 1
    spent_s: NDArray[np.float32]  # (N,) seconds in the network


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A loaded model unit: its card, its labels, and one runtime per thread; a context manager."""

    card: ModelCard
    labels: Labels
    runtimes: tuple[Runtime, ...]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def runtime(self) -> Runtime:
        """The first runtime, for callers with one thread."""
        return self.runtimes[0]

    def predict(
        self, pixels: NDArray[np.uint8], batch_size: int = 8, *, spent_s: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Probabilities ``(N, C)`` for RGB pixels ``(N, H, W, 3) uint8``, in the order given.

        Batches of up to ``batch_size`` go to whichever runtime is free. Besides the result, memory holds one batch per
        runtime, so ``pixels`` may be a memory map larger than it. Where ``spent_s``, ``(N,)``,
        is given, each photo's seconds in the network are written there.

        Raises:
            FatalRunError: ``pixels`` is not of the model's input shape and type, or the network failed.
        """
        import numpy as np

        model = self if len(pixels) > batch_size else replace(self, runtimes=self.runtimes[:1])  # without threads
        blocks = [np.arange(len(pixels))]
        with closing(model.predict_blocks(pixels, blocks, batch_size=batch_size)) as predicted:
            (found,) = predicted
        if spent_s is not None:
            spent_s[:] = found.spent_s
        return found.probabilities

    def predict_blocks(
        self, pixels: NDArray[np.uint8], blocks: Iterable[NDArray[np.intp]], *, batch_size: int = 8
    ) -> Generator[Predicted, None, None]:
        """Predict block after block of the rows of ``pixels``; gives one `Predicted` per block, in order.

        The runtimes work on the next block while the caller is busy with the last one given, so that no core waits for
        another: memory holds the results of `_AHEAD` blocks besides that one, and the pixels of one batch per runtime.
        Close it where it is not read to its end (`contextlib.closing`): no further batch is begun then, and those that
        are under way are awaited.

        Raises:
            FatalRunError: ``pixels`` is not of the model's input shape and type, or the network failed.
        """
        import numpy as np

        expected = (self.card.input_height, self.card.input_width, 3)
        if pixels.ndim != 4 or pixels.shape[1:] != expected or pixels.dtype != np.uint8:
            msg = (
                f"model {self.card.key} takes uint8 pixels of shape (N, {', '.join(map(str, expected))}), got "
                f"{pixels.dtype} of shape {pixels.shape}; decode the photos to the size that the model card says"
            )
            raise FatalRunError(msg)
        if batch_size < 1:
            msg = f"batch_size must be 1 or more, got {batch_size}"
            raise ValueError(msg)
        pixels = np.asarray(pixels)  # slices of a memory map cost twice those of an array
        free: queue.SimpleQueue[Runtime] = queue.SimpleQueue()
        for runtime in self.runtimes:
            free.put(runtime)

        def predict_batch(into: Predicted, rows: NDArray[np.intp], start: int) -> None:
            batch = slice(start, start + batch_size)
            runtime = free.get()
            try:
                into.probabilities[batch] = runtime.predict(_rows(pixels, rows[batch]), into.spent_s[batch])
            finally:
                free.put(runtime)

        def empty(count: int) -> Predicted:
            return Predicted(
                probabilities=np.empty((count, len(self.labels)), dtype=np.float32),
                spent_s=np.empty(count, dtype=np.float32),
            )

        if len(self.runtimes) == 1:
            for rows in blocks:
                into = empty(len(rows))
                for start in range(0, len(rows), batch_size):
                    predict_batch(into, rows, start)
                yield into
            return
        pending: deque[tuple[Predicted, list[Future[None]]]] = deque()
        threads = ThreadPoolExecutor(len(self.runtimes), thread_name_prefix="inference")
        try:
            for rows in blocks:
                into = empty(len(rows))
                starts = range(0, len(rows), batch_size)
                pending.append((into, [threads.submit(predict_batch, into, rows, start) for start in starts]))
                if len(pending) > _AHEAD:
                    yield _awaited(*pending.popleft())
            while pending:
                yield _awaited(*pending.popleft())
        finally:
            threads.shutdown(wait=True, cancel_futures=True)  # do not work through the rest of a failed shard

    def close(self) -> None:
        """Give back memory and processes; a second call does nothing."""
        for runtime in self.runtimes:
            runtime.close()


def _awaited(predicted: Predicted, batches: list[Future[None]]) -> Predicted:
    for batch in batches:
        batch.result()
    return predicted


def _rows(pixels: NDArray[np.uint8], rows: NDArray[np.intp]) -> NDArray[np.uint8]:
    """These rows, ascending: in place where they follow each other, else copied."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
        return pixels[rows[0] : rows[-1] + 1]
    return pixels[rows]


def load_model(folder: Path, *, threads: int = 1, labels: Labels | None = None) -> Model:
    """Load the unit in ``folder`` (``card.json`` and the artefact) with one runtime per thread.

    ``labels`` are the project's own class list unless given.

    Raises:
        ModelArtefactError: card or artefact is missing, altered, unreadable, or of a newer schema.
        LabelMismatchError: the network's outputs and the labels differ in number.
    """
    if threads < 1:
        msg = f"threads must be 1 or more, got {threads}"
        raise ValueError(msg)
    card = read_card(folder)
    artefact = read_artefact(folder, card)
    labels = labels or load_labels()
    if card.class_count != len(labels):
        raise LabelMismatchError(model_key=card.key, output_count=card.class_count, label_count=len(labels))
    if card.labels_sha256 != labels.sha256:
        msg = (
            f"model {card.key} was built with another class list (SHA-256 {card.labels_sha256[:12]}…) than the present "
            f"one ({labels.sha256[:12]}…), so its predictions could carry wrong names; restore "
            f"include/imagenet_classes.csv, or build the model again: refund model build"
        )
        raise ModelArtefactError(msg)
    opened: list[Runtime] = []
    try:
        for _ in range(threads if card.runtime == "litert" else 1):  # Keras spreads one call over the cores itself
            opened.append(_open_runtime(folder, artefact, card))
            if opened[-1].class_count != len(labels):
                raise LabelMismatchError(
                    model_key=card.key, output_count=opened[-1].class_count, label_count=len(labels)
                )
    except BaseException:
        for runtime in opened:
            runtime.close()
        raise
    return Model(card=card, labels=labels, runtimes=tuple(opened))


def read_card(folder: Path) -> ModelCard:
    """Read ``card.json``.

    Raises:
        ModelArtefactError: it is missing, unreadable or malformed.
    """
    path = folder / CARD_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        msg = f"{path} is missing, expected a model card; {_REBUILD}"
        raise ModelArtefactError(msg) from exc
    except (OSError, UnicodeDecodeError) as exc:
        msg = f"{path} cannot be read: {exc}; {_REBUILD}"
        raise ModelArtefactError(msg) from exc
    return ModelCard.from_json(text, place=str(path))


def read_artefact(folder: Path, card: ModelCard) -> bytes:
    """Read the artefact that ``card`` names and check it by SHA-256.

    Raises:
        ModelArtefactError: it is missing, unreadable, far too large, or not the file that the card was written for.
    """
    path = folder / card.artefact_file
    try:
        if (size := path.stat().st_size) > MAX_ARTEFACT_BYTES:
            msg = f"{path} has {size:,} bytes, expected at most {MAX_ARTEFACT_BYTES:,}; {_REBUILD}"
            raise ModelArtefactError(msg)
        body = path.read_bytes()
    except FileNotFoundError as exc:
        msg = f"{path} of model {card.key} is missing; {_REBUILD}"
        raise ModelArtefactError(msg) from exc
    except OSError as exc:
        msg = f"{path} of model {card.key} cannot be read: {exc.strerror}; {_REBUILD}"
        raise ModelArtefactError(msg) from exc
    if (seen := sha256(body).hexdigest()) != card.artefact_sha256:
        msg = f"{path} has SHA-256 {seen}, its card says {card.artefact_sha256}: the file was altered; {_REBUILD}"
        raise ModelArtefactError(msg)
    return body


def _open_runtime(folder: Path, artefact: bytes, card: ModelCard) -> Runtime:
    if card.runtime == "keras":
        from refund.model.runtimes.keras import KerasRuntime

        return KerasRuntime(folder / card.artefact_file, card=card)
    from refund.model.runtimes.litert import LiteRtRuntime

    return LiteRtRuntime(artefact, card=card)
