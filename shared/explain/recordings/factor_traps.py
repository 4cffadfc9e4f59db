"""Traps that show as a constant factor: a mean or a sum, a half, a sign, n / (n - 1)."""

from __future__ import annotations

import math
from collections.abc import Iterator

from shared.explain.recordings.aligning import KERNELS
from shared.explain.recordings.evidence import Evidence, multiple, named_trap
from shared.explain.recordings.report import Trap
from shared.reference.comparison import relative_l2

# What moves by steps, in which a factor means nothing: a first update of Adam is ± one rate.
_STATE = (*KERNELS, "bias", "scale", "m", "v", "mean")
_LARGEST_FACTOR = 2.0**20  # no batch has more images
_COARSEST_BOUND = 1e-4  # a coarser dtype does not tell factors apart

Reading = tuple[str, str, str]  # a field with the smaller side's value and the larger side's


def factor_traps(evidence: Evidence) -> Iterator[Trap]:
    """Yield the known readings of every disagreement that is one factor in all numbers."""
    sizes = _sizes(evidence)
    for step, name in evidence.by_name:
        if (step, name) not in evidence.disagreeing or name.rsplit("/", 1)[-1] in _STATE:
            continue
        first, second = (side.get((step, name)) for side in evidence.sides)
        bound = evidence.bound(step, name)
        if first is None or second is None or bound > _COARSEST_BOUND:
            continue
        factor = multiple(first, second)
        is_sensible = 1 / _LARGEST_FACTOR < abs(factor) < _LARGEST_FACTOR
        if not is_sensible or not relative_l2(factor * first, second) <= bound:
            continue
        if math.isclose(factor, -1.0, rel_tol=4 * bound):
            yield Trap(None, "generator-objective", "the sign", "turned", (name,))
        larger = max(factor, 1 / factor)
        readings = [
            reading
            for expected, reading in _readings(name, *sizes, larger)
            if math.isclose(larger, expected, rel_tol=4 * bound)
        ]
        for field, *values in readings:
            one, other = values if factor > 1 else reversed(values)
            yield named_trap(field, one, other, (name,), certain=len(readings) == 1)


def _sizes(evidence: Evidence) -> tuple[set[int], set[int]]:
    """Return the sizes of batches, and how many numbers a channel's statistics are made of."""
    batches, counts = set(), set()
    for aligned in evidence.by_name.values():
        shape, layout = aligned.first.array.shape, aligned.first.layout
        if layout is not None and "N" in layout:
            batches.add(shape[layout.index("N")])
        if aligned.first.name.endswith("/input") and len(shape) >= 2:
            counts |= {math.prod(shape) // shape[axis] for axis in (1, -1)}
    return batches, counts - {0, 1}


def _readings(
    name: str, batches: set[int], counts: set[int], factor: float
) -> Iterator[tuple[float, Reading]]:
    """Yield the factors greater than 1 that mean something, with what they mean."""
    guesses = {round(factor)} if factor > 2.5 else set()
    for n in (batches or guesses) - {1}:
        yield n, ("loss_reduction", "mean", "sum")
    yield 2.0, ("lsgan_scale", "0.5", "1.0")
    if not name.startswith("generator"):
        yield 2.0, ("discriminator_loss_scale", "0.5", "1.0")
    if name.endswith(("/var", "variance")):
        for n in counts:
            yield n / (n - 1), ("batch_norm_running_variance", "biased", "unbiased")
