"""The columns that a night stages say what the records of `decide` say, photo by photo."""

from __future__ import annotations

import json
from dataclasses import asdict
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from refund.errors import FatalRunError
from refund.model.decide import ScoredPhoto, decide, decide_columns
from refund.night.prediction_table import PredictionTables, _rounded
from refund.schemas import predictions_schema
from tests.model.factories import make_labels, make_taxonomy

LABELS = make_labels("running shoe", 'maillot, "one\tpiece"', "crêpe \\ 🥞", "tench", "jersey")
TAXONOMY = make_taxonomy(LABELS, "shoes", "clothing", "food_beverages", "not_a_product", "clothing")
DECLARED = [None, "shoes", "clothing", "no such department", ""]
PHOTO_IDS = [f"00000000-0000-0000-0000-{row:012d}" for row in range(6)]


def row_of(photo_id: str, photo: ScoredPhoto) -> dict[str, Any]:
    """A photo's record as the row that ``predictions.parquet`` is to hold of it."""
    best = photo.top[0]
    return {
        "photo_id": photo_id,
        "model": "tiny@1",
        "class_id": best.class_id,
        "class_name": best.class_name,
        "confidence": best.confidence,
        "top_k": json.dumps([asdict(score) for score in photo.top]),
        "category_scores": json.dumps(
            {score.category: round(score.score, 6) for score in photo.category_scores if score.score > 0}
        ),
        "category": photo.decision.category,
        "category_score": photo.decision.score,
        "kind": photo.decision.kind.value,
        "reasons": [reason.value for reason in photo.decision.reasons],
    }


def as_postgres_reads(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With the JSON parsed as jsonb is: keys in order, numbers as the decimals they are written as, 1.0 no 1."""

    def number(text: str) -> str:
        return f"{Decimal(text):f}"

    def parsed(text: str) -> Any:
        return json.loads(text, parse_float=number, parse_int=number, object_pairs_hook=list)

    return [row | {"top_k": parsed(row["top_k"]), "category_scores": parsed(row["category_scores"])} for row in rows]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    raw=arrays.arrays(
        np.float32,
        st.tuples(st.integers(0, 6), st.just(5)),
        elements=st.sampled_from([0.0, 1e-30, 1e-7, 2.5e-6, 0.125, 0.25, 1.0, 3.0]) | st.floats(0, 8, width=32),
    ),
    first=st.integers(0, 4),
    top_k=st.integers(1, 7),
    threshold=st.sampled_from([0.0, 0.5, 1.0]) | st.floats(0, 1),
    declared=st.lists(st.sampled_from(DECLARED), min_size=6, max_size=6),
)
@example(raw=np.zeros((2, 5), np.float32), first=0, top_k=5, threshold=1.0, declared=[None] * 6)
def test_columns_say_what_records_say(
    raw: np.ndarray, first: int, top_k: int, threshold: float, declared: list[str | None]
) -> None:
    raw[:, first] += np.float32(0.5)  # no row of zeros
    rows = raw / raw.sum(axis=1, keepdims=True)
    arguments: dict[str, Any] = {"labels": LABELS, "taxonomy": TAXONOMY, "top_k": top_k, "threshold": threshold}
    verdicts = decide_columns(rows, declared=declared[: len(rows)], **arguments)
    tables = PredictionTables(labels=LABELS, categories=TAXONOMY.categories, model="tiny@1")
    found = tables.rows(pa.array(PHOTO_IDS[: len(rows)], pa.string()), verdicts)
    found.validate(full=True)
    assert found.schema.equals(predictions_schema())
    photos = decide(rows, declared=declared[: len(rows)], **arguments)
    wanted = [row_of(photo_id, photo) for photo_id, photo in zip(PHOTO_IDS, photos, strict=False)]
    expected = pa.Table.from_pylist(wanted, schema=predictions_schema())
    assert as_postgres_reads(found.to_pylist()) == as_postgres_reads(expected.to_pylist())
    alone = [decide(rows[row : row + 1], declared=declared[row : row + 1], **arguments)[0] for row in range(len(rows))]
    assert alone == photos  # whatever the block that a photo is in


@settings(max_examples=60, deadline=None, derandomize=True)
@given(values=st.lists(st.floats(0, 1) | st.integers(0, 2 * 10**6).map(lambda half: half / 2e6), max_size=8))
@example(values=[0.0000005, 0.0000015, 0.1234565, 0.1234575, 0.9999995, 1.0, 0.0, 5e-324])
def test_scores_are_rounded_as_python_rounds(values: list[float]) -> None:
    assert _rounded(np.array(values, dtype=np.float64)).tolist() == [round(value, 6) for value in values]


def test_columns_and_records_refuse_the_same_rows() -> None:
    rows = np.array([[1, 0, 0, 0, 0], [np.nan, 0, 0, 0, 1]], dtype=np.float32)
    for decided in (decide, decide_columns):
        with pytest.raises(
            FatalRunError, match=r"^row 1 of 2 of model tiny@1, for 'b', is no probability distribution"
        ):
            decided(
                rows, labels=LABELS, taxonomy=TAXONOMY, top_k=1, threshold=0.5, declared=[None, None], model="tiny@1",
                names=["a", "b"],
            )  # fmt: skip
