"""Median, quantiles and a bootstrap interval of timings that come in rounds of windows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 2000


def median_of_rounds(rounds: Sequence[Sequence[float]]) -> float:
    """Return the median over rounds of each round's median; a value may be any unit.

    Raises ValueError without a round, or for a round without a value.
    """
    _check(rounds)
    return float(np.median([np.median(values) for values in rounds]))


def quantiles(values: Sequence[float], fractions: Sequence[float]) -> list[float]:
    """Return the quantiles of all values, interpolated linearly between two of them.

    `fractions` lie in [0, 1]. Raises ValueError without a value.
    """
    if len(values) == 0:
        raise ValueError("quantiles need at least one value")
    return [float(value) for value in np.quantile(values, fractions)]


def bootstrap_interval(
    rounds: Sequence[Sequence[float]], seed: int, *, coverage: float = 0.95
) -> tuple[float, float]:
    """Return the bootstrap interval of `median_of_rounds`, in the unit of the values.

    Rounds are drawn with replacement, then windows within each drawn round: two windows of one
    process share its luck (memory layout, neighbours), so they are worth less than two rounds.
    Raises ValueError without a round, or for a round without a value.
    """
    _check(rounds)
    draw = np.random.default_rng(seed)
    medians = [
        median_of_rounds(
            [
                draw.choice(rounds[i], len(rounds[i])).tolist()
                for i in draw.integers(len(rounds), size=len(rounds))
            ]
        )
        for _ in range(RESAMPLES)
    ]
    low, high = quantiles(medians, [(1 - coverage) / 2, (1 + coverage) / 2])
    return low, high


def _check(rounds: Sequence[Sequence[float]]) -> None:
    if len(rounds) == 0 or any(len(values) == 0 for values in rounds):
        raise ValueError("statistics need at least one round, and a value in every round")
