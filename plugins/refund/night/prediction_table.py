"""Writes what was decided of photos as the columns of ``predictions.parquet``, without a Python object per photo."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from refund.model.decide import REASONS
from refund.records import DecisionKind
from refund.schemas import predictions_schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from refund.model.decide import Verdicts
    from refund.model.labels import Labels

_DECIMALS = 6  # of category scores
_NEAR = 1e-6  # of a step: nearer to the middle between two, only exact arithmetic knows which way to round


class PredictionTables:
    """Makes the rows of blocks of photos that ``model`` (name@version) scored; what all blocks share is made once."""

    def __init__(self, *, labels: Labels, categories: Sequence[str], model: str) -> None:
        import pyarrow as pa

        self._model = model
        self._class_ids = pa.array(labels.class_ids)
        self._class_names = pa.array(labels.class_names)
        named = zip(labels.class_ids, labels.class_names, strict=True)
        # up to the number that follows: {"class_id": "n…", "class_name": "…", "confidence":
        self._classes = _texts(
            json.dumps({"class_id": class_id, "class_name": name, "confidence": 0})[: -len("0}")]
            for class_id, name in named
        )
        self._categories = pa.array(categories)
        self._keys = _texts(f"{json.dumps(category)}: " for category in categories)
        self._reasons = pa.array([reason.value for reason in REASONS])
        self._kinds = pa.array([DecisionKind.AUTO.value, DecisionKind.REVIEW.value])

    def rows(self, photo_ids: pa.Array, verdicts: Verdicts) -> pa.Table:
        """One row per photo, in order.

        The numbers in its JSON are written by Arrow: the digits are Python's, small ones may read ``0.00001`` where
        Python says ``1e-05``, which is the same value and the same text once Postgres has read it.
        """
        import numpy as np
        import pyarrow as pa

        count = len(photo_ids)
        best_class, best_category = verdicts.top[:, 0], verdicts.order[:, 0]
        columns = {
            "photo_id": photo_ids,
            "model": pa.repeat(self._model, count),
            "class_id": self._class_ids.take(pa.array(best_class)),
            "class_name": self._class_names.take(pa.array(best_class)),
            "confidence": pa.array(verdicts.confidences[:, 0].astype(np.float32)),
            "top_k": self._top_k(verdicts),
            "category_scores": self._category_scores(verdicts),
            "category": self._categories.take(pa.array(best_category)),
            "category_score": pa.array(verdicts.scores[:, 0].astype(np.float32)),
            "kind": self._kinds.take(pa.array(verdicts.reasons.any(axis=1).astype(np.int8))),
            "reasons": self._reasons_of(verdicts.reasons),
        }
        schema = predictions_schema()
        return pa.table([columns[name] for name in schema.names], schema=schema)

    def _top_k(self, verdicts: Verdicts) -> pa.Array:
        """``[{"class_id": "n…", "class_name": "…", "confidence": 0.9}, …]`` of each photo."""
        import pyarrow as pa
        import pyarrow.compute as pc

        heads = self._classes.take(pa.array(verdicts.top.ravel()))
        items = pc.binary_join_element_wise(heads, _numbers(verdicts.confidences.ravel()), "}", "")
        rows, width = verdicts.top.shape
        return _joined(items, [width] * rows, around="[]")

    def _category_scores(self, verdicts: Verdicts) -> pa.Array:
        """``{"shoes": 0.91, …}`` of each photo, best first; those of exactly 0 are left out."""
        import pyarrow as pa
        import pyarrow.compute as pc

        some = verdicts.scores > 0
        keys = self._keys.take(pa.array(verdicts.order[some]))
        items = pc.binary_join_element_wise(keys, _numbers(_rounded(verdicts.scores[some])), "")
        return _joined(items, some.sum(axis=1), around="{}")

    def _reasons_of(self, holds: NDArray[np.bool_]) -> pa.Array:
        import numpy as np
        import pyarrow as pa

        offsets = pa.array(_offsets(holds.sum(axis=1)), pa.int32())
        return pa.ListArray.from_arrays(offsets, self._reasons.take(pa.array(np.nonzero(holds)[1])))


def _texts(values: Any) -> pa.Array:
    import pyarrow as pa

    return pa.array(list(values), pa.string())


def _numbers(values: NDArray[np.float64]) -> pa.Array:
    """Each number as JSON, the shortest text that gives the same double; whole ones as 1.0, as Python writes them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = pc.cast(pa.array(values), pa.string())
    whole = pc.is_in(texts, pa.array(["0", "1"]))
    return pc.if_else(whole, pc.binary_join_element_wise(texts, ".0", ""), texts)


def _rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """``round(value, 6)`` of each."""
    import numpy as np

    steps = values * 10**_DECIMALS
    rounded: NDArray[np.float64] = np.rint(steps) / 10**_DECIMALS
    for place in np.flatnonzero(np.abs(steps - np.floor(steps) - 0.5) < _NEAR):
        rounded[place] = round(float(values[place]), _DECIMALS)
    return rounded


def _joined(items: pa.Array, counts: Sequence[int] | NDArray[np.int64], *, around: str) -> pa.Array:
    """``counts[i]`` items to a row, between the two characters ``around``."""
    import pyarrow as pa
    import pyarrow.compute as pc

    lists = pa.ListArray.from_arrays(pa.array(_offsets(counts), pa.int32()), items)
    return pc.binary_join_element_wise(around[0], pc.binary_join(lists, ", "), around[1], "")


def _offsets(counts: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    import numpy as np

    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64)])
