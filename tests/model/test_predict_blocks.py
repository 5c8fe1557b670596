"""Block after block through the network: the same values as at once, with the runtimes ahead by one block."""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refund.errors import FatalRunError
from refund.model.load import Model
from tests.model.factories import make_card
from tests.model.test_load import COLOURS, load, make_unit, plain

PIXELS = np.random.default_rng(3).integers(1, 256, (23, 4, 4, 3), dtype=np.uint8)
PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def unit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_unit(tmp_path_factory.mktemp("unit"))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    rows=st.lists(st.integers(0, len(PIXELS) - 1), unique=True).map(sorted),
    block=st.integers(1, 9),
    batch_size=st.integers(1, 5),
    threads=st.integers(1, 3),
)
def test_blocks_of_any_rows_are_what_they_are_at_once(
    unit: Path, rows: list[int], block: int, batch_size: int, threads: int
) -> None:
    chosen = np.array(rows, dtype=np.intp)
    blocks = [chosen[start : start + block] for start in range(0, len(chosen), block)]
    with load(unit, threads=threads) as model:
        at_once = model.predict(PIXELS, 8)
        with closing(model.predict_blocks(PIXELS, blocks, batch_size=batch_size)) as predicted:
            found = list(predicted)
    assert [len(one.spent_s) for one in found] == [len(one) for one in blocks]
    for one, which in zip(found, blocks, strict=True):
        assert np.array_equal(one.probabilities, at_once[which])
        assert (one.spent_s > 0).all()


@dataclass
class Counting:
    """A runtime that counts the photos it is given, and fails at one whose first value is ``fails_at``."""

    fails_at: int = 255
    seen: list[int] = field(default_factory=list)
    more: threading.Condition = field(default_factory=threading.Condition)
    class_count: int = 3

    def predict(self, pixels: np.ndarray, spent_s: np.ndarray | None = None) -> np.ndarray:
        with self.more:
            self.seen += pixels[:, 0, 0, 0].tolist()
            self.more.notify_all()
        if self.fails_at in self.seen:
            msg = f"out of luck at {self.fails_at}"
            raise FatalRunError(msg)
        return np.full((len(pixels), 3), 1 / 3, dtype=np.float32)

    def close(self) -> None: ...


def counting_model(runtime: Counting) -> Model:
    return Model(card=make_card(input_height=4, input_width=4), labels=COLOURS, runtimes=(runtime, runtime))


BLOCKS = [np.arange(start, start + 4) for start in range(0, 20, 4)]
NUMBERED = plain(*((number, 0, 0) for number in range(20)))


def test_the_runtimes_are_at_work_on_the_next_block_and_no_further() -> None:
    runtime = Counting()
    with closing(counting_model(runtime).predict_blocks(NUMBERED, BLOCKS, batch_size=1)) as predicted:
        for ahead in (8, 12, 16, 20, 20):
            next(predicted)
            with runtime.more:  # while the caller has the block and asks for nothing
                while len(runtime.seen) < ahead:
                    assert runtime.more.wait(PATIENCE_S)
                assert sorted(runtime.seen) == list(range(ahead))
        with pytest.raises(StopIteration):
            next(predicted)


def test_closed_early_nothing_more_is_begun_and_no_thread_stays() -> None:
    runtime = Counting()
    with closing(counting_model(runtime).predict_blocks(NUMBERED, BLOCKS, batch_size=1)) as predicted:
        next(predicted)
    assert set(runtime.seen) <= set(range(8))
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("inference")]


def test_blocks_before_a_failure_are_given_and_the_failure_is_its_own() -> None:
    runtime = Counting(fails_at=9)
    given = []
    with (
        pytest.raises(FatalRunError, match=r"^out of luck at 9$"),
        closing(counting_model(runtime).predict_blocks(NUMBERED, BLOCKS, batch_size=4)) as predicted,
    ):
        given += [len(one.spent_s) for one in predicted]
    assert 19 not in runtime.seen


def test_pixels_and_batches_that_do_not_fit_are_refused_before_anything_is_predicted() -> None:
    model = counting_model(Counting())
    with pytest.raises(FatalRunError, match=r"takes uint8 pixels of shape \(N, 4, 4, 3\), got uint8 of shape \(2, 5"):
        next(model.predict_blocks(np.zeros((2, 5, 4, 3), dtype=np.uint8), BLOCKS))
    with pytest.raises(ValueError, match="batch_size must be 1 or more, got 0"):
        next(model.predict_blocks(NUMBERED, BLOCKS, batch_size=0))
