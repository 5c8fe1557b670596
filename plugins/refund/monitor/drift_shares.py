"""Compares the mix of goods: all category shares at once, and the category that moved most.

The distance of all shares is the Jensen-Shannon distance in base 2: the square root of the divergence of Lin (1991,
"Divergence measures based on the Shannon entropy", IEEE Trans. Inf. Theory 37), a metric by Endres & Schindelin (2003,
"A new metric for probability distributions", IEEE Trans. Inf. Theory 49); 0 for equal shares, 1 for shares without
overlap. It sees a rare category that triples; the largest move sees five points of a large one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from refund.monitor.dispersion import ASSUMED_RHO, Dispersion, draw_pairs, estimate_dispersion
from refund.monitor.drift import CATEGORY_SHARES, LARGEST_MOVE, CategoryMove, DriftResult, DriftStatus, NightCounts
from refund.monitor.window_nights import choose_nights

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RARE_COUNT = 5  # a category expected fewer times than this in the smaller sample, by either's shares, is folded
_SEED = 20_031_858  # any fixed number: the same figures must give the same verdict


def compare_mix(
    tonight: NightCounts, window: Sequence[NightCounts], *, min_photos: int, rho: float | None, draws: int
) -> tuple[tuple[DriftResult, DriftResult], NDArray[np.float64] | None]:
    """Both measures without thresholds, and what they come to without drift: ``(draws, 2)``, None if not judged.

    Args:
        tonight: the night.
        window: earlier nights, in any order.
        min_photos: with fewer classified photos tonight, or in the nights compared with, nothing is judged.
        rho: overdispersion, where it is known; None: estimated.
        draws: bootstrap draws.
    """
    import numpy as np

    nights = sorted((night for night in window if night.classified), key=lambda night: night.run_date)
    names, ours, theirs = _table(tonight.categories, [night.categories for night in nights])
    shares = DriftResult(
        measure=CATEGORY_SHARES,
        status=DriftStatus.OK,
        distance=None,
        threshold=None,
        p_value=None,
        tonight_photos=int(ours.sum()),
        reference_photos=int(theirs.sum()),
        reference_nights=len(nights),
    )
    if not nights:
        return _both(replace(shares, status=DriftStatus.NO_REFERENCE)), None
    sizes = theirs.sum(axis=1)
    # square roots of shares: their variance hardly depends on the share
    basis = choose_nights(tonight.run_date, [night.run_date for night in nights], np.sqrt(theirs / sizes[:, None]))
    reference = theirs[basis.used].sum(axis=0)
    shares = replace(
        shares,
        reference_photos=int(reference.sum()),
        reference_nights=len(basis.used),
        nights=tuple(nights[index].run_date.isoformat() for index in basis.used),
        basis=basis.name,
    )
    if min(shares.tonight_photos, shares.reference_photos) < min_photos:
        return _both(replace(shares, status=DriftStatus.INSUFFICIENT_DATA)), None

    dispersion = (
        (estimate_dispersion(theirs, basis.groups, rare=RARE_COUNT) or Dispersion.at(ASSUMED_RHO, assumed=True))
        if rho is None
        else Dispersion.at(rho)
    )
    a, b = draw_pairs(
        np.random.default_rng(_SEED),
        shares=(ours + reference) / (ours + reference).sum(),
        photos=shares.tonight_photos,
        reference_sizes=sizes[basis.used],
        dispersion=dispersion,
        draws=draws,
    )
    by_chance = np.stack([folded_distance(a, b), largest_change(a, b)], axis=1)
    seen = np.array([folded_distance(ours[None], reference[None])[0], largest_change(ours[None], reference[None])[0]])
    p_values = (1 + (by_chance >= seen - 1e-12).sum(axis=0)) / (draws + 1)
    moves = _moves(names, ours, reference)
    shares = replace(
        shares,
        distance=float(seen[0]),
        p_value=float(p_values[0]),
        total_variation=min(1.0, sum(abs(move.change) for move in moves) / 2),
        overdispersion=dispersion.estimate,
        overdispersion_assumed=dispersion.assumed,
        folded=_folded(names, ours, reference),
        moves=moves,
    )
    largest = replace(
        shares,
        measure=LARGEST_MOVE,
        distance=abs(moves[0].change),
        p_value=float(p_values[1]),
        folded=(),
        moves=moves[:1],
        tonight_value=moves[0].tonight_share,
        reference_value=moves[0].reference_share,
    )
    return (shares, largest), by_chance


def folded_distance(ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Jensen-Shannon distance (base 2) of each pair of rows, rare categories folded into one.

    ``ours`` and ``theirs`` are counts of shape ``(B, K)``, every row of one array with the same sum above 0. A category
    is rare in a row where neither sample's share would put `RARE_COUNT` photos into the smaller sample: symmetric in
    the samples, and a category that is new tonight in numbers is never folded away. Returns ``(B,)``, 0 to 1.
    """
    import numpy as np
    from scipy.special import xlogy

    p, q = ours / ours.sum(axis=1, keepdims=True), theirs / theirs.sum(axis=1, keepdims=True)
    rare = np.maximum(p, q) * _smaller(ours[0], theirs[0]) < RARE_COUNT
    p, q = (
        np.concatenate([np.where(rare, 0.0, share), np.where(rare, share, 0.0).sum(axis=1, keepdims=True)], axis=1)
        for share in (p, q)
    )
    # H((p + q) / 2) - (H(p) + H(q)) / 2, H the entropy; for almost equal shares rounding can leave -1e-17
    middle = (p + q) / 2
    divergence = ((xlogy(p, p) + xlogy(q, q)) / 2 - xlogy(middle, middle)).sum(axis=1) / np.log(2)
    divergence[divergence < 1e-15] = 0.0
    clipped: NDArray[np.float64] = np.minimum(np.sqrt(divergence), 1.0)
    return clipped


