"""Two recorded tensors that belong together, and how far they are apart in the first's axes."""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.explain.distance import Distance, distance
from shared.explain.recordings.arrangement import Arrangement
from shared.files.recording import Recorded
from shared.reference.comparison import relative_l2
from shared.reference.layers import Array

BOUNDS = {"bfloat16": 8e-2, "float16": 1e-2, "float32": 1e-5, "float64": 1e-11}
"""Relative L2 differences that still count as rounding, coarsest dtype first.

float32: a right step of a narrow dcgan64 is within 2.1e-6 (`python -m shared.agreement`), the
smallest trap that shows there beyond rounding is at 1e-4. float64: 7e-15 against 2.9e-9. The two
half precisions: twenty roundings, for which nothing was measured.
"""


@dataclass(frozen=True)
class Pair:
    """Two tensors that belong together.

    `order` brings the second's axes into the first's order, None where nothing does; `misplaced`
    is one that fits exactly where the declared layouts do not.
    """

    one: Recorded
    two: Recorded
    matched_by: str
    bound: float
    order: Arrangement | None = None
    misplaced: Arrangement | None = None
    notes: tuple[str, ...] = ()
    agrees: bool = False

    @property
    def key(self) -> tuple[int, str]:
        """The step and the first's name."""
        return self.one.step, self.one.name

    @property
    def dtype(self) -> str:
        """The coarser floating dtype of the two, the first's where neither has one."""
        return coarser_dtype(self.one, self.two)

    @functools.cached_property
    def array(self) -> Array | None:
        """The second's numbers in the first's axes."""
        if self.order is None:
            return None
        return self.order.apply(self.two.array, self.one.array.shape)

    @functools.cached_property
    def fits(self) -> bool:
        """True within the bound of the dtypes."""
        return self.array is not None and is_within(self.array, self.one.array, self.bound)

    @functools.cached_property
    def distance(self) -> Distance:
        """How far the second is from the first."""
        if self.array is None:
            return Distance()
        expected, received = (np.asarray(v, np.float64) for v in (self.one.array, self.array))
        return distance(received, expected, self.dtype if self.dtype in BOUNDS else "float64")

    @property
    def arrangement(self) -> str:
        """How the second's axes were brought into the first's order, for a reader."""
        here, there = self.one.layout, self.two.layout
        if not self.has_the_same_letters or here == there:
            return "none" if self.order is None else self.order.describe()
        text = f"{there} as {here}"
        if self.order is None or self.order.is_plain:
            return text
        in_order = dataclasses.replace(self.order, axes=tuple(range(self.one.array.ndim)))
        return f"{text}, {in_order.describe()}"

    @property
    def has_the_same_letters(self) -> bool:
        """True where both layouts are declared and name the same axes."""
        here, there = self.one.layout, self.two.layout
        return here is not None and there is not None and set(here) == set(there)

    def to_dict(self) -> dict[str, Any]:
        """Return names, arrangement, distance and verdict."""
        return {
            "step": self.one.step,
            "first": self.one.name,
            "second": self.two.name,
            "matched_by": self.matched_by,
            "arrangement": self.arrangement,
            "dtype": self.dtype,
            "bound": self.bound,
            **vars(self.distance),
            "agrees": self.agrees,
            "notes": self.notes,
        }


def coarser_dtype(a: Recorded, b: Recorded) -> str:
    """Return the coarser floating dtype of two tensors, the first's where neither has one."""
    return next((d for d in BOUNDS if d in (a.dtype, b.dtype)), a.dtype)


def is_within(array: Array, first: Array, bound: float) -> bool:
    """Tell whether two arrays have one shape and the same numbers but for rounding."""
    if array.shape != first.shape:
        return False
    return np.array_equal(array, first, equal_nan=True) or relative_l2(array, first) <= bound


def same_numbers(a: Recorded, b: Recorded, bound: float) -> bool:
    """Tell whether two tensors hold the same several numbers, in whatever order."""
    if a.array.size != b.array.size or np.ptp(a.array.astype(np.float64)) == 0.0:
        return False
    return relative_l2(np.sort(b.array, axis=None), np.sort(a.array, axis=None)) <= bound
