"""How good a model is on photographs whose truth is known, and whether another one is worse by more than chance.

Intervals are 95 % percentile intervals of a nonparametric bootstrap (Efron & Tibshirani 1993, "An Introduction to the
Bootstrap", ch. 13): the photographs are drawn again with replacement, every figure is computed anew. They speak of
which photographs happened to be in the set, and of nothing else; docs/evaluation.md says what they do not cover.

Calibration is the expected calibration error of Guo et al. (2017, "On Calibration of Modern Neural Networks", ICML),
15 bins of equal width, here of the category score, which is what the review threshold is compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from refund.monitor.resampling import (
    RESAMPLES,
    Estimate,
    accuracy_of,
    count_cells,
    draw,
    estimate_of,
    macro_f1_of,
    margins,
    ratio,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BINS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a model said of one photograph, beside the truth."""

    photo_sha256: str  # hex
    true_category: str
    true_class_id: str | None  # where the label names one
    category: str
    category_score: float  # ratio, 0 to 1
    class_id: str  # the most probable class
    confidence: float  # its probability, 0 to 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryFigures:
    """One category: ``photos`` are those that truly belong to it, ``predicted`` those that the model put there.

    A ratio without a denominator (precision where nothing was put there, recall where nothing belongs there) is None.
    """

    category: str
    photos: int
    predicted: int
    auto: int  # of ``photos``, decided automatically
    precision: Estimate | None  # of those put there, the share that belongs there
    recall: Estimate | None  # of those that belong there, the share put there: the accuracy of the department
    f1: Estimate
    coverage: Estimate | None  # auto / photos
    auto_accuracy: Estimate | None  # of auto, the share put in the right category


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """The photographs whose category score lies in (low, high], the first bin with its lower end."""

    low: float
    high: float
    photos: int
    mean_score: float | None  # None in an empty bin
    accuracy: Estimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """``counts[i][j]`` photographs of category *i* that the model put in category *j*."""

    categories: tuple[str, ...]  # those that occur as truth or answer, in alphabetical order
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a model scored on a labelled set."""

    photos: int
    accuracy: Estimate  # share of photographs put in the right category
    macro_f1: Estimate  # mean F1 of the categories that at least one photograph truly belongs to
    top1: Estimate | None  # share with the right class, of the photographs whose class is known
    top1_photos: int
    ece: Estimate  # expected calibration error of the category score, 0 to 1
    coverage: Estimate  # share decided automatically
    auto_accuracy: Estimate | None  # among these, share put in the right category; None where there are none
    categories: tuple[CategoryFigures, ...]  # in alphabetical order
    confusion: Confusion
    reliability: tuple[ReliabilityBin, ...]
    resamples: int = RESAMPLES

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON values, as ``refund.evaluation.figures`` keeps them."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedComparison:
    """Candidate minus current on the same photographs; differences lie in -1 to 1."""

    photos: int
    accuracy: Estimate
    macro_f1: Estimate

    @property
    def significant_loss(self) -> bool:
        """Whether either difference's whole interval lies below 0."""
        return self.accuracy.high < 0 or self.macro_f1.high < 0

    def to_dict(self) -> dict[str, Any]:
        """The comparison as JSON values."""
        return {**asdict(self), "significant_loss": self.significant_loss}


def evaluate_predictions(verdicts: Sequence[Verdict], *, auto: Sequence[bool], resamples: int = RESAMPLES) -> Figures:
    """Measure a model by its verdicts; ``auto[i]`` says whether photograph *i* would be decided without a person.

    The order of the photographs plays no part.

    Raises:
        ValueError: there are no verdicts, or not as many of them as flags.
    """
    import numpy as np
    from sklearn.metrics import precision_recall_fscore_support

    if not verdicts or len(verdicts) != len(auto):
        msg = f"an evaluation needs verdicts and as many flags, got {len(verdicts)} and {len(auto)}"
        raise ValueError(msg)
    order = sorted(range(len(verdicts)), key=lambda index: verdicts[index].photo_sha256)
    sample = _Sample.of([verdicts[index] for index in order], auto=[auto[index] for index in order])
    whole = sample.figures(np.arange(len(order))[None, :])
    drawn = [sample.figures(indices) for indices in draw(len(order), resamples)]
    spread = {name: np.concatenate([part[name] for part in drawn]) for name in whole}

    counts = np.zeros((len(sample.names), len(sample.names)), dtype=np.int64)
    np.add.at(counts, (sample.truth, sample.answer), 1)  # scikit-learn's warns where there is one category
    ratios = precision_recall_fscore_support(
        sample.truth, sample.answer, labels=np.arange(len(sample.names)), zero_division=np.nan
    )
    for name, values in zip(("precision", "recall", "f1"), ratios, strict=False):
        whole[name] = values[None, :]

    def estimate(name: str, index: int | None = None) -> Estimate | None:
        column = (slice(None),) if index is None else (slice(None), index)
        return estimate_of(float(whole[name][column][0]), spread[name][column])

    return Figures(
        photos=len(order),
        accuracy=_defined(estimate("accuracy")),
        macro_f1=_defined(estimate("macro_f1")),
        top1=estimate("top1"),
        top1_photos=int(sample.known.sum()),
        ece=_defined(estimate("ece")),
        coverage=_defined(estimate("coverage")),
        auto_accuracy=estimate("auto_accuracy"),
        categories=tuple(
            CategoryFigures(
                category=category,
                photos=int(counts[index].sum()),
                predicted=int(counts[:, index].sum()),
                auto=int(sample.auto[sample.truth == index].sum()),
                precision=estimate("precision", index),
                recall=estimate("recall", index),
                f1=_defined(estimate("f1", index)),
                coverage=estimate("category_coverage", index),
                auto_accuracy=estimate("category_auto_accuracy", index),
            )
            for index, category in enumerate(sample.names)
        ),
        confusion=Confusion(
            categories=sample.names, counts=tuple(tuple(int(count) for count in row) for row in counts)
        ),
        reliability=tuple(
            ReliabilityBin(
                low=index / BINS,
                high=(index + 1) / BINS,
                photos=int(inside.sum()),
                mean_score=float(sample.scores[inside].mean()) if inside.any() else None,
                accuracy=estimate("bin_accuracy", index),
            )
            for index in range(BINS)
            for inside in [sample.bins == index]
        ),
        resamples=resamples,
    )


