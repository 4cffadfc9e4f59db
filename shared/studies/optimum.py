"""The optimal discriminator of two known densities on a line, and what it can reach, by quadrature.

D*(x) = (real_label · p_d + fake_label · p_g) / (p_d + p_g), whichever loss is descended (Goodfellow
et al. 2014, proposition 1; Mao et al. 2017, equation 5).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy.special import rel_entr, xlogy

from shared.reference.layers import Array


@dataclass(frozen=True)
class Densities:
    """The densities of the real and of the fake numbers."""

    real: NormalDist
    fake: NormalDist

    def at(self, x: Array) -> tuple[Array, Array]:
        """Return p_d and p_g at every x."""
        real, fake = (
            np.exp(-np.square((x - p.mean) / p.stdev) / 2.0) / (p.stdev * math.sqrt(2.0 * math.pi))
            for p in (self.real, self.fake)
        )
        return real, fake

    def between_quantiles(self, tail: float, count: int) -> Array:
        """Return `count` equally spaced x, from either's quantile `tail` to either's 1 - tail."""
        ends = [p.inv_cdf(q) for p in (self.real, self.fake) for q in (tail, 1.0 - tail)]
        return np.linspace(min(ends), max(ends), count)


# Different means and widths, so that D* rises and falls again: no straight line of logits fits it.
APART = Densities(NormalDist(-0.5, 0.7), NormalDist(0.8, 1.2))
SAME = Densities(NormalDist(-0.5, 0.7), NormalDist(-0.5, 0.7))


Labels = Mapping[str, float]
"""The targets of real and of fake numbers; a cross entropy needs them in [0, 1]."""
HARD: Labels = {"real_label": 1.0, "fake_label": 0.0}


def stratified(density: NormalDist, count: int) -> Array:
    """Return the middle quantiles of `count` equal parts, float64 [count]: a sample with no luck.

    >>> stratified(NormalDist(), 3).round(2).tolist()
    [-0.97, 0.0, 0.97]
    """
    return np.array([density.inv_cdf((i + 0.5) / count) for i in range(count)])


def optimum(densities: Densities, x: Array, labels: Labels = HARD) -> Array:
    """Return D*(x), which minimises every one of the four losses pointwise."""
    real, fake = densities.at(x)
    return (labels["real_label"] * real + labels["fake_label"] * fake) / (real + fake)


def quadrature_points(densities: Densities) -> Array:
    """Return points out to ten deviations, where the trapezoid rule is exact to rounding."""
    ends = [p.mean + s * p.stdev for p in (densities.real, densities.fake) for s in (-10.0, 10.0)]
    return np.linspace(min(ends), max(ends), 20_001)


def jensen_shannon(densities: Densities) -> float:
    """Return the Jensen-Shannon divergence in nats: 0 for equal densities, at most log 2."""
    x = quadrature_points(densities)
    real, fake = densities.at(x)
    middle = (real + fake) / 2.0
    return float(np.trapezoid(rel_entr(real, middle) + rel_entr(fake, middle), x)) / 2.0


def least_loss(loss: str, densities: Densities, labels: Labels = HARD) -> float:
    """Return the discriminator's loss at D*, by quadrature: no other one is smaller.

    For a cross entropy and hard labels it is log 4 - 2 JSD (Goodfellow et al. 2014, theorem 1).
    """
    x, of_real, of_fake = quadrature_points(densities), labels["real_label"], labels["fake_label"]
    (real, fake), best = densities.at(x), optimum(densities, x, labels)
    if loss == "lsgan":
        terms = real * (best - of_real) ** 2 / 2.0 + fake * (best - of_fake) ** 2 / 2.0
        return float(np.trapezoid(terms, x))
    # The weights of -log D* and of -log(1 - D*); where one is 0, so is its term.
    weights = of_real * real + of_fake * fake, (1.0 - of_real) * real + (1.0 - of_fake) * fake
    return float(np.trapezoid(-sum(xlogy(w, w / (real + fake)) for w in weights), x))