def largest_change(ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Largest absolute change of one share in each pair of rows; counts ``(B, K)``, returns ``(B,)``, 0 to 1."""
    import numpy as np

    changes = ours / ours.sum(axis=1, keepdims=True) - theirs / theirs.sum(axis=1, keepdims=True)
    largest: NDArray[np.float64] = np.abs(changes).max(axis=1)
    return largest


def _both(shares: DriftResult) -> tuple[DriftResult, DriftResult]:
    return shares, replace(shares, measure=LARGEST_MOVE)


def _table(
    tonight: Mapping[str, int], nights: Sequence[Mapping[str, int]]
) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
    """Names, tonight's counts ``(K,)`` and the nights' ``(N, K)``, of the categories that occur.

    Ordered by numbers, so that neither the order nor the names of the categories play a part in what is drawn.
    """
    import numpy as np

    found = {name for counts in (tonight, *nights) for name, count in counts.items() if count}
    columns = {name: (int(tonight.get(name, 0)), *(int(night.get(name, 0)) for night in nights)) for name in found}
    names = sorted(found, key=lambda name: (-sum(columns[name]), columns[name], name))
    table = np.array([columns[name] for name in names], dtype=np.int64).reshape(len(names), 1 + len(nights)).T
    return names, table[0], table[1:]


def _moves(names: Sequence[str], ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> tuple[CategoryMove, ...]:
    shares, usual = (ours / ours.sum()).tolist(), (theirs / theirs.sum()).tolist()
    moves = (
        CategoryMove(category=name, tonight_share=a, reference_share=b)
        for name, a, b in zip(names, shares, usual, strict=True)
    )
    return tuple(sorted(moves, key=lambda move: (-abs(move.change), move.category)))


def _folded(names: Sequence[str], ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> tuple[str, ...]:
    import numpy as np

    most = np.maximum(ours / ours.sum(), theirs / theirs.sum())
    return tuple(sorted(np.array(names)[most * _smaller(ours, theirs) < RARE_COUNT].tolist()))


def _smaller(ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> int:
    return min(int(ours.sum()), int(theirs.sum()))