def compare_paired(
    candidate: Sequence[Verdict], current: Sequence[Verdict], *, resamples: int = RESAMPLES
) -> PairedComparison:
    """Compare two models photograph by photograph, so that what makes a set hard weighs on both alike.

    Raises:
        ValueError: the two were not given the same photographs with the same truths.
    """
    import numpy as np

    theirs, ours = (sorted(rows, key=lambda row: row.photo_sha256) for rows in (candidate, current))
    if not theirs or [_question(row) for row in theirs] != [_question(row) for row in ours]:
        msg = (
            f"a paired comparison needs the same photographs and truths for both models, got {len(theirs)} and "
            f"{len(ours)} of which {len({_question(row) for row in theirs} & {_question(row) for row in ours})} agree"
        )
        raise ValueError(msg)
    names = sorted({name for row in [*theirs, *ours] for name in (row.true_category, row.category)})
    cells = [_cells(rows, names) for rows in (theirs, ours)]

    def differences(indices: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        a, b = (count_cells(cell, indices, len(names) ** 2).reshape(-1, len(names), len(names)) for cell in cells)
        return accuracy_of(a) - accuracy_of(b), macro_f1_of(a) - macro_f1_of(b)

    whole = differences(np.arange(len(theirs))[None, :])
    drawn = [differences(indices) for indices in draw(len(theirs), resamples)]
    accuracy, macro_f1 = (
        _defined(estimate_of(float(whole[which][0]), np.concatenate([part[which] for part in drawn])))
        for which in (0, 1)
    )
    return PairedComparison(photos=len(theirs), accuracy=accuracy, macro_f1=macro_f1)


# --- how -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    """The photographs of a set as arrays of length N; categories as indices into ``names``."""

    names: tuple[str, ...]
    truth: NDArray[np.int64]
    answer: NDArray[np.int64]
    auto: NDArray[np.bool_]
    scores: NDArray[np.float64]
    bins: NDArray[np.int64]
    known: NDArray[np.bool_]  # whether the true class is
    right_class: NDArray[np.bool_]

    @classmethod
    def of(cls, verdicts: Sequence[Verdict], *, auto: Sequence[bool]) -> _Sample:
        import numpy as np

        names = sorted({name for verdict in verdicts for name in (verdict.true_category, verdict.category)})
        scores = np.array([verdict.category_score for verdict in verdicts], dtype=np.float64)
        edges = np.arange(1, BINS) / BINS
        return cls(
            names=tuple(names),
            truth=np.array([names.index(verdict.true_category) for verdict in verdicts]),
            answer=np.array([names.index(verdict.category) for verdict in verdicts]),
            auto=np.array(auto, dtype=np.bool_),
            scores=scores,
            bins=np.digitize(scores, edges, right=True),
            known=np.array([verdict.true_class_id is not None for verdict in verdicts], dtype=np.bool_),
            right_class=np.array([verdict.true_class_id == verdict.class_id for verdict in verdicts], dtype=np.bool_),
        )

    def figures(self, indices: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """Every figure of each row of ``indices`` (``(R, N)``): ``(R,)``, ``(R, categories)`` or ``(R, BINS)``."""
        import numpy as np

        size, total = len(self.names), indices.shape[1]
        right = self.truth == self.answer
        cells = (self.truth * size + self.answer) * 2 + self.auto
        counts = count_cells(cells, indices, 2 * size**2).reshape(-1, size, size, 2)
        confusion, automatic = counts.sum(axis=3), counts[..., 1]
        hits, true, predicted = margins(confusion)
        auto_hits, auto_true, _ = margins(automatic)
        binned = [count_cells(self.bins, indices, BINS, weights) for weights in (None, right, self.scores)]
        classes = count_cells(self.known * 1 + (self.known & self.right_class), indices, 3)
        return {
            "accuracy": hits.sum(axis=1) / total,
            "macro_f1": macro_f1_of(confusion),
            "top1": ratio(classes[:, 2], classes[:, 1:].sum(axis=1)),
            "ece": np.abs(binned[1] - binned[2]).sum(axis=1) / total,
            "coverage": auto_true.sum(axis=1) / total,
            "auto_accuracy": ratio(auto_hits.sum(axis=1), auto_true.sum(axis=1)),
            "precision": ratio(hits, predicted),
            "recall": ratio(hits, true),
            "f1": ratio(2 * hits, true + predicted),
            "category_coverage": ratio(auto_true, true),
            "category_auto_accuracy": ratio(auto_hits, auto_true),
            "bin_accuracy": ratio(binned[1], binned[0]),
        }


def _defined(estimate: Estimate | None) -> Estimate:
    """For figures that every set with a photograph in it has."""
    if estimate is None:
        msg = "a figure is not defined that every labelled set has"
        raise ValueError(msg)
    return estimate


def _cells(rows: Sequence[Verdict], names: Sequence[str]) -> NDArray[np.int64]:
    import numpy as np

    return np.array([names.index(row.true_category) * len(names) + names.index(row.category) for row in rows])


def _question(row: Verdict) -> tuple[str, str, str | None]:
    return row.photo_sha256, row.true_category, row.true_class_id
