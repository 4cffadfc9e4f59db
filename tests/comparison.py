"""Assertions on numbers: shape first, then dtype, then the worst element and where it is."""

import numpy as np

from shared.interface import Array
from shared.reference.comparison import relative_l2, worst_element


class MismatchError(AssertionError):
    """Two things that should agree do not; the message says which, where and by how much."""


def require_same_kind(
    name: str, actual: Array, expected_shape: tuple[int, ...], expected_dtype: np.dtype | str
) -> None:
    """Raise MismatchError unless shape and dtype are as expected."""
    actual = np.asarray(actual)
    if actual.shape != tuple(expected_shape):
        raise MismatchError(f"{name}: shape {actual.shape}, expected {tuple(expected_shape)}")
    if actual.dtype != np.dtype(expected_dtype):
        raise MismatchError(f"{name}: dtype {actual.dtype}, expected {np.dtype(expected_dtype)}")


def require_close(
    name: str, actual: Array, expected: Array, *, bound: float, dtype: np.dtype | str
) -> float:
    """Raise MismatchError unless the relative L2 difference is within `bound`; return it.

    `actual` must have the shape of `expected` and the given dtype.
    """
    require_same_kind(name, actual, np.shape(expected), dtype)
    difference = relative_l2(actual, expected)
    if not difference <= bound:  # also where the difference is nan
        raise MismatchError(
            f"{name}: relative L2 difference {difference:.3g}, bound {bound:.3g}; "
            f"{worst_element(actual, expected)}"
        )
    return difference
