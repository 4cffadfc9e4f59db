"""How far an answer may be from the truth, and why that far.

Each bound has a derivation in words. `tests/test_conformance.py` holds these numbers against those
of the tests of this repository's own implementations, where they were measured.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bound:
    """The largest error that passes, its unit and its derivation."""

    limit: float
    unit: str
    derivation: str


_FORWARD = {"float64": 1e-12, "float32": 5e-6}
_GRADIENTS = {"float64": 1e-12, "float32": 1e-5}
_STATE = {"float64": 1e-11, "float32": 1e-5}
_METRICS = {"float64": 1e-12, "float32": 5e-6}
_DRIFT = {"float64": 1e-4, "float32": 2.0}
_CONV28_FLOAT32 = 1e-4
_ADAM = {"float64": 1e-14, "float32": 1e-6}

_ROUNDING = (
    "Three implementations measured 2e-15 forward, 8e-15 gradients, 2e-14 state in float64; 5e-7, "
    "2e-6 and 2e-6 in float32. The smallest planted fault, a leaky ReLU whose slope went through "
    "float32, shows at 1.5e-8; BN's epsilon of 1e-3 at 5e-4. No pre-activation of a float32 case "
    "is nearer to a kink than 4e-6, so that rounding turns none."
)
_CONV28 = (
    "conv28 in float32 normalises dense features over seven images and sums what nearly cancels: "
    "measured 4.4e-5; eight planted faults move it by more than ten times the bound."
)

EXACT = Bound(0.0, "numbers that differ", "No arithmetic makes it: equal, or wrong.")


def loss_bound(limit: float, field: str) -> Bound:
    """Return the bound of a loss or of its gradient, in ULP of the 50-digit truth."""
    what = "gradient" if field.endswith("gradient") else "value"
    return Bound(
        limit,
        "ULP",
        f"tolerance.{what} of shared/fixtures/losses.json, whose tolerance_derivation says why: "
        "what the formula reaches for one score, measured, with a margin, and a sum of n numbers "
        "of one sign adds at most n.",
    )


def forward_bound(dtype: str) -> Bound:
    """Return the bound of images and scores."""
    return Bound(_FORWARD[dtype], "relative L2", _ROUNDING)


def gradient_bound(architecture: str, dtype: str) -> Bound:
    """Return the bound of a parameter's gradient."""
    return _of_training(_GRADIENTS, architecture, dtype)


def state_bound(architecture: str, dtype: str) -> Bound:
    """Return the bound of an array of the state after one step."""
    return _of_training(_STATE, architecture, dtype)


def _of_training(bounds: dict[str, float], architecture: str, dtype: str) -> Bound:
    if architecture == "conv28" and dtype == "float32":
        return Bound(_CONV28_FLOAT32, "relative L2", _CONV28)
    return Bound(bounds[dtype], "relative L2", _ROUNDING)


def metric_bound(dtype: str) -> Bound:
    """Return the bound of a loss that a step returns, absolute below 1."""
    derivation = (
        "Absolute below 1, relative above: a score near 0 is a sum of numbers of order 1 and has "
        "their rounding error, about 1e-6 in float32. Measured 7e-7 and 5e-14."
    )
    return Bound(_METRICS[dtype], "of max(1, |loss|)", derivation)


def drift_bound(dtype: str) -> Bound:
    """Return the bound of what rounding moves: a bias that batch normalisation takes away."""
    derivation = (
        "Its gradient is 0 in exact arithmetic. Adam divides rounding by its own size: float32 "
        "moves it by up to one learning rate in either direction; float64's rounding of 1e-13 over "
        "Adam's epsilon was measured as 1e-5 of one."
    )
    return Bound(_DRIFT[dtype], "learning rates", derivation)


def adam_bound(dtype: str) -> Bound:
    """Return the bound of Adam's first ten updates, each number divided by its own size."""
    derivation = (
        "Measured over ten updates: 3.6e-15 and 2.0e-7, at every epsilon. Bias correction by "
        "float32's rounded beta is 6e-6 off, epsilon before the correction 0.42."
    )
    return Bound(_ADAM[dtype], "relative L2 by magnitude", derivation)


KOLMOGOROV = Bound(
    3.0,
    "Kolmogorov's D times the root of n",
    "Any generator of random numbers will do, so the distribution is compared. Right draws exceed "
    "3 with probability 2 exp(-18) = 3e-8 an array; one outside the distribution's support fails.",
)
