"""Comparing numbers: by how much they differ, and the worst element and where it is.

Differences are never signed sums or means, in which errors cancel: relative L2 norms, the largest
absolute difference, or ULP (units in the last place) against an exact truth.
"""

import math
from fractions import Fraction

import numpy as np

from shared.interface import Array

ExactNumber = Fraction | float  # a float only for inf, -inf and nan

# Distance from 1 to the next number and smallest normal number; numpy.finfo does not know it.
_BFLOAT16 = (2.0**-7, 2.0**-126)


def relative_l2(actual: Array, expected: Array, scale: Array | None = None) -> float:
    """Return ‖actual - expected‖ / ‖scale‖, in float64; 0 where the difference is zero.

    The scale is `expected` where none is given. nan where either holds a nan or an infinity.
    """
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    if not (np.isfinite(actual).all() and np.isfinite(expected).all()):
        return float("nan")
    scale = expected if scale is None else np.asarray(scale, np.float64)
    difference, size = np.linalg.norm(actual - expected), np.linalg.norm(scale)
    if difference == 0.0:
        return 0.0
    return float(difference / size) if size else float("inf")


def worst_element(actual: Array, expected: Array) -> str:
    """Describe the element with the largest absolute difference; one that is nan comes first."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    with np.errstate(invalid="ignore"):
        difference = np.abs(actual - expected)
    place = np.unravel_index(
        np.argmax(np.where(np.isnan(difference), np.inf, difference)), difference.shape
    )
    index = tuple(int(i) for i in place)
    received, wanted = float(actual[index]), float(expected[index])
    return f"worst element {index}: received {received!r}, expected {wanted!r}"


def ulp_error(
    actual: float | np.generic, expected: ExactNumber, dtype: np.dtype | str, *, floor: float = 0.0
) -> float:
    """Return |actual - expected| in units in the last place of `expected` rounded to `dtype`.

    The unit is never that of a number below `floor`. inf where one is nan or infinite and the
    other is not the same. Near the smallest normal number of the dtype (a truth below four times
    it), a difference of up to twice that number counts as 0: subnormals may be flushed to zero.
    """
    value = float(actual)
    info = None if str(dtype) == "bfloat16" else np.finfo(dtype)
    epsilon, tiny = (float(info.eps), float(info.tiny)) if info else _BFLOAT16
    if isinstance(expected, float):  # inf, -inf or nan
        same = np.isnan(value) if np.isnan(expected) else value == expected
        return 0.0 if same else float("inf")
    if not np.isfinite(value):
        return float("inf")
    difference, smallest = abs(Fraction(value) - expected), Fraction(tiny)
    if abs(expected) < 4 * smallest and difference <= 2 * smallest:
        return 0.0
    size = max(abs(expected), Fraction(floor), smallest)
    try:
        # math.ulp is float64's, which has 2⁵² of them from a power of two to the next one.
        return float(difference / (Fraction(math.ulp(size)) * 2**52 * Fraction(epsilon)))
    except OverflowError:  # more units than a float can count
        return float("inf")
