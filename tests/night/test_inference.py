"""Blocks of photos through the network, and smaller ones where memory runs out in the middle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from refund.errors import MemoryShortageError
from refund.model.load import Model, Predicted, load_model
from refund.night.inference import in_blocks
from refund.night.room import InferenceRoom
from tests.night.factories import write_model

Rows = list[tuple[int, NDArray[np.float32]]]
ROOM = InferenceRoom(threads=2, block_photos=16, batch_size=8, note=None)
SLOTS = np.array([slot for slot in range(40) if slot % 9])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    write_model(folder, size=(8, 8))
    with load_model(folder, threads=2) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, size=(40, 8, 8, 3), dtype=np.uint8)


def judge_with(most: int) -> Callable[[NDArray[np.intp], Predicted], Rows]:
    """What the network said of each slot; more than ``most`` photos at once need more memory than any machine has."""

    def judge(block: NDArray[np.intp], found: Predicted) -> Rows:
        if len(block) > most:
            np.empty(1 << 60, dtype=np.uint8)
        return list(zip(block.tolist(), found.probabilities, strict=True))

    return judge


def run(model: Model, pixels: NDArray[np.uint8], *, most: int, notes: list[str]) -> list[Rows]:
    with closing(in_blocks(model, pixels, SLOTS, room=ROOM, judge=judge_with(most), say=notes.append)) as judged:
        return list(judged)


def test_where_memory_suffices_blocks_are_as_planned(model: Model, pixels: NDArray[np.uint8]) -> None:
    notes: list[str] = []
    assert [len(rows) for rows in run(model, pixels, most=16, notes=notes)] == [16, 16, 3]
    assert notes == []


@pytest.mark.parametrize(("most", "blocks"), [(10, 5), (1, 35)])
def test_where_memory_runs_out_blocks_are_halved_and_every_photo_comes_once(
    model: Model, pixels: NDArray[np.uint8], most: int, blocks: int
) -> None:
    notes: list[str] = []
    found = run(model, pixels, most=most, notes=notes)
    assert len(found) == blocks
    rows = [row for block in found for row in block]
    assert [slot for slot, _ in rows] == SLOTS.tolist()
    assert np.array_equal(np.stack([scores for _, scores in rows]), model.predict(pixels[SLOTS]))
    assert notes[0] == (
        "classify met little memory: it ran out over 16 photos at once. It goes on with 8: no verdict changes, it "
        "takes longer. Give the worker more memory or fewer tasks at once, or say by REFUND_TASK_MEMORY_BYTES how much "
        "one task may take"
    )
    assert len(notes) == {10: 1, 1: 4}[most]


def test_memory_that_runs_out_in_the_network_halves_the_block_too(
    tmp_path: Path, pixels: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "tiny", size=(8, 8))
    with load_model(tmp_path / "tiny", threads=2) as model:
        whole = type(model.runtime).predict

        def predict(runtime: object, given: NDArray[np.uint8], spent_s: NDArray[np.float32]) -> NDArray[np.float32]:
            if len(given) > 2:
                np.empty(1 << 60, dtype=np.uint8)
            return whole(runtime, given, spent_s)  # type: ignore[arg-type]

        monkeypatch.setattr(type(model.runtime), "predict", predict)
        notes: list[str] = []
        found = run(model, pixels, most=16, notes=notes)
    assert [slot for block in found for slot, _ in block] == SLOTS.tolist()
    assert [note.partition(" over ")[2].partition(" ")[0] for note in notes] == ["16", "8", "4"]


def test_memory_that_runs_out_over_one_photo_is_an_error(model: Model, pixels: NDArray[np.uint8]) -> None:
    text = r"memory ran out over a single photo \(Unable to allocate .*\)\. The task is tried again; where that "
    with pytest.raises(MemoryShortageError, match=text):
        run(model, pixels, most=0, notes=[])
