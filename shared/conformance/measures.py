"""The error of an answer against a truth, in the unit of its bound; nan where it has none."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from shared.reference.comparison import ExactNumber, relative_l2, ulp_error
from shared.spec.layers import Initializer, Parameter

Measure = Callable[[np.ndarray], float]

# A float32 number may lie outside the support by its own rounding.
_ROUNDED = 1e-6


def ulp(truth: Sequence[ExactNumber], dtype: str, floor: float) -> Measure:
    """Return the largest error of any number in ULP of the exact one."""

    def measure(actual: np.ndarray) -> float:
        pairs = zip(np.atleast_1d(actual), truth, strict=True)
        try:
            return max(ulp_error(number, exact, dtype, floor=floor) for number, exact in pairs)
        except OverflowError:  # more units than a float can count
            return math.inf

    return measure


def relative(truth: np.ndarray, sizes: np.ndarray | float = 1.0) -> Measure:
    """Return the relative L2 error, every number first divided by its own size."""

    def measure(actual: np.ndarray) -> float:
        return relative_l2(np.asarray(actual, np.float64) / sizes, truth / sizes)

    return measure


def different(truth: np.ndarray) -> Measure:
    """Return how many numbers are not the same."""

    def measure(actual: np.ndarray) -> float:
        return float(np.count_nonzero(actual != truth))

    return measure


def absolute_below_one(truth: float) -> Measure:
    """Return |actual - truth| over max(1, |truth|)."""

    def measure(actual: np.ndarray) -> float:
        return abs(float(actual) - truth) / max(1.0, abs(truth))

    return measure


def kolmogorov(parameter: Parameter) -> Measure:
    """Return √n times the largest distance of the empirical distribution from the parameter's.

    inf for a number outside its support.
    """
    initializer = parameter.initializer
    if initializer.distribution == "uniform_fan_in":
        initializer = Initializer("uniform", 0.0, parameter.fan_in**-0.5)

    def measure(actual: np.ndarray) -> float:
        drawn = (np.sort(actual.astype(np.float64), axis=None) - initializer.mean) / (
            initializer.scale
        )
        if not np.isfinite(drawn).all() or np.abs(drawn).max() > _support(initializer) + _ROUNDED:
            return math.inf
        expected = _cumulative(initializer, drawn)
        steps = np.arange(drawn.size + 1) / drawn.size
        distance = max((steps[1:] - expected).max(), (expected - steps[:-1]).max())
        return float(math.sqrt(drawn.size) * distance)

    return measure


def _support(initializer: Initializer) -> float:
    """Return the largest number that a standardised draw can be."""
    return {"uniform": 1.0, "truncated_normal": 2.0}.get(initializer.distribution, math.inf)


def _cumulative(initializer: Initializer, x: np.ndarray) -> np.ndarray:
    """Return the distribution function of standardised draws."""
    if initializer.distribution == "uniform":
        return np.clip((x + 1.0) / 2.0, 0.0, 1.0)
    normal = np.array([0.5 * math.erfc(-number / math.sqrt(2.0)) for number in x])
    if initializer.distribution == "normal":
        return normal
    outside = 0.5 * math.erfc(math.sqrt(2.0))  # below -2
    return np.clip((normal - outside) / (1.0 - 2.0 * outside), 0.0, 1.0)
