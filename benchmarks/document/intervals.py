"""Medians, quantiles, ratios and bootstrap intervals of timings in rounds of windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.interface import Array

RESAMPLES = 2000
FAR_OUT = 3.0  # interquartile ranges beyond a quartile: Tukey's outer fence

Rounds = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Ratio:
    """A ratio with its 95 % interval, and the ratio of each round (empty where not paired)."""

    value: float
    low: float
    high: float
    per_round: tuple[float, ...] = ()


def rates_of(row: dict[str, Any], batch_size: int) -> list[float]:
    """Return the images per second of each window of a row."""
    return [1e3 * batch_size * window["steps"] / window["ms"] for window in row["windows"]]


def median_of_rounds(rounds: Rounds) -> float:
    """Return the median over rounds of each round's median; a value may be any unit.

    Raises ValueError without a round, or for a round without a value.
    """
    _check(rounds)
    return float(np.median([np.median(values) for values in rounds]))


def quantiles(values: Sequence[float] | Array, fractions: Sequence[float]) -> list[float]:
    """Return the quantiles of all values, interpolated linearly; `fractions` lie in [0, 1]."""
    return np.quantile(values, fractions).tolist()


def bootstrap_interval(rounds: Rounds, seed: int) -> tuple[float, float]:
    """Return the bootstrap interval of 95 % of `median_of_rounds`, in the unit of the values.

    Rounds are drawn with replacement, then windows within each drawn round: two windows of one
    process share its luck (memory layout, neighbours), so they are worth less than two rounds.
    Raises ValueError without a round, or for a round without a value.
    """
    return _interval(_resampled(rounds, np.random.default_rng(seed)))


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
    _check([*sides[0], *sides[1]])
    per_round = tuple(float(np.median(a) / np.median(b)) for a, b in zip(*sides, strict=True))
    draw = np.random.default_rng(seed)
    chosen = _choose(len(common), draw)
    above, below = (_drawn(side, chosen, draw) for side in sides)
    interval = _interval(np.median(above / below, axis=1))
    return Ratio(float(np.median(per_round)), *interval, per_round)


def unpaired_ratio(numerator: Rounds, denominator: Rounds, seed: int) -> Ratio:
    """Return the ratio of medians of rounds of two runs, each drawn by itself for the interval."""
    draw = np.random.default_rng(seed)
    above, below = (_resampled(rounds, draw) for rounds in (numerator, denominator))
    value = median_of_rounds(numerator) / median_of_rounds(denominator)
    return Ratio(value, *_interval(above / below))


def outliers(values: Sequence[float]) -> list[int]:
    """Return the positions of values far outside the others, which are flagged and never dropped.

    Far is three interquartile ranges beyond a quartile, and 5 % of the median from it: where all
    values are equal but for the clock, the range is nothing.
    """
    if len(values) < 4:
        return []
    first, median, third = quantiles(values, (0.25, 0.5, 0.75))
    reach = FAR_OUT * (third - first)
    return [
        i
        for i, value in enumerate(values)
        if not first - reach <= value <= third + reach and abs(value / median - 1) > 0.05
    ]


def _interval(resamples: Array) -> tuple[float, float]:
    low, high = quantiles(resamples, (0.025, 0.975))
    return low, high


def _resampled(rounds: Rounds, draw: np.random.Generator) -> Array:
    """Return the median of rounds of each resample."""
    _check(rounds)
    return np.median(_drawn(rounds, _choose(len(rounds), draw), draw), axis=1)


def _choose(count: int, draw: np.random.Generator) -> Array:
    """Return which of `count` rounds each resample has, with replacement: [RESAMPLES, count]."""
    return draw.integers(count, size=(RESAMPLES, count))


def _drawn(rounds: Rounds, chosen: Array, draw: np.random.Generator) -> Array:
    """Return the median of the windows drawn anew within each chosen round, as `chosen` is."""
    medians = np.empty(chosen.shape)
    for number, values in enumerate(rounds):
        here = chosen == number
        places = draw.integers(len(values), size=(np.count_nonzero(here), len(values)))
        medians[here] = np.median(np.asarray(values)[places], axis=1)
    return medians


def _check(rounds: Rounds) -> None:
    if not rounds or not all(rounds):
        raise ValueError("statistics need at least one round, and a value in every round")
