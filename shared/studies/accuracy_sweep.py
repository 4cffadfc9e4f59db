"""The error of a loss over a sweep of scores, value and gradient, against 50-digit arithmetic."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.interface import Array
from shared.reference.comparison import ExactNumber, ulp_error

LOSSES = ("bce", "bce_probs", "lsgan")  # minimax is made of bce's two targets
DTYPES = ("float32", "float64", "bfloat16")
TARGETS = (1.0, 0.0)
OURS = "ours"
# What softplus is, without a derivative written for it.
WRITTEN_OUT = "relu(±x) + log1p(exp(-abs(x)))"

# Beyond this many ULP an error is also taken in ε.
EXPLODED = 100.0

Results = tuple[Array, Array]  # the loss of each score and its derivative, as float64


@dataclass(frozen=True)
class Formula:
    """One way to compute a loss. `evaluate(scores, target, dtype)` takes exact scores."""

    framework: str
    loss: str
    name: str
    run: str
    evaluate: Callable[[Array, float, str], Results]


@dataclass(frozen=True)
class Error:
    """The largest error over a sweep in ULP and in ε, and the score and target where it is."""

    ulp: float
    epsilons: float
    score: float
    target: float


def sweep_scores(loss: str = "bce", dtype: str = "float32") -> Array:
    """Return numbers of `dtype` as float64: |x| ≤ 80, or probabilities that no clamp changes."""
    small = np.geomspace(1e-12, 80.0, 125)
    if loss == "bce_probs":
        scores = [np.geomspace(1e-11, 0.5, 400), 1 - np.geomspace(2.0**-24, 0.5, 400)]
        scores.append(np.linspace(0.0, 1.0, 251)[1:-1])
    else:
        scores = [np.linspace(-80.0, 80.0, 801), small, -small, np.array([16.75, 17, -16.75, -17])]
    if loss == "lsgan":
        scores += [1 + small[small < 1], 1 - small[small < 1]]
    rounded = np.concatenate(scores)
    if dtype != "float64":
        bits = rounded.astype(np.float32).view(np.uint32)
        if dtype == "bfloat16":  # the upper 16 bits of a float32
            bits = bits & np.uint32(0xFFFF0000)
        rounded = bits.view(np.float32).astype(np.float64)
    rounded = np.unique(rounded)
    return rounded[rounded < 1] if loss == "bce_probs" else rounded[np.abs(rounded) <= 80.0]


@functools.cache
def exact(loss: str, score: float, target: float) -> tuple[ExactNumber, ExactNumber]:
    """Return the loss of one score and its derivative as exact numbers (50 digits)."""
    from shared.fixtures.make_losses import exact_loss  # needs mpmath

    return exact_loss(loss, score, target)


@functools.cache
def measure(formula: Formula, dtype: str, every: int = 1) -> tuple[Error, Error]:
    """Return the largest error of the value and of the gradient over every n-th score."""
    scores = sweep_scores(formula.loss, dtype)[::every]
    errors: tuple[list[Error], list[Error]] = ([], [])
    for target in TARGETS:
        for kind, actual in enumerate(formula.evaluate(scores, target, dtype)):
            case = (formula.loss, dtype, every, target, kind, actual.tobytes())
            errors[kind].append(_largest(*case))
    value, gradient = (max(kind, key=lambda error: error.ulp) for kind in errors)
    return value, gradient


# Compiled or not, a formula mostly gives the same bits, of which the error is taken once.
@functools.cache
def _largest(loss: str, dtype: str, every: int, target: float, kind: int, actual: bytes) -> Error:
    scores = sweep_scores(loss, dtype)[::every]
    truth = [exact(loss, float(x), target)[kind] for x in scores]
    pairs = list(zip(np.frombuffer(actual), truth, strict=True))
    ulp = [ulp_error(a, e, dtype) for a, e in pairs]
    worst = int(np.argmax(ulp))
    epsilons = ulp[worst]
    if epsilons > EXPLODED:
        epsilons = max(ulp_error(a, e, dtype, floor=1.0) for a, e in pairs)
    return Error(ulp[worst], epsilons, float(scores[worst]), target)


def make_formulas(
    framework: str,
    losses: Mapping[str, Any],
    functions: Mapping[tuple[str, str], Any],
    runs: Mapping[str, Callable[[Any, Array, float, str], Results]],
) -> list[Formula]:
    """Return our losses and every function, by loss and name, under every way of running it."""
    ours = {(loss, OURS): losses[loss].each for loss in LOSSES}
    return [
        Formula(framework, loss, name, run, functools.partial(evaluate, function))
        for (loss, name), function in (ours | dict(functions)).items()
        for run, evaluate in runs.items()
    ]
