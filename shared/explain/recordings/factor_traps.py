"""Traps that show as a constant factor: a mean or a sum, a half, a sign, n / (n - 1)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from shared.explain.recordings.aligning import KERNELS
from shared.explain.recordings.evidence import Evidence, named_trap
from shared.explain.recordings.report import Trap
from shared.reference.comparison import relative_l2

# What moves by steps, in which a factor means nothing: a first update of Adam is ± one rate.
_STATE = (*KERNELS, "bias", "scale", "m", "v", "mean")
_LARGEST_FACTOR = 2.0**20  # no batch has more images
_COARSEST_BOUND = 1e-4  # a coarser dtype does not tell factors apart

Reading = tuple[str, str, str]  # a field with the first's value and the second's


@dataclass(frozen=True)
class _Factor:
    """second = value * first of a tensor, within `tolerance`."""

    name: str
    value: float
    tolerance: float

    def is_near(self, *expected: float) -> bool:
        return any(abs(self.value - e) <= self.tolerance * abs(e) for e in expected)

    def in_order(self, smaller: str, larger: str) -> tuple[str, str]:
        """Return what the first has and what the second has, of two known values."""
        return (smaller, larger) if self.value > 1 else (larger, smaller)


@dataclass(frozen=True)
class _Sizes:
    """Numbers of images in a batch, and of numbers that a channel's statistics are made of."""

    batches: set[int]
    counts: set[int]


def factor_traps(evidence: Evidence) -> Iterator[Trap]:
    """Yield the known readings of every disagreement that is one factor in all numbers."""
    sizes = _sizes(evidence)
    for step, name in evidence.by_name:
        if (step, name) not in evidence.disagreeing or name.rsplit("/", 1)[-1] in _STATE:
            continue
        first, second = (side.get((step, name)) for side in evidence.sides)
        bound = evidence.bound(step, name)
        if first is None or second is None or not first.any() or bound > _COARSEST_BOUND:
            continue
        value = float(np.vdot(first, second) / np.vdot(first, first))
        is_sensible = 1 / _LARGEST_FACTOR < abs(value) < _LARGEST_FACTOR
        if is_sensible and relative_l2(value * first, second) <= bound:
            yield from _named(_Factor(name, value, 4 * bound), sizes)


def _sizes(evidence: Evidence) -> _Sizes:
    batches, counts = set(), set()
    for aligned in evidence.by_name.values():
        shape, layout = aligned.first.array.shape, aligned.first.layout
        if layout is not None and "N" in layout:
            batches.add(shape[layout.index("N")])
        if aligned.first.name.endswith("/input") and len(shape) >= 2:
            counts |= {math.prod(shape) // shape[axis] for axis in (1, -1)}
    return _Sizes(batches, counts)


def _named(factor: _Factor, sizes: _Sizes) -> Iterator[Trap]:
    """Yield a trap for each known reading of a factor; the only one is certain."""
    where = (factor.name,)
    if factor.is_near(-1.0):
        yield Trap(None, "generator-objective", "the sign", "turned", where)
    readings = list(_readings(factor, sizes))
    for reading in readings:
        yield named_trap(*reading, where, certain=len(readings) == 1)


def _readings(factor: _Factor, sizes: _Sizes) -> Iterator[Reading]:
    value = factor.value
    guesses = {n for n in (round(value), round(1 / value)) if n >= 3}
    for n in (sizes.batches or guesses) - {1}:
        if factor.is_near(n, 1 / n):
            yield "loss_reduction", *factor.in_order("mean", "sum")
    if factor.is_near(2.0, 0.5):
        yield "lsgan_scale", *factor.in_order("0.5", "1.0")
        if not factor.name.startswith("generator"):
            yield "discriminator_loss_scale", *factor.in_order("0.5", "1.0")
    if factor.name.endswith(("/var", "variance")):
        for n in sizes.counts - {1}:
            if factor.is_near(n / (n - 1), (n - 1) / n):
                yield "batch_norm_running_variance", *factor.in_order("biased", "unbiased")
