"""How much the nights of a window differ beyond chance, and draws of nights that differ as much.

Model: every night has shares of its own, drawn from a Dirichlet distribution around the usual ones; its photos are
drawn from them. The counts are then Dirichlet-multinomial (Mosimann 1962, "On the compound multinomial distribution",
Biometrika 49; with two outcomes beta-binomial). Overdispersion is the intraclass correlation rho = 1 / (1 + c) of a
Dirichlet of concentration c: the variance of a share p among n photos is p (1 - p) / n * (1 + (n - 1) rho), so rho = 0
is chance alone. The factor in brackets is the design effect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Where one night alone cannot show how nights differ: a share of 20 % has a standard deviation of 2.8 points (rho is
# that of concentration 200), the number of photos one of 30 %.
ASSUMED_RHO = 1 / 201
ASSUMED_LOG_VARIANCE = 0.09
_LARGEST_RHO = 0.5
_GRID = 256
_SMALLEST_RHO = 1e-10  # 0 for all purposes; keeps the Dirichlet's concentration finite


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownDispersion:
    """What simulations know and the nightly run estimates."""

    shares_rho: float  # 0 to 1
    volume_log_variance: float  # of the logarithm of a night's photos, beyond Poisson's, from 0 up
    rejections_rho: float  # 0 to 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispersion:
    """What is believed of rho: values from low to high and their probabilities, which add up to 1."""

    rho: NDArray[np.float64]
    weight: NDArray[np.float64]
    estimate: float | None  # the most probable; None where it is not estimated
    assumed: float | None = None  # the value that stands in for an estimate

    @classmethod
    def at(cls, rho: float, *, assumed: bool = False) -> Dispersion:
        """One value that is known, or assumed."""
        import numpy as np

        return cls(
            rho=np.array([rho]),
            weight=np.ones(1),
            estimate=None if assumed else rho,
            assumed=rho if assumed else None,
        )

    def spread(self, draws: int) -> NDArray[np.float64]:
        """``draws`` values whose histogram is the distribution; evenly spread, so without noise of their own."""
        import numpy as np

        at = (np.arange(draws) + 0.5) / draws
        index = np.minimum(np.searchsorted(np.cumsum(self.weight), at), len(self.rho) - 1)
        values: NDArray[np.float64] = self.rho[index]
        return values


def estimate_dispersion(
    counts: NDArray[np.int64], groups: NDArray[np.int64], *, rare: float = 0.0
) -> Dispersion | None:
    """What the nights say of rho: its posterior distribution on a grid, or None where they cannot say anything.

    The likelihood is the restricted (REML) likelihood of a normal distribution with the mean and the variance of the
    Dirichlet-multinomial, so that means estimated from few nights do not make it too small. The prior is flat in the
    logarithm of the design effect: with nights of equal size the posterior of the design effect is then the scaled
    inverse chi-square distribution that makes Student's t exact for normal means (Gelman et al. 2013, "Bayesian Data
    Analysis", ch. 3.2), cut off below 1.

    Args:
        counts: photos, ``(nights, categories)``; every night has some.
        groups: ``(nights,)``; nights differ by chance only within a group (a weekday).
        rare: categories with fewer expected photos in a middling night are taken together: with fewer than about 5 the
            variance alone describes counts badly.
    """
    import numpy as np

    sizes = counts.sum(axis=1).astype(np.float64)
    middling = float(np.median(sizes))
    expected = counts.sum(axis=0) / sizes.sum() * middling
    seldom = expected < rare
    if seldom.sum() > 1:
        counts = np.concatenate([counts[:, ~seldom], counts[:, seldom].sum(axis=1, keepdims=True)], axis=1)
    if middling < 2 or counts.shape[1] < 2:
        return None
    shares = counts / sizes[:, None]
    log_effect = np.linspace(0.0, np.log1p((middling - 1) * _LARGEST_RHO), _GRID)
    rho = np.expm1(log_effect) / (middling - 1)
    effect = 1 + (sizes[None, :] - 1) * rho[:, None]
    weights = sizes / effect  # (grid, nights)
    log_likelihood, freedom = np.zeros(_GRID), 0
    for group in np.unique(groups):
        inside = groups == group
        if inside.sum() < 2:
            continue
        w, p = weights[:, inside], shares[inside]
        total = w.sum(axis=1)
        mean = w @ p / total[:, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            squares = np.maximum(w @ p**2 - total[:, None] * mean**2, 0.0) / mean
        chi_square = np.nan_to_num(squares, nan=0.0, posinf=0.0).sum(axis=1)
        columns = max(1, int((p.sum(axis=0) > 0).sum()) - 1)
        log_likelihood -= (columns * (np.log(effect[:, inside]).sum(axis=1) + np.log(total)) + chi_square) / 2
        freedom += (int(inside.sum()) - 1) * columns
    if freedom == 0:
        return None
    weight = np.exp(log_likelihood - log_likelihood.max())
    return Dispersion(rho=rho, weight=weight / weight.sum(), estimate=float(rho[weight.argmax()]))


def draw_pairs(
    random: np.random.Generator,
    *,
    shares: NDArray[np.float64],
    photos: int,
    reference_sizes: NDArray[np.int64],
    dispersion: Dispersion,
    draws: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Counts of a night and of a reference, both without drift, ``(draws, categories)`` each.

    Every draw has a rho of its own, so the draws carry what is not known of it. The reference's nights are not drawn
    one by one: their sum is drawn as one Dirichlet-multinomial with the same mean and the same variance, which is the
    sum's own distribution where rho is 0 or there is one night, and close to it otherwise, because sums of nights are
    close to normal.
    """
    import numpy as np

    rho = dispersion.spread(draws)
    sizes = reference_sizes.astype(np.float64)
    total = float(sizes.sum())
    together = float((sizes * (sizes - 1)).sum()) / max(total * (total - 1), 1.0)  # share of pairs within one night
    return (
        _draw(random, shares, rho, photos),
        _draw(random, shares, rho * together, int(total)),
    )


def _draw(
    random: np.random.Generator, shares: NDArray[np.float64], rho: NDArray[np.float64], photos: int
) -> NDArray[np.int64]:
    import numpy as np

    concentration = 1 / np.maximum(rho, _SMALLEST_RHO) - 1
    drawn = random.standard_gamma(concentration[:, None] * shares[None, :])
    drawn = np.maximum(drawn, 1e-300)
    return random.multinomial(photos, drawn / drawn.sum(axis=1, keepdims=True))
