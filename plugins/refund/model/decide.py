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

REASONS = tuple(ReviewReason)  # in the order in which a decision names them
SUM_TOLERANCE = 1e-3  # float32 softmax sums stray by 1e-6; anything near this is no probability distribution


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredPhoto:
    """One photo's prediction and the decision made from it."""

    top: tuple[ClassScore, ...]  # the top_k classes, best first; equal confidences in output order
    category_scores: tuple[CategoryScore, ...]  # every category, best first; equal scores in alphabetical order
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verdicts:
    """What was decided of N photos, in columns: row *i* of each is photo *i*. `decide` gives the same as records."""

    categories: tuple[str, ...]  # what ``order`` counts, in alphabetical order
    top: NDArray[np.int64]  # (N, K) outputs of the top_k classes, best first; equal confidences in output order
    confidences: NDArray[np.float64]  # (N, K) their probabilities, 0 to 1
    order: NDArray[np.int64]  # (N, G) all categories, best first; equal scores in alphabetical order
    scores: NDArray[np.float64]  # (N, G) their scores, 0 to 1
    reasons: NDArray[np.bool_]  # (N, 3) which of `REASONS` send the photo to review; none: it is decided automatically


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
    """What `decide_columns` decides, as a record for each photo; same arguments, same errors."""
    verdicts = decide_columns(
        probabilities,
        labels=labels,
        taxonomy=taxonomy,
        top_k=top_k,
        threshold=threshold,
        declared=declared,
        model=model,
        names=names,
    )
    return [_record(verdicts, row, labels) for row in range(len(verdicts.top))]


def decide_columns(
    probabilities: NDArray[np.float32],
    *,
    labels: Labels,
    taxonomy: Taxonomy,
    top_k: int,
    threshold: float,
    declared: Sequence[str | None],
    model: str | None = None,
    names: Sequence[str] | None = None,
) -> Verdicts:
    """Sort and judge every row of ``probabilities`` (``(N, C)``, rows adding up to 1).

    A photo's category is the one with the largest category score, the sum of its classes' probabilities, and not the
    category of the top class. It goes to review when that score is below ``threshold`` (0 to 1), when the category is
    ``not_a_product``, or when ``declared[i]`` names another category. ``model`` (name@version) and ``names`` (one per
    row, for example S3 keys) are for the text of errors alone. What is decided of a row does not depend on the others.

    Raises:
        FatalRunError: a row holds NaN, an infinite or negative value, or does not add up to 1; the text names the row,
            and the model and the photo where given.
        ValueError: shapes or arguments do not fit together.
    """
    import numpy as np

    probabilities = np.asarray(probabilities)
    _check_arguments(probabilities.shape, labels=labels, declared=declared, top_k=top_k, threshold=threshold)
    _check_rows(probabilities, model=model, names=names)
    clipped = np.clip(probabilities.astype(np.float64), 0.0, 1.0)
    clipped /= clipped.sum(axis=1, keepdims=True)
    top = _top_indices(probabilities, min(top_k, len(labels)))
    scores = _category_scores(clipped, taxonomy)
    order = np.argsort(-scores, axis=1, kind="stable")
    scores = np.take_along_axis(scores, order, axis=1)
    categories = taxonomy.categories
    best = order[:, 0]
    column = {category: index for index, category in enumerate(categories)}
    unlike = [name is not None and column.get(name) != mine for name, mine in zip(declared, best.tolist(), strict=True)]
    holds = {
        ReviewReason.LOW_SCORE: scores[:, 0] < threshold,
        ReviewReason.NOT_A_PRODUCT: best == column[NOT_A_PRODUCT],
        ReviewReason.DECLARED_MISMATCH: np.array(unlike, dtype=np.bool_),
    }
    return Verdicts(
        categories=categories,
        top=top,
        confidences=np.take_along_axis(clipped, top, axis=1),
        order=order,
        scores=scores,
        reasons=np.stack([holds[reason] for reason in REASONS], axis=1),
    )


def _record(verdicts: Verdicts, row: int, labels: Labels) -> ScoredPhoto:
    category_scores = tuple(
        CategoryScore(category=verdicts.categories[index], score=score)
        for index, score in zip(verdicts.order[row], verdicts.scores[row].tolist(), strict=True)
    )
    reasons = tuple(reason for reason, holds in zip(REASONS, verdicts.reasons[row], strict=True) if holds)
    return ScoredPhoto(
        top=tuple(
            ClassScore(class_id=labels.class_ids[index], class_name=labels.class_names[index], confidence=confidence)
            for index, confidence in zip(verdicts.top[row], verdicts.confidences[row].tolist(), strict=True)
        ),
        category_scores=category_scores,
        decision=Decision(
            category=category_scores[0].category,
            score=category_scores[0].score,
            kind=DecisionKind.REVIEW if reasons else DecisionKind.AUTO,
            reasons=reasons,
        ),
    )


def _category_scores(probabilities: NDArray[np.float64], taxonomy: Taxonomy) -> NDArray[np.float64]:
    """The sum of each category's classes, ``(N, G)`` in the order of the taxonomy's categories, 0 to 1.

    No product with `Taxonomy.matrix`: a BLAS of several threads spends 20 to 30 ms of CPU waiting after each (measured
    on two cores, 256 photos), and its sums depend on how many rows are given at once.
    """
    import numpy as np

    column = {category: index for index, category in enumerate(taxonomy.categories)}
    of_class = np.array([column[category] for category in taxonomy.class_categories])
    by_category = np.argsort(of_class, kind="stable")
    used, starts = np.unique(of_class[by_category], return_index=True)
    scores = np.zeros((len(probabilities), len(column)))
    scores[:, used] = np.add.reduceat(np.take(probabilities, by_category, axis=1), starts, axis=1)
    return np.clip(scores, 0.0, 1.0)


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
