"""Pooling and upsampling, forward and backward, float64, NHWC.

Nearest, bilinear and average resampling act on rows and on columns by one matrix each, so that
their backward pass is the transposed matrices. Max pooling is written tap by tap.
"""

import numpy as np

from shared.interface import Array, Arrays
from shared.reference.layers import Backward, framed, taps, unframed
from shared.spec.layers import Padding


def nearest_matrix(size: int, factor: int) -> Array:
    """Return the weights [factor · size, size] that repeat every row."""
    return np.repeat(np.eye(size), factor, axis=0)


def bilinear_matrix(size: int, factor: int, aligned_corners: bool) -> Array:
    """Return the weights [factor · size, size] with which `size` rows become `factor` as many.

    Output row i lies at (i + ½) / factor - ½, or with aligned corners at
    i · (size - 1) / (factor · size - 1); beyond the first and the last row it takes these.
    """
    rows = np.arange(factor * size)
    place = np.clip((rows + 0.5) / factor - 0.5, 0.0, size - 1.0)
    if aligned_corners:
        place = rows * (size - 1) / max(factor * size - 1, 1)
    return np.maximum(1.0 - np.abs(place[:, None] - np.arange(size)), 0.0)


def averaging_matrix(size: int, window: int, stride: int) -> Array:
    """Return the weights [(size - window) // stride + 1, size] of average pooling."""
    first = stride * np.arange((size - window) // stride + 1)[:, None]
    inside = (np.arange(size) >= first) & (np.arange(size) < first + window)
    return inside / window


def separable_forward(x: Array, rows: Array, columns: Array) -> tuple[Array, Backward]:
    """Return y[n, r, s, c] = Σ rows[r, i] · columns[s, j] · x[n, i, j, c]."""
    y = np.einsum("ri,nijc,sj->nrsc", rows, x, columns, optimize=True)
    return y, lambda dy: (separable_forward(dy, rows.T, columns.T)[0], {})


def global_average_pool_forward(x: Array) -> tuple[Array, Backward]:
    """Return the mean over all pixels, [batch, channels]."""
    shape, pixels = x.shape, x.shape[1] * x.shape[2]
    y = x.mean(axis=(1, 2))
    return y, lambda dy: (np.broadcast_to(dy[:, None, None, :], shape) / pixels, {})


def max_pool_forward(
    x: Array, window: int, stride: int, padding: Padding
) -> tuple[Array, Backward]:
    """Return the largest number of each window; rows beyond the image are -inf.

    Of equal numbers the first in a window, by rows, has all of the gradient.
    """
    padded = framed(x, padding, -np.inf)
    count = [(n - window) // stride + 1 for n in padded.shape[1:3]]
    y = np.max([padded[pixels] for _, pixels in taps((window, window), stride, count)], axis=0)

    def backward(dy: Array) -> tuple[Array, Arrays]:
        dpadded, is_left = np.zeros_like(padded), np.ones(y.shape, bool)
        for _, pixels in taps((window, window), stride, count):
            is_it = is_left & (padded[pixels] == y)
            dpadded[pixels] += np.where(is_it, dy, 0.0)
            is_left &= ~is_it
        return unframed(dpadded, padding), {}

    return y, backward
