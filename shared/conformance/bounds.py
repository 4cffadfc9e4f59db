"""How far an answer may be from the truth, why that far, and how its error is measured.

`tests/conformance/test_conformance.py` holds these numbers against those of our own tests.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from shared.interface import Array
from shared.reference.comparison import relative_l2, ulp_error
from shared.spec.layers import Initializer, Parameter


@dataclass(frozen=True)
class Bound:
    """The largest error that passes, its unit and its derivation."""

    limit: float
    unit: str
    derivation: str


_ROUNDING = (
    "Three implementations measured 2e-15 forward, 8e-15 gradients, 2e-14 state in float64; 5e-7, "
    "2e-6 and 2e-6 in float32. The smallest planted fault, a leaky ReLU whose slope went through "
    "float32, shows at 1.5e-8; BN's epsilon of 1e-3 at 5e-4. No pre-activation of a float32 case "
    "is nearer to a kink than 4e-6, so that rounding turns none."
)
# Kind → (limit in float64, in float32, unit, derivation).
_BOUNDS = {
    "forward": (1e-12, 5e-6, "relative L2", _ROUNDING),
    "gradients": (1e-12, 1e-5, "relative L2", _ROUNDING),
    "state": (1e-11, 1e-5, "relative L2", _ROUNDING),
    "metrics": (
        1e-12,
        5e-6,
        "of max(1, |loss|)",
        "Absolute below 1, relative above: a score near 0 is a sum of numbers of order 1 and has "
        "their rounding error, about 1e-6 in float32. Measured 7e-7 and 5e-14.",
    ),
    # What rounding moves: a bias that batch normalisation takes away.
    "drift": (
        1e-4,
        2.0,
        "learning rates",
        "Its gradient is 0 in exact arithmetic. Adam divides rounding by its own size: float32 "
        "moves it by up to one learning rate in either direction; float64's rounding of 1e-13 over "
        "Adam's epsilon was measured as 1e-5 of one.",
    ),
    # Ten updates, each number divided by its own size.
    "adam": (
        1e-14,
        1e-6,
        "relative L2 by magnitude",
        "Measured over ten updates: 3.6e-15 and 2.0e-7, at every epsilon. Bias correction by "
        "float32's rounded beta is 6e-6 off, epsilon before the correction 0.42.",
    ),
}
_CONV28_FLOAT32 = Bound(
    1e-4,
    "relative L2",
    "conv28 in float32 normalises dense features over seven images and sums what nearly cancels: "
    "measured 4.4e-5; eight planted faults move it by more than ten times the bound.",
)
EXACT = Bound(0.0, "numbers that differ", "No arithmetic makes it: equal, or wrong.")
KOLMOGOROV = Bound(
    3.0,
    "Kolmogorov's D times the root of n",
    "Any generator of random numbers will do, so the distribution is compared. Right draws exceed "
    "3 with probability 2 exp(-18) = 3e-8 an array; one outside the distribution's support fails.",
)


def bound_of(kind: str, dtype: str, architecture: str = "") -> Bound:
    """Return the bound of a kind of array: forward, gradients, state, metrics, drift or adam."""
    if (architecture, dtype) == ("conv28", "float32") and kind in ("gradients", "state"):
        return _CONV28_FLOAT32
    float64, float32, unit, derivation = _BOUNDS[kind]
    return Bound(float64 if dtype == "float64" else float32, unit, derivation)


# The error of an answer against its truth, in the unit of its bound; nan where it has none.


def ulp(actual: Array, truth: Array, *, dtype: str, floor: float = 0.0) -> float:
    """Return the largest error of any number in ULP; the truth is an array of ExactNumber."""
    pairs = zip(np.ravel(actual), np.ravel(truth), strict=True)
    return max(ulp_error(number, exact, dtype, floor=floor) for number, exact in pairs)


def relative(actual: Array, truth: Array, *, sizes: Array | float = 1.0) -> float:
    """Return the relative L2 error, every number first divided by its own size."""
    return relative_l2(np.asarray(actual, np.float64) / sizes, truth / sizes)


def different(actual: Array, truth: Array) -> float:
    """Return how many numbers are not the same."""
    return float(np.count_nonzero(actual != truth))


def absolute_below_one(actual: Array, truth: Array) -> float:
    """Return |actual - truth| over max(1, |truth|)."""
    return float(abs(actual - truth) / max(1.0, abs(truth)))


def kolmogorov(actual: Array, truth: Parameter) -> float:
    """Return √n times Kolmogorov's distance from the parameter's law; inf outside its support."""
    law = truth.initializer
    if law.distribution == "uniform_fan_in":
        law = Initializer("uniform", 0.0, truth.fan_in**-0.5)
    laws = {"uniform": stats.uniform(-1.0, 2.0), "truncated_normal": stats.truncnorm(-2.0, 2.0)}
    standard = laws.get(law.distribution, stats.norm())
    drawn = (actual.astype(np.float64).ravel() - law.mean) / law.scale
    # A float32 number may lie outside by its own rounding.
    if not np.isfinite(drawn).all() or np.abs(drawn).max() > standard.support()[1] + 1e-6:
        return math.inf
    found = stats.ks_1samp(drawn, standard.cdf, method="asymp")
    return math.sqrt(drawn.size) * float(found.statistic)
