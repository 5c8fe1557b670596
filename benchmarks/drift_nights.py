"""Makes nights whose drift is known: realistic shares, with and without differences between nights by nature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

from refund.monitor.dispersion import KnownDispersion
from refund.monitor.drift import NightCounts

TONIGHT = date(2026, 11, 21)
NIGHTS = 28
REJECTION_RATE = 0.02
# a long tail, as the departments of a general store have; from 20 % to 0.4 %
PERCENT = (20.0, 15.0, 12.0, 10.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.5, 2.0, 1.5, 1.2, 1.0, 0.8, 0.6, 0.4)
SHARES = np.array(PERCENT) / sum(PERCENT)
NAMES = tuple(f"category_{number:02}" for number in range(len(PERCENT)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Nature:
    """How nights differ by themselves; no concentration: photos and rejections vary by chance alone."""

    title: str
    concentration: float | None  # of the Dirichlet of shares and of the beta of the rejection rate
    volume_sd: float  # of the logarithm of a night's photos, beyond Poisson's

    @property
    def known(self) -> KnownDispersion:
        """The truth, for the rows that estimate nothing."""
        rho = 0.0 if self.concentration is None else 1 / (1 + self.concentration)
        return KnownDispersion(shares_rho=rho, volume_log_variance=self.volume_sd**2, rejections_rho=rho)

    def volumes(self, random: np.random.Generator, photos: int, count: int) -> NDArray[np.int64]:
        """Photos of ``count`` nights."""
        return random.poisson(photos * np.exp(random.normal(0.0, self.volume_sd, count)))

    def rejections(self, random: np.random.Generator, photos: NDArray[np.int64] | int, count: int) -> NDArray[np.int64]:
        """Rejected of these photos."""
        c = self.concentration
        rate = REJECTION_RATE if c is None else random.beta(REJECTION_RATE * c, (1 - REJECTION_RATE) * c, count)
        return random.binomial(photos, rate, count)

    def categories(
        self, random: np.random.Generator, photos: NDArray[np.int64] | int, shares: NDArray[np.float64], count: int
    ) -> NDArray[np.int64]:
        """Counts ``(count, categories)`` of so many photos."""
        c = self.concentration
        if c is None:
            return random.multinomial(photos, shares, count)
        return random.multinomial(photos, random.dirichlet(shares * c, count))


NATURES = (
    Nature(title="chance alone", concentration=None, volume_sd=0.0),
    Nature(title="concentration 2,000", concentration=2_000, volume_sd=0.1),
    Nature(title="concentration 200", concentration=200, volume_sd=0.3),
)


def shifted(category: int, points: float) -> NDArray[np.float64]:
    """The usual shares with one category's larger by ``points`` (a ratio), the others smaller in proportion."""
    shares = SHARES * (1 - SHARES[category] - points) / (1 - SHARES[category])
    shares[category] = SHARES[category] + points
    return shares


def make_nights(random: np.random.Generator, *, nature: Nature, photos: int, count: int) -> list[NightCounts]:
    """``count`` nights without drift; the first is tonight, each next one a day earlier."""
    totals = nature.volumes(random, photos, count)
    rejected = nature.rejections(random, totals, count)
    categories = nature.categories(random, totals - rejected, SHARES, count)
    return [
        NightCounts(
            run_date=TONIGHT - timedelta(days=back),
            categories=dict(zip(NAMES, row, strict=True)),
            rejected=refused,
        )
        for back, (row, refused) in enumerate(zip(categories.tolist(), rejected.tolist(), strict=True))
    ]


def table(nights: Sequence[NightCounts]) -> NDArray[np.int64]:
    """Counts ``(nights, categories)``."""
    return np.array([[night.categories[name] for name in NAMES] for night in nights], dtype=np.int64)
