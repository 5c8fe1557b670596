"""How good the machine's decisions were, all of them, judged from the few that people reviewed.

Decisions fall into two strata that are reviewed in different ways: what the machine decided alone (a small share is
drawn by hash and audited) and what it sent to people (in the end all of it). A reviewed photo stands for as many
decisions as its stratum has per reviewed one, so the hard photos of the queue, which are nearly all reviewed, do not
drown the easy ones: the stratified estimator of Cochran (1977, "Sampling Techniques", ch. 5).

The bootstrap fails here: of 70 audits that are all right it says [1, 1]. Intervals are drawn from a posterior instead.
In each stratum accuracy has the Jeffreys prior Beta(1/2, 1/2), whose intervals are recommended for shares near 0 and 1
by Brown, Cai & DasGupta (2001, "Interval estimation for a binomial proportion", Statistical Science 16). Only decisions
that nobody reviewed are drawn, the others are known (Ghosh & Meeden, 1997, "Bayesian Methods for Finite Population
Sampling"), so a stratum that was reviewed whole adds no uncertainty.

Macro-F1 needs every category's precision, and seventy audits are three for each. How often the machine names a category
is known for all decisions; how often it is right there is taken from that category's reviews and, with the weight of
one review, from the stratum as a whole. The interval is approximate for that reason.
docs/accuracy.md has the measured coverage.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DRAWS = 4_000
LEVEL = 0.95
_PULL = 1.0  # decisions that a category borrows from its whole stratum
_UNMET = ""  # stands for right categories that nobody has met yet
_SEED = 19_460_922  # any fixed number: the same reviews must give the same interval


class QualityStatus(StrEnum):
    """The verdict on one model's week."""

    OK = "ok"
    LOW = "low"  # the lower bound of accuracy is below what was asked for
    INSUFFICIENT_DATA = "insufficient_data"  # too few reviews to tell; at a thousand photos a night the normal state


class StratumName(StrEnum):
    """How a decision comes to be reviewed."""

    AUTO = "auto"  # decided by the machine alone; a share of it is drawn by hash for audit
    QUEUE = "queue"  # sent to people


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratum:
    """The decisions of one kind, and what people said of those they reviewed.

    Raises:
        ValueError: a count is negative, or more pairs are reviewed than the machine decided.
    """

    name: StratumName
    predicted: Mapping[str, int] = field(default_factory=dict)  # decisions by the machine's category, reviewed or not
    reviewed: Mapping[tuple[str, str], int] = field(default_factory=dict)  # by (right category, machine's category)

    def __post_init__(self) -> None:
        seen = Counter[str]()
        for (_, category), count in self.reviewed.items():
            seen[category] += count
        for category in {*seen, *self.predicted}:
            if not 0 <= seen[category] <= self.predicted.get(category, 0):
                msg = (
                    f"stratum {self.name}: {seen[category]} decisions for {category!r} are reviewed of "
                    f"{self.predicted.get(category, 0)}; expected 0 up to as many as there are"
                )
                raise ValueError(msg)

    @property
    def decisions(self) -> int:
        """All decisions of the stratum."""
        return sum(self.predicted.values())

    @property
    def reviews(self) -> int:
        """Those of them that were reviewed."""
        return sum(self.reviewed.values())

    @property
    def right(self) -> int:
        """Reviewed decisions that the reviewer agreed with."""
        return sum(count for (truth, category), count in self.reviewed.items() if truth == category)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate and its 95 % interval, ratios from 0 to 1; the estimate lies inside."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryQuality:
    """One category's estimated figures over all decisions; ratios 0 to 1."""

    category: str
    reviewed: int  # reviewed photos whose right category it is
    share: float  # estimated share of all decisions whose right category it is
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityEstimate:
    """What the reviews say of all decisions of a window."""

    accuracy: Interval
    macro_f1: Interval  # mean F1 over `categories`
    categories: tuple[CategoryQuality, ...]  # those that some reviewer named, in alphabetical order

    def details(self) -> list[dict[str, Any]]:
        """The categories as JSON values."""
        return [{name: getattr(row, name) for name in CategoryQuality.__dataclass_fields__} for row in self.categories]


