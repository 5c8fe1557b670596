"""From probabilities to what the refund department asks: which bin, and must a person look?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from refund.errors import FatalRunError
from refund.model.labels import Labels
from refund.model.taxonomy import NOT_A_PRODUCT, Taxonomy
from refund.records import CategoryScore, ClassScore, Decision, DecisionKind, ReviewReason

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SUM_TOLERANCE = 1e-3  # float32 softmax sums stray by 1e-6; anything near this is no probability distribution


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredPhoto:
    """One photo's prediction and the decision made from it."""

    top: tuple[ClassScore, ...]  # the top_k classes, best first; equal confidences in output order
    category_scores: tuple[CategoryScore, ...]  # every category, best first; equal scores in alphabetical order
    decision: Decision


def decide(
    probabilities: NDArray[np.float32],
    *,
    labels: Labels,
    taxonomy: Taxonomy,
    top_k: int,
    threshold: float,
    declared: Sequence[str | None],
    model: str | None = None,
    names: Sequence[str] | None = None,
) -> list[ScoredPhoto]:
    """Name, sort and judge every row of ``probabilities`` (``(N, C)``, rows adding up to 1).

    A photo's category is the one with the largest category score, the sum of its classes' probabilities, and not the
    category of the top class. It goes to review when that score is below ``threshold`` (0 to 1), when the category is
    ``not_a_product``, or when ``declared[i]`` names another category. ``model`` (name@version) and ``names`` (one per
    row, for example S3 keys) are for the text of errors alone.

    Raises:
        FatalRunError: a row holds NaN, an infinite or negative value, or does not add up to 1; the text names the row,
            and the model and the photo where given.
        ValueError: shapes or arguments do not fit together.
    """
    import numpy as np

    probabilities = np.asarray(probabilities)
    _check_arguments(probabilities.shape, labels=labels, declared=declared, top_k=top_k, threshold=threshold)
    _check_rows(probabilities, model=model, names=names)
    if not len(probabilities):
        return []
    clipped = np.clip(probabilities.astype(np.float64), 0.0, 1.0)
    clipped /= clipped.sum(axis=1, keepdims=True)
    scores = np.clip(clipped @ taxonomy.matrix().astype(np.float64), 0.0, 1.0)
    top = _top_indices(probabilities, min(top_k, len(labels)))
    categories = taxonomy.categories
    order = np.argsort(-scores, axis=1, kind="stable")
    return [
        _judge(
            top=tuple(
                ClassScore(
                    class_id=labels.class_ids[index],
                    class_name=labels.class_names[index],
                    confidence=float(clipped[row, index]),
                )
                for index in top[row]
            ),
            category_scores=tuple(
                CategoryScore(category=categories[index], score=float(scores[row, index])) for index in order[row]
            ),
            threshold=threshold,
            declared=declared[row],
        )
        for row in range(len(clipped))
    ]


def _judge(
    *,
    top: tuple[ClassScore, ...],
    category_scores: tuple[CategoryScore, ...],
    threshold: float,
    declared: str | None,
) -> ScoredPhoto:
    best = category_scores[0]
    reasons = []
    if best.score < threshold:
        reasons.append(ReviewReason.LOW_SCORE)
    if best.category == NOT_A_PRODUCT:
        reasons.append(ReviewReason.NOT_A_PRODUCT)
    if declared is not None and declared != best.category:
        reasons.append(ReviewReason.DECLARED_MISMATCH)
    kind = DecisionKind.REVIEW if reasons else DecisionKind.AUTO
    decision = Decision(category=best.category, score=best.score, kind=kind, reasons=tuple(reasons))
    return ScoredPhoto(top=top, category_scores=category_scores, decision=decision)


def _top_indices(probabilities: NDArray[np.float32], top_k: int) -> NDArray[np.int64]:
    """The ``(N, top_k)`` best columns, best first, ties by lower column.

    Non-negative float32 values order like their bit patterns, so value and column fit one integer key. The keys are
    distinct, which makes argpartition (10 times faster than sorting 1,000 columns) deterministic.
    """
    import numpy as np

    columns = probabilities.shape[1]
    values = np.clip(probabilities, 0.0, 1.0).astype(np.float32) + np.float32(0.0)  # -0.0 becomes 0.0
    keys = (values.view(np.int32).astype(np.int64) << 32) | np.arange(columns - 1, -1, -1, dtype=np.int64)
    best = np.argpartition(keys, columns - top_k, axis=1)[:, columns - top_k :]
    order = np.argsort(-np.take_along_axis(keys, best, axis=1), axis=1)
    return np.take_along_axis(best, order, axis=1).astype(np.int64)


def _check_arguments(
    shape: tuple[int, ...], *, labels: Labels, declared: Sequence[str | None], top_k: int, threshold: float
) -> None:
    if len(shape) != 2 or shape[1] != len(labels):
        msg = f"probabilities must be (N, {len(labels)}), one column per label, got shape {shape}"
        raise ValueError(msg)
    if len(declared) != shape[0]:
        msg = f"{shape[0]} photos but {len(declared)} declared categories"
        raise ValueError(msg)
    if top_k < 1 or not 0.0 <= threshold <= 1.0:  # also refuses NaN
        msg = f"top_k must be 1 or more and threshold lie in 0..1, got {top_k} and {threshold}"
        raise ValueError(msg)


def _check_rows(probabilities: NDArray[np.float32], *, model: str | None, names: Sequence[str] | None) -> None:
    import numpy as np

    with np.errstate(invalid="ignore"):  # inf - inf: the sum is NaN and the row refused
        totals = probabilities.sum(axis=1, dtype=np.float64)
    lowest = probabilities.min(axis=1, initial=0.0)
    # Written so that NaN, for which every comparison is false, counts as wrong.
    good = (np.abs(totals - 1.0) <= SUM_TOLERANCE) & (lowest >= -SUM_TOLERANCE)
    if not good.all():
        row = int(np.argmin(good))
        by = "" if model is None else f" of model {model}"
        photo = "" if names is None else f", for {names[row]!r},"
        msg = (
            f"row {row} of {len(probabilities)}{by}{photo} is no probability distribution: it adds up to "
            f"{totals[row]:.6g}, its smallest value is {lowest[row]:.6g}; expected finite values from 0 that add up to "
            f"1. Nothing was decided; check the model (refund model show) and go back to the one before if it does "
            f"this again (refund model rollback)"
        )
        raise FatalRunError(msg)
