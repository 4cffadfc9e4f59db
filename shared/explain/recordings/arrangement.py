"""How the second tensor's axes can be brought into the first's order."""

import dataclasses
import itertools
import math
import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from shared.files.recording import Recorded
from shared.reference.layers import Array

_MAXIMUM_AXES = 5
_LARGEST_KERNEL = 11  # a side in pixels; flipping a larger image explains nothing
IMAGES = ("input", "images", "image")
RGB = 3
Shape = tuple[int, ...]
Fold = tuple[int, int, int]


@dataclass(frozen=True)
class Arrangement:
    """How the second tensor becomes one of the first's shape.

    Its axes in another order, then the axes `flipped` reversed, then one axis that runs over
    (a, b) made to run over (b, a), then a reshape. `inverse`: the first has more axes, and `axes`
    are what would have to be done to it. `in_memory`: a plain reshape, the numbers as they lie.
    """

    axes: tuple[int, ...]
    flipped: tuple[int, ...] = ()
    refold: Fold | None = None
    inverse: bool = False
    in_memory: bool = False

    def apply(self, array: Array, shape: Shape) -> Array:
        """Return the array in the first's `shape`."""
        if self.inverse:
            return array.reshape([shape[a] for a in self.axes]).transpose(np.argsort(self.axes))
        arranged = np.flip(array.transpose(self.axes), self.flipped)
        if self.refold is not None:
            axis, a, b = self.refold
            before, after = arranged.shape[:axis], arranged.shape[axis + 1 :]
            arranged = arranged.reshape(*before, a, b, *after).swapaxes(axis, axis + 1)
        return arranged.reshape(shape)

    @property
    def is_plain(self) -> bool:
        """True for an order of axes and nothing else."""
        return not self.flipped and self.refold is None and not self.in_memory

    def describe(self) -> str:
        """Return what was done, for a reader."""
        if self.in_memory:
            return "reshaped, its numbers in the order in which they lie"
        texts = []
        if self.axes != tuple(range(len(self.axes))):
            texts.append(f"axes {self.axes}" + (" of the first" if self.inverse else ""))
        if self.flipped:
            texts.append(f"axes {self.flipped} flipped")
        if self.refold is not None:
            axis, a, b = self.refold
            orders = orders_of_features(self.refold)
            here, there = (f" ({o})" for o in orders) if orders else (" (CHW against HWC)", "")
            texts.append(f"axis {axis} runs over {a} x {b} there{there}, {b} x {a} here{here}")
        return ", ".join(texts) or "as it is"


def orders_of_features(refold: Fold) -> tuple[str, str] | None:
    """Return the order of channels and pixels here and there, where the numbers show it.

    Only one of the two has to be a square, the number of pixels. None where both are or neither.
    """
    a_is_square, b_is_square = (math.isqrt(n) ** 2 == n for n in refold[1:])
    if a_is_square == b_is_square:
        return None
    return ("CHW", "HWC") if a_is_square else ("HWC", "CHW")


def arrangements(a: Recorded, b: Recorded) -> Iterator[Arrangement]:
    """Yield every arrangement of b that has the shape of a, the simplest first."""
    x, y = a.array.shape, b.array.shape
    if math.prod(x) != math.prod(y):
        return
    plain = list(_orders(x, y))
    yield from plain
    if len(x) != len(y):
        return
    yield from (dataclasses.replace(p, flipped=axes) for p in plain for axes in _spatial_axes(a))
    if len(x) <= 2:
        for axis, n in enumerate(x):
            folds = [(axis, d, n // d) for d in range(2, n // 2 + 1) if n % d == 0]
            yield from (dataclasses.replace(p, refold=f) for p in plain for f in folds)
    if x != y:
        yield Arrangement(tuple(range(len(y))), in_memory=True)


def _orders(x: Shape, y: Shape) -> Iterator[Arrangement]:
    # Those of whichever has more axes that give, or merge into, the other; of orders that differ by
    # axes of one number alone the first.
    inverse = len(x) > len(y)
    longer, shorter = (x, y) if inverse else (y, x)
    axes = tuple(range(len(longer)))
    orders = itertools.permutations(axes) if len(axes) <= _MAXIMUM_AXES else [axes]
    seen = set()
    for order in orders:
        shape, key = tuple(longer[axis] for axis in order), tuple(i for i in order if longer[i] > 1)
        fits = shape == shorter if len(x) == len(y) else _ends(shorter) <= _ends(shape)
        if fits and key not in seen:
            seen.add(key)
            yield Arrangement(order, inverse=inverse)


def _ends(shape: Iterable[int]) -> set[int]:
    """Return where each axis ends in a flat count: merged axes have all ends of the result."""
    return set(itertools.accumulate(shape, operator.mul, initial=1))


def _spatial_axes(a: Recorded) -> list[tuple[int, ...]]:
    """Return the groups of axes that may be turned: height and width of a kernel, RGB."""
    shape, rank, groups = a.array.shape, a.array.ndim, list[tuple[int, ...]]()
    if a.layout is not None:
        letters = set("DHW") if set("IO") <= set(a.layout) else {"C"} if rank > 2 else set()
        groups = [tuple(i for i, letter in enumerate(a.layout) if letter in letters)]
    elif a.name.rsplit("/", 1)[-1].endswith(IMAGES):
        groups = [(axis,) for axis in (1, rank - 1) if rank == 4 and shape[axis] == RGB]
    elif 3 <= rank <= _MAXIMUM_AXES:
        groups = [tuple(range(rank - 2)), tuple(range(2, rank))]
    return [g for g in groups if g and all(1 < shape[axis] <= _LARGEST_KERNEL for axis in g)]
