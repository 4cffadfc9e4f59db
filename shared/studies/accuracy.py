"""The accuracy of an implementation's losses, value and gradient: `python -m shared.accuracy`.

Its `loss` is asked for a hundred scores, one by one, with either target, and held against 50-digit
arithmetic. ULP are units in the last place of the truth in the dtype of the scores. Where a loss
near zero makes them explode, ε is the same error with a unit never below that of 1. docs/losses.md
has the same of the frameworks' own losses. It needs mpmath: pip install -e '.[test]'. The exit code
is 2 for bad input.
"""

import argparse
import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from shared.interface import Array, Implementation, load_implementation, use_cpu
from shared.reference.comparison import ulp_error
from shared.run.console import add_implementations, command, text_table, tracked

LOSSES = ("bce", "bce_probs", "lsgan")  # minimax is made of bce's two targets
DTYPES = ("float32", "float64", "bfloat16")
TARGETS = (1.0, 0.0)
EVERY = 10  # a sweep has about a thousand scores; the command takes each tenth

# Beyond this many ULP an error is also taken in ε.
EXPLODED = 100.0

Results = tuple[Array, Array]  # the loss of each score and its derivative, as float64
Evaluate = Callable[[Array, float, str], Results]  # exact scores, their target, a dtype → results


class Error(NamedTuple):
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
def measure(loss: str, evaluate: Evaluate, dtype: str, every: int = 1) -> tuple[Error, Error]:
    """Return the largest error of the value and of the gradient over every n-th score."""
    from shared.fixtures.exact_losses import exact_loss  # needs mpmath

    scores = sweep_scores(loss, dtype)[::every]
    errors: tuple[list[Error], list[Error]] = ([], [])
    for target in TARGETS:
        for kind, actual in enumerate(evaluate(scores, target, dtype)):
            truth = [exact_loss(loss, float(x), target)[kind] for x in scores]
            pairs = list(zip(actual.tolist(), truth, strict=True))
            ulp = [ulp_error(a, e, dtype) for a, e in pairs]
            worst = int(np.argmax(ulp))
            epsilons = ulp[worst]
            if epsilons > EXPLODED:
                epsilons = max(ulp_error(a, e, dtype, floor=1.0) for a, e in pairs)
            errors[kind].append(Error(ulp[worst], epsilons, float(scores[worst]), target))
    value, gradient = (max(kind, key=lambda error: error.ulp) for kind in errors)
    return value, gradient


def batches_of_one(implementation: Implementation, loss: str) -> Evaluate:
    """Return what evaluates a loss of any implementation, each score as a batch."""

    def evaluate(scores: Array, target: float, dtype: str) -> Results:
        import ml_dtypes  # noqa: F401 - gives NumPy bfloat16; JAX and TensorFlow bring it along

        arrays = scores.astype(dtype).reshape(-1, 1)
        found = [implementation.loss(loss, x, x, generator_label=target) for x in arrays]
        values = np.array([float(f.generator) for f in found])
        return values, np.array([float(f.generator_fake_gradient[0]) for f in found])

    return evaluate


def shown(error: Error) -> str:
    """Return an error with the place where it is."""
    place = f"score {error.score:.4g}, target {error.target:.0f}"
    if error.ulp > EXPLODED:
        return f"{error.ulp:.1e} ({place}; {error.epsilons:.3g} ε)"
    return f"{error.ulp:.2f} ({place})"


def _run(options: argparse.Namespace) -> None:
    use_cpu()  # the numbers are few
    implementations = map(load_implementation, options.implementations)
    cases = list(itertools.product(implementations, LOSSES, DTYPES))
    rows = [["implementation", "loss", "dtype", "ULP of the value", "of the gradient"]]
    for implementation, loss, dtype in tracked("losses", cases):
        errors = measure(loss, batches_of_one(implementation, loss), dtype, EVERY)
        rows.append([implementation.name, loss, dtype, *map(shown, errors)])
    print(text_table(rows, "<"))


main = command("python -m shared.accuracy", __doc__, add_implementations, _run)
