"""What counts as rounding between two recorded tensors."""

from __future__ import annotations

import dataclasses

import numpy as np

from shared.files.recording import PYTHON_NUMBER, Recorded, Recording
from shared.reference.comparison import relative_l2
from shared.reference.layers import Array

BOUNDS = {"bfloat16": 8e-2, "float16": 1e-2, "float32": 1e-5, "float64": 1e-11}
"""Relative L2 differences that still count as rounding, coarsest dtype first.

float32: a right step of a narrow dcgan64 is within 2.1e-6 (`python -m shared.agreement`), the
smallest trap that shows there beyond rounding is at 1e-4. float64: 7e-15 against 2.9e-9. The two
half precisions: twenty roundings, for which nothing was measured.
"""


def with_settled_dtypes(recording: Recording) -> tuple[Recorded, ...]:
    """Return the tensors; a Python number gets the coarsest dtype of its whole recording."""
    held = {t.dtype for t in recording.tensors}
    coarsest = next((d for d in BOUNDS if d in held), "float64")
    return tuple(
        dataclasses.replace(t, dtype=coarsest) if t.dtype == PYTHON_NUMBER else t
        for t in recording.tensors
    )


def coarser_dtype(a: Recorded, b: Recorded) -> str:
    """Return the coarser floating dtype of two tensors, the first's where neither has one."""
    return next((d for d in BOUNDS if d in (a.dtype, b.dtype)), a.dtype)


def bound_of(a: Recorded, b: Recorded, chosen: float | None) -> float:
    """Return the `chosen` bound or that of the coarser dtype; whole numbers must be equal."""
    dtype = coarser_dtype(a, b)
    if dtype not in BOUNDS:
        return 0.0
    return BOUNDS[dtype] if chosen is None else chosen


def is_within(array: Array, first: Array, bound: float) -> bool:
    """Tell whether two arrays have one shape and the same numbers but for rounding."""
    if array.shape != first.shape:
        return False
    return np.array_equal(array, first, equal_nan=True) or relative_l2(array, first) <= bound


def holds_the_same_numbers(a: Recorded, b: Recorded, bound: float) -> bool:
    """Tell whether two tensors hold the same several numbers, in whatever order."""
    if a.array.size != b.array.size or np.ptp(a.array.astype(np.float64)) == 0.0:
        return False
    return relative_l2(np.sort(b.array, axis=None), np.sort(a.array, axis=None)) <= bound
