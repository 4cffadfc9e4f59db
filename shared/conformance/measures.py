"""The error of an answer against its truth, in the unit of its bound; nan where it has none."""

from __future__ import annotations

import math

import numpy as np

from shared.reference.comparison import relative_l2, ulp_error
from shared.spec.layers import Initializer, Parameter

# A float32 number may lie outside the support by its own rounding.
_ROUNDED = 1e-6


def ulp(actual: np.ndarray, truth: np.ndarray, *, dtype: str, floor: float = 0.0) -> float:
    """Return the largest error of any number in ULP; the truth is an array of ExactNumber."""
    pairs = zip(np.ravel(actual), np.ravel(truth), strict=True)
    return max(ulp_error(number, exact, dtype, floor=floor) for number, exact in pairs)


def relative(actual: np.ndarray, truth: np.ndarray, *, sizes: np.ndarray | float = 1.0) -> float:
    """Return the relative L2 error, every number first divided by its own size."""
    return relative_l2(np.asarray(actual, np.float64) / sizes, truth / sizes)


def different(actual: np.ndarray, truth: np.ndarray) -> float:
    """Return how many numbers are not the same."""
    return float(np.count_nonzero(actual != truth))


def absolute_below_one(actual: np.ndarray, truth: np.ndarray) -> float:
    """Return |actual - truth| over max(1, |truth|)."""
    return float(abs(actual - truth) / max(1.0, abs(truth)))


def kolmogorov(actual: np.ndarray, truth: Parameter) -> float:
    """Return √n times the largest distance of the empirical distribution from the parameter's.

    inf for a number outside its support.
    """
    law = truth.initializer
    if law.distribution == "uniform_fan_in":
        law = Initializer("uniform", 0.0, truth.fan_in**-0.5)
    drawn = (np.sort(actual.astype(np.float64), axis=None) - law.mean) / law.scale
    support = {"uniform": 1.0, "truncated_normal": 2.0}.get(law.distribution, math.inf)
    if not np.isfinite(drawn).all() or np.abs(drawn).max() > support + _ROUNDED:
        return math.inf
    expected = _cumulative(law.distribution, drawn)
    steps = np.arange(drawn.size + 1) / drawn.size
    distance = max((steps[1:] - expected).max(), (expected - steps[:-1]).max())
    return float(math.sqrt(drawn.size) * distance)


def _cumulative(distribution: str, x: np.ndarray) -> np.ndarray:
    """Return the distribution function of standardised draws."""
    if distribution == "uniform":
        return np.clip((x + 1.0) / 2.0, 0.0, 1.0)
    normal = np.array([0.5 * math.erfc(-number / math.sqrt(2.0)) for number in x])
    if distribution == "normal":
        return normal
    outside = 0.5 * math.erfc(math.sqrt(2.0))  # below -2
    return np.clip((normal - outside) / (1.0 - 2.0 * outside), 0.0, 1.0)