def estimate_quality(strata: Sequence[Stratum], *, draws: int = DRAWS, seed: int = _SEED) -> QualityEstimate | None:
    """Accuracy and macro-F1 over all decisions of the strata, with 95 % intervals.

    None where a stratum that has decisions has no reviews: nothing is known of it. Macro-F1 is the mean over the
    categories that a reviewer named; a category that no reviewer met is not in it.
    """
    import numpy as np
    from sklearn.metrics import precision_recall_fscore_support

    filled = [stratum for stratum in strata if stratum.decisions]
    if not filled or any(stratum.reviews == 0 for stratum in filled):
        return None
    columns = sorted({category for stratum in filled for category in stratum.predicted})
    seen = Counter[str]()
    for stratum in filled:
        for (truth, _), count in stratum.reviewed.items():
            seen[truth] += count
    labels = sorted(+seen)
    rows = sorted({*labels, *columns, _UNMET})
    total = _expected(filled, rows, columns)
    truth_index, column_index = np.nonzero(total)
    weights = total[truth_index, column_index]
    truths, predictions = [rows[index] for index in truth_index], [columns[index] for index in column_index]
    precision, recall, f1, support = precision_recall_fscore_support(
        truths, predictions, labels=labels, sample_weight=weights, zero_division=0.0
    )
    accuracy = sum(stratum.decisions * stratum.right / stratum.reviews for stratum in filled) / weights.sum()
    drawn_accuracy, drawn_f1 = _draw(filled, rows, columns, draws=draws, seed=seed)
    return QualityEstimate(
        accuracy=_interval(float(accuracy), drawn_accuracy),
        macro_f1=_interval(float(f1.mean()), drawn_f1[:, [rows.index(label) for label in labels]].mean(axis=1)),
        categories=tuple(
            CategoryQuality(
                category=label,
                reviewed=seen[label],
                share=float(support[index] / weights.sum()),
                precision=float(precision[index]),
                recall=float(recall[index]),
                f1=float(f1[index]),
            )
            for index, label in enumerate(labels)
        ),
    )


def judge_quality(
    estimate: QualityEstimate | None, strata: Sequence[Stratum], *, required_audits: int, required_accuracy: float
) -> QualityStatus:
    """The verdict: too few reviews, a lower bound of accuracy below ``required_accuracy``, or neither.

    Of either stratum ``required_audits`` reviews are wanted, but never more than it has decisions: a queue that people
    have only begun would make the interval so wide that every such week is low.
    """
    if estimate is None or any(stratum.reviews < min(required_audits, stratum.decisions) for stratum in strata):
        return QualityStatus.INSUFFICIENT_DATA
    return QualityStatus.LOW if estimate.accuracy.low < required_accuracy else QualityStatus.OK


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPace:
    """How fast audits come in: what one needs to know to say when there will be enough."""

    marked: int  # automatic decisions of the window that are marked for audit
    reviewed: int  # of these, reviewed
    decisions: int  # automatic ones of the window
    required: int
    window_days: int
    audit_share: float  # the setting
    week_ending: date
    first_night: date  # of this model

    @property
    def waiting(self) -> int:
        """Marked and not reviewed yet."""
        return self.marked - self.reviewed

    @property
    def days_in_window(self) -> int:
        """Days of the window on which the model had begun to decide."""
        return min(self.window_days, max(1, (self.week_ending - self.first_night).days + 1))

    @property
    def marked_a_day(self) -> float:
        """Audits marked per day."""
        return self.marked / self.days_in_window


def tell_audits(pace: AuditPace) -> str:
    """Say calmly how many audits there are, how many are wanted, when there are enough, and what to change."""
    if not pace.decisions:
        return "none are needed, the machine decided nothing alone."
    days = f"{pace.days_in_window} day{'' if pace.days_in_window == 1 else 's'}"
    said = f"{pace.reviewed} of the {pace.required} wanted are reviewed; {pace.marked} were marked in {days}"
    if pace.waiting:
        said += f", of which {pace.waiting} wait: refund review queue --audit"
    if pace.reviewed >= pace.required:
        return f"{said}."
    if not pace.marked:
        return (
            f"{said}. This is the normal state at so few decisions, not a fault; for more audits raise audit_share "
            f"(now {pace.audit_share:g})."
        )
    if pace.marked >= pace.required:
        return f"{said}. Once these are reviewed there are enough."
    needed = math.ceil(pace.required / pace.marked_a_day)
    ready = pace.first_night + timedelta(days=needed - 1)
    if needed <= pace.window_days:
        return f"{said}. At {pace.marked_a_day:.1f} a day there are enough from {ready} on."
    share = pace.audit_share * pace.required / (pace.marked_a_day * pace.window_days)
    raised = f", or audit_share to {math.ceil(share * 1e3) / 1e3:g}" if 0 < share <= 1 else ""
    return (
        f"{said}. This is the normal state at so few photos, not a fault. At {pace.marked_a_day:.1f} a day "
        f"{needed} days have enough, from {max(pace.week_ending, ready)} on: set quality_window_days to "
        f"{needed}{raised}."
    )


def _cells(stratum: Stratum, rows: Sequence[str], columns: Sequence[str]) -> NDArray[np.float64]:
    """Reviewed decisions of a stratum by right category (rows) and machine's category (columns)."""
    import numpy as np

    return np.array([[stratum.reviewed.get((row, column), 0) for column in columns] for row in rows], dtype=float)


def _likely_precision(accuracy: Any, decided: NDArray[np.float64], *, evenness: Any) -> Any:
    """What to expect of a category's precision before it is looked at, ``(…, C)``.

    Mistakes fall on the machine's categories in proportion to their size (``evenness`` 0: every precision equals the
    accuracy), or on all alike (1: a rare category is mostly mistakes), or in between; nobody knows, so it is drawn.
    """
    import numpy as np

    size = np.maximum(decided, 1.0) * np.count_nonzero(decided) / decided.sum()
    return np.clip(1 - (1 - accuracy) * (1 - evenness + evenness / size), 0.0, 1.0)


