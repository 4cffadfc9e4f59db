"""The accuracy of the losses: `python -m shared.accuracy` prints the largest error in ULP.

Every loss on hard targets at about a thousand scores, value and gradient, against 50-digit
arithmetic. ULP are units in the last place of the truth in the dtype of the scores.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shared.comparison import ulp_error
from shared.interface import IMPLEMENTATIONS, Implementation, load_implementation

LOSSES = ("bce", "minimax")
DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Accuracy:
    """The largest error of one loss in one dtype, ULP, and the score where it occurs."""

    implementation: str
    loss: str
    dtype: str
    value: float
    value_at: float
    gradient: float
    gradient_at: float


def sweep_scores() -> np.ndarray:
    """Return 1,050 float32 scores with |x| ≤ 80, as float64: a grid and powers around zero."""
    grid = np.linspace(-80.0, 80.0, 801)
    small = np.geomspace(1e-12, 80.0, 125)
    extreme = np.array([16.75, -16.75, 17.0, -17.0])
    scores = np.unique(np.concatenate([grid, small, -small, extreme]).astype(np.float32))
    return scores[np.abs(scores) <= 80.0].astype(np.float64)


def measure(implementation: Implementation, loss: str, dtype: str) -> Accuracy:
    """Return the largest errors over the sweep; each score is a batch of its own."""
    from shared.fixtures.make_losses import exact_losses  # needs mpmath

    worst = {"value": (0.0, 0.0), "gradient": (0.0, 0.0)}
    for x in sweep_scores():
        # Opposite signs: neither half of the discriminator's loss hides the other's error.
        expected = exact_losses(loss, {}, [x], [-x])
        scores = np.array([x], dtype)
        received = implementation.loss(loss, scores, -scores)
        for field, truth in expected.items():
            actual = np.atleast_1d(getattr(received, field))[0]
            error = ulp_error(actual, truth[0], dtype)
            kind = "gradient" if field.endswith("gradient") else "value"
            worst[kind] = max(worst[kind], (error, float(x)))
    return Accuracy(implementation.name, loss, dtype, *worst["value"], *worst["gradient"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m shared.accuracy", description=__doc__)
    parser.add_argument("implementations", nargs="*", default=list(IMPLEMENTATIONS))
    options = parser.parse_args(arguments)
    print(f"{'implementation':<15}{'loss':<9}{'dtype':<9}{'value':>7} at {'gradient':>18} at")
    for name in options.implementations:
        implementation = load_implementation(name)
        for loss in LOSSES:
            for dtype in DTYPES:
                a = measure(implementation, loss, dtype)
                print(
                    f"{a.implementation:<15}{a.loss:<9}{a.dtype:<9}{a.value:>7.2f}"
                    f" {a.value_at:<12.5g}{a.gradient:>7.2f} {a.gradient_at:<12.5g}"
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
