"""Medians, quantiles, ratios and bootstrap intervals of timings in rounds of windows.

Whether a difference is certain a bootstrap over few rounds cannot say. The logarithms of what the
rounds gave, one number each, have Student's interval of 99.5 % (Welch's for two runs):
docs/benchmarks.md#how-often-it-is-wrong.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtrit

from shared.interface import Array

RESAMPLES = 2000
ENDS = 0.025, 0.975  # of 95 %
LEAST_CHANGE = 0.03  # less is no difference, however certain
QUANTILE = 0.9975  # of Student's distribution: an interval of 99.5 %
FAR_OUT = 3.0  # interquartile ranges beyond a quartile: Tukey's outer fence

Rounds = Sequence[Sequence[float]]


class Ratio(NamedTuple):
    """A ratio with its 95 % interval, and the ratio of each round (empty where not paired)."""

    value: float
    low: float
    high: float
    per_round: tuple[float, ...] = ()


def rates_of(row: dict[str, Any], batch_size: int) -> list[float]:
    """Return the images per second of each window of a row."""
    return [1e3 * batch_size * window["steps"] / window["ms"] for window in row["windows"]]


def medians(rounds: Rounds) -> Array:
    """Return each round's median: [rounds]; ValueError without a round, or a value in one."""
    if not rounds or not all(rounds):
        raise ValueError("statistics need at least one round, and a value in every round")
    return np.array([np.median(values) for values in rounds])


def median_of_rounds(rounds: Rounds) -> float:
    """Return the median over rounds of `medians`, whose errors it has."""
    return float(np.median(medians(rounds)))


def quantiles(values: Sequence[float] | Array, fractions: Sequence[float]) -> list[float]:
    """Return the quantiles of all values, interpolated linearly; `fractions` lie in [0, 1]."""
    return np.quantile(values, fractions).tolist()


def bootstrap_interval(rounds: Rounds, seed: int) -> tuple[float, float]:
    """Return the bootstrap interval of 95 % of `median_of_rounds`, in the unit of the values.

    Rounds are drawn with replacement, then windows within each drawn round: two windows of one
    process share its luck (memory layout, neighbours), so they are worth less than two rounds.
    Raises ValueError without a round, or for a round without a value.
    """
    low, high = quantiles(_resampled(rounds, np.random.default_rng(seed)), ENDS)
    return low, high


def paired_ratio(
    numerator: Mapping[int, Sequence[float]], denominator: Mapping[int, Sequence[float]], seed: int
) -> Ratio:
    """Return the median over rounds of the ratio of medians, of two mappings round → values.

    A round's processes ran close together, so what slows the machine for a while cancels. The
    interval draws rounds, both sides of one together, then windows within each side. Raises
    ValueError where the two have no round in common.
    """
    common = sorted(numerator.keys() & denominator.keys())
    sides = [[side[i] for i in common] for side in (numerator, denominator)]
    per_round = ratios_of_rounds(*sides)
    draw = np.random.default_rng(seed)
    chosen = draw.integers(len(common), size=(RESAMPLES, len(common)))
    above, below = (_drawn(side, chosen, draw) for side in sides)
    low, high = quantiles(np.median(above / below, axis=1), ENDS)
    return Ratio(float(np.median(per_round)), low, high, per_round)


def unpaired_ratio(numerator: Rounds, denominator: Rounds, seed: int) -> Ratio:
    """Return the ratio of medians of rounds of two runs, each drawn by itself for the interval."""
    draw = np.random.default_rng(seed)
    above, below = (_resampled(rounds, draw) for rounds in (numerator, denominator))
    value = median_of_rounds(numerator) / median_of_rounds(denominator)
    low, high = quantiles(above / below, ENDS)
    return Ratio(value, low, high)


def ratios_of_rounds(numerator: Rounds, denominator: Rounds) -> tuple[float, ...]:
    """Return the ratio of medians of each round of two sides that ran in the same rounds."""
    return tuple((medians(numerator) / medians(denominator)).tolist())


def certainty(*factors: Sequence[float] | Array) -> tuple[float, float]:
    """Return Student's interval of 99.5 % of a product, Welch's for two factors.

    Each round gave one value of a factor: a ratio, or the median of a side and one over the other.
    """
    sides = [np.log(values) for values in factors]
    if min(map(len, sides)) < 2:
        return 0.0, math.inf
    variances = np.array([side.var(ddof=1) / len(side) for side in sides])
    total = variances.sum()
    shares = [v**2 / (len(side) - 1) for v, side in zip(variances, sides, strict=True)]
    freedom = total**2 / sum(shares) if total else 1.0
    mean, reach = sum(side.mean() for side in sides), stdtrit(freedom, QUANTILE) * math.sqrt(total)
    return math.exp(mean - reach), math.exp(mean + reach)


def judge(value: float, certain: tuple[float, float], least: float = LEAST_CHANGE) -> str:
    """Return faster, slower or no difference for a ratio and what is certain of it."""
    low, high = certain
    if low > 1 and value >= 1 + least:
        return "faster"
    return "slower" if high < 1 and value <= 1 - least else "no difference"


def outliers(values: Sequence[float]) -> list[int]:
    """Return the positions of values far outside the others, which are flagged, never dropped."""
    if len(values) < 4:
        return []
    first, median, third = quantiles(values, (0.25, 0.5, 0.75))
    reach, found = FAR_OUT * (third - first), np.asarray(values)
    # Also 5 % from the median: where all are equal but for the clock, the range is nothing.
    is_far = (found < first - reach) | (found > third + reach)
    return np.flatnonzero(is_far & (np.abs(found / median - 1) > 0.05)).tolist()


def _resampled(rounds: Rounds, draw: np.random.Generator) -> Array:
    count = len(medians(rounds))
    chosen = draw.integers(count, size=(RESAMPLES, count))
    return np.median(_drawn(rounds, chosen, draw), axis=1)


def _drawn(rounds: Rounds, chosen: Array, draw: np.random.Generator) -> Array:
    """Return the median of the windows drawn anew within each chosen round, as `chosen` is."""
    found = np.empty(chosen.shape)
    for number, values in enumerate(rounds):
        here = chosen == number
        places = draw.integers(len(values), size=(np.count_nonzero(here), len(values)))
        found[here] = np.median(np.asarray(values)[places], axis=1)
    return found