def _mistaken_for(known: NDArray[np.float64], agree: NDArray[np.bool_], shares: NDArray[np.float64]) -> Any:
    """Per column, how the right categories of its mistakes are spread, ``(R, C)``: the column's own, then everybody's.

    Columns sum to 1 and have 0 where the machine would be right. Where no mistake was met they follow ``shares``, the
    right categories as a whole.
    """
    import numpy as np

    wrong = np.where(agree, 0.0, known)
    everybody = np.where(agree, 0.0, (wrong.sum(axis=1) + shares)[:, None])
    own = wrong + _PULL * everybody / everybody.sum(axis=0)
    return own / own.sum(axis=0)


def _expected(strata: Sequence[Stratum], rows: Sequence[str], columns: Sequence[str]) -> NDArray[np.float64]:
    """All decisions by right category and machine's category, ``(R, C)``, those not reviewed as expected."""
    import numpy as np

    agree = np.array([[row == column for column in columns] for row in rows])
    total = np.zeros(agree.shape)
    for stratum in strata:
        known, decided = _cells(stratum, rows, columns), _decided(stratum, columns)
        right, seen = np.where(agree, known, 0.0).sum(axis=0), known.sum(axis=0)
        centre = _likely_precision(stratum.right / stratum.reviews, decided, evenness=0.5)
        precision = (right + _PULL * centre) / (seen + _PULL)
        spread = _mistaken_for(known, agree, _truth_shares(strata, rows))
        total += known + (decided - seen) * np.where(agree, precision, (1 - precision) * spread)
    return total


def _draw(
    strata: Sequence[Stratum], rows: Sequence[str], columns: Sequence[str], *, draws: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Accuracy ``(draws,)`` and F1 by row ``(draws, R)`` of populations that the reviews leave possible."""
    import numpy as np

    random = np.random.default_rng(seed)
    agree = np.array([[row == column for column in columns] for row in rows])
    correct = np.zeros(draws)
    right_of = np.zeros((draws, len(columns)))
    truths = np.zeros((draws, len(rows)))
    for stratum in strata:
        known, decided = _cells(stratum, rows, columns), _decided(stratum, columns)
        accuracy = random.beta(stratum.right + 0.5, stratum.reviews - stratum.right + 0.5, size=draws)
        correct += stratum.right + random.binomial(stratum.decisions - stratum.reviews, accuracy)
        right, seen = np.where(agree, known, 0.0).sum(axis=0), known.sum(axis=0)
        pull = _PULL * _likely_precision(accuracy[:, None], decided, evenness=random.random((draws, 1)))
        tiny = np.finfo(float).tiny  # a share may be drawn as 0 or 1, but no Beta takes a 0
        precision = random.beta(right + np.maximum(pull, tiny), seen - right + np.maximum(_PULL - pull, tiny))
        rest = (decided - seen).astype(int)
        hits = random.binomial(rest, precision)
        right_of += right + hits
        truths += known.sum(axis=1)
        spread = _mistaken_for(known, agree, _truth_shares(strata, rows))
        mistakes = np.where(agree, 0.0, known).sum(axis=0)
        for column in np.flatnonzero(rest):
            named = np.flatnonzero(spread[:, column])
            chances = random.dirichlet(spread[named, column] * (mistakes[column] + _PULL), size=draws)
            truths[:, named] += random.multinomial(rest[column] - hits[:, column], chances)
            truths[:, agree[:, column].argmax()] += hits[:, column]
    claimed = np.sum([_decided(stratum, columns) for stratum in strata], axis=0)
    f1 = 2 * (right_of @ agree.T) / np.maximum(truths + agree @ claimed, 1.0)
    return correct / sum(stratum.decisions for stratum in strata), f1


def _decided(stratum: Stratum, columns: Sequence[str]) -> NDArray[np.float64]:
    """Decisions of the stratum by the machine's category, reviewed or not."""
    import numpy as np

    return np.array([stratum.predicted.get(column, 0) for column in columns], dtype=float)


def _truth_shares(strata: Sequence[Stratum], rows: Sequence[str]) -> NDArray[np.float64]:
    """Right categories among the reviewed, each standing for its stratum, as shares; a little for those never met."""
    import numpy as np

    counts = np.full(len(rows), 1e-3)
    for stratum in strata:
        for (truth, _), count in stratum.reviewed.items():
            counts[rows.index(truth)] += count * stratum.decisions / stratum.reviews
    shares: NDArray[np.float64] = counts / counts.sum()
    return shares


def _interval(value: float, drawn: NDArray[np.float64]) -> Interval:
    """The central 95 % of the draws, widened to the estimate: 70 of 70 right must not exclude 1 (Brown et al., §3)."""
    import numpy as np

    low, high = (float(bound) for bound in np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    return Interval(value=value, low=min(low, value), high=max(high, value))
