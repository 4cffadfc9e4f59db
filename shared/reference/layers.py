"""Every layer's forward pass and its hand-written backward pass, float64, NHWC.

Convolutions are written as a sum over kernel taps, straight from the definition.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from shared.interface import Array, Arrays
from shared.spec.layers import Padding, sides

Backward = Callable[[Array], tuple[Array, Arrays]]
"""Takes the gradient of the output; returns those of x and, by their names, of parameters."""
Forward = tuple[Array, Backward]
"""What a forward function returns: the output and its backward function."""

PADDING_SHIFT = {"centred": 0, "before": 1, "after": -1}


def _shifted(padding: Padding, alignment: str) -> tuple[int, int]:
    """Return the rows of zeros before and after; there is nothing to shift where there are none."""
    before, after = sides(padding)
    shift = PADDING_SHIFT[alignment] if before or after else 0
    return before + shift, after - shift


def framed(x: Array, padding: Padding, value: float = 0.0) -> Array:
    """Return images with rows and columns added before and after; negative ones are cut off."""
    (count, height, width, channels), (before, after) = x.shape, sides(padding)
    kept = slice(max(-before, 0), min(after, 0) or None)
    place = slice(max(before, 0), min(-after, 0) or None)
    shape = count, height + before + after, width + before + after, channels
    y = np.full(shape, value, x.dtype)
    y[:, place, place] = x[:, kept, kept]  # np.pad takes four times as long
    return y


def unframed(y: Array, padding: Padding) -> Array:
    """Undo `framed`, whose transpose this is."""
    before, after = sides(padding)
    return framed(y, (-before, -after))


def taps(window: Sequence[int], stride: int, size: Sequence[int]) -> Iterator[Any]:
    """Yield each place in a window, and the pixels there of all windows, so many each way."""
    for i, j in np.ndindex(*window[:2]):
        rows = slice(i, i + stride * size[0], stride)
        columns = slice(j, j + stride * size[1], stride)
        yield (i, j), (slice(None), rows, columns)


def conv_forward(
    x: Array, kernel: Array, stride: int, padding: Padding, alignment: str = "centred"
) -> Forward:
    """Cross-correlate x [batch, height, width, in] with an HWIO kernel.

    y[n, r, c, o] = Σ x[n, stride·r + i - before, stride·c + j - before, k] · kernel[i, j, k, o],
    where `padding` is the zeros before and after.
    """
    shifted = _shifted(padding, alignment)
    padded = framed(x, shifted)
    size = [(padded.shape[1 + a] - kernel.shape[a]) // stride + 1 for a in (0, 1)]
    y = np.zeros((x.shape[0], *size, kernel.shape[3]))
    for tap, pixels in taps(kernel.shape, stride, size):
        y += padded[pixels] @ kernel[tap]

    def backward(dy: Array) -> tuple[Array, Arrays]:
        dpadded, dkernel = np.zeros_like(padded), np.zeros_like(kernel)
        for tap, pixels in taps(kernel.shape, stride, size):
            dpadded[pixels] += dy @ kernel[tap].T
            dkernel[tap] = np.tensordot(padded[pixels], dy, axes=((0, 1, 2), (0, 1, 2)))
        return unframed(dpadded, shifted), {"kernel": dkernel}

    return y, backward


def conv_transpose_forward(
    x: Array, kernel: Array, stride: int, padding: Padding, alignment: str = "centred"
) -> Forward:
    """Spread x [batch, height, width, in] through an HWOI kernel: the transpose of a conv.

    y[n, stride·r + i - before, stride·c + j - before, o] += x[n, r, c, k] · kernel[i, j, o, k],
    where `padding` is what is cut off before and after.
    """
    shifted = _shifted(padding, alignment)
    size = x.shape[1:3]
    full_shape = [stride * (size[a] - 1) + kernel.shape[a] for a in (0, 1)]
    full = np.zeros((x.shape[0], *full_shape, kernel.shape[2]))
    for tap, pixels in taps(kernel.shape, stride, size):
        full[pixels] += x @ kernel[tap].T

    def backward(dy: Array) -> tuple[Array, Arrays]:
        dfull = framed(dy, shifted)
        dx, dkernel = np.zeros_like(x), np.zeros_like(kernel)
        for tap, pixels in taps(kernel.shape, stride, size):
            dx += dfull[pixels] @ kernel[tap]
            dkernel[tap] = np.tensordot(dfull[pixels], x, axes=((0, 1, 2), (0, 1, 2)))
        return dx, {"kernel": dkernel}

    return unframed(full, shifted), backward


def dense_forward(x: Array, kernel: Array, bias: Array | float) -> Forward:
    """Return x [batch, in] @ kernel [in, out] + bias [out]."""
    y = x @ kernel + bias
    return y, lambda dy: (dy @ kernel.T, {"kernel": x.T @ dy, "bias": dy.sum(axis=0)})


def batch_norm_forward(
    x: Array,
    scale: Array | float,
    bias: Array | float,
    epsilon: float,
    divisor: str = "deviation",
    running: Sequence[Array] | None = None,
) -> tuple[Array, Backward, Array, Array]:
    """Normalise by the batch's own statistics (Ioffe & Szegedy 2015, Algorithm 1).

    By the mean and variance in `running` where these are given, which are constants. Returns the
    output, its backward pass, and the mean and the BIASED variance that it has normalised by.
    """
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axis=axes) if running is None else running[0]
    variance = np.square(x - mean).mean(axis=axes) if running is None else running[1]
    # By σ², as in the mistake "variance", d(1/σ²) is twice d(1/σ)'s share, with another power of σ.
    by_variance = divisor == "variance"
    inverse = 1.0 / (variance + epsilon if by_variance else np.sqrt(variance + epsilon))
    share = 2.0 / inverse if by_variance else 1.0
    normalised = (x - mean) * inverse

    def backward(dy: Array) -> tuple[Array, Arrays]:
        dbias, dscale = dy.sum(axis=axes), (dy * normalised).sum(axis=axes)
        count = dy.size // dy.shape[-1]
        if running is None:
            dy = dy - dbias / count - share * normalised * dscale / count
        return scale * inverse * dy, {"scale": dscale, "bias": dbias}

    return normalised * scale + bias, backward, mean, variance


def running_statistics(
    running: Sequence[Array], batch: Sequence[Array], count: int, momentum: float, estimator: str
) -> tuple[Array, Array]:
    """Move running (mean, var) towards a batch's (mean, biased variance) of `count` numbers.

    "unbiased" multiplies the variance by n/(n - 1); a batch of one number keeps the biased one.
    """
    correction = count / (count - 1) if estimator == "unbiased" and count > 1 else 1.0
    mean = (1.0 - momentum) * running[0] + momentum * batch[0]
    variance = (1.0 - momentum) * running[1] + momentum * batch[1] * correction
    return mean, variance


def relu_forward(x: Array) -> Forward:
    """Return max(x, 0); its gradient at 0 is 0."""
    return np.maximum(x, 0.0), lambda dy: (np.where(x > 0, dy, 0.0), {})


def leaky_relu_forward(x: Array, slope: float, gradient_at_zero: str = "slope") -> Forward:
    """Return x where x > 0, else slope · x (Maas et al. 2013); its gradient at 0 is the slope."""
    at_zero = 1.0 if gradient_at_zero == "one" else slope
    gradient = np.where(x > 0, 1.0, np.where(x < 0, slope, at_zero))
    return np.where(x > 0, x, slope * x), lambda dy: (gradient * dy, {})


def tanh_forward(x: Array) -> Forward:
    """Return tanh(x)."""
    y = np.tanh(x)
    return y, lambda dy: (dy * (1.0 - np.square(y)), {})


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + e^-x) without overflow."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def sigmoid_forward(x: Array) -> Forward:
    """Return the sigmoid of x."""
    y = sigmoid(x)
    return y, lambda dy: (dy * y * (1.0 - y), {})


ACTIVATIONS = {"relu": relu_forward, "tanh": tanh_forward, "sigmoid": sigmoid_forward}


def flatten_forward(x: Array, order: str = "hwc") -> Forward:
    """Return [batch, features] with features in HWC order ("chw": as PyTorch flattens NCHW)."""
    arranged = x.transpose(0, 3, 1, 2) if order == "chw" and x.ndim == 4 else x
    y = arranged.reshape(x.shape[0], -1)
    return y, lambda dy: (reshape_forward(dy, x.shape[1:], order)[0], {})


def reshape_forward(x: Array, shape: tuple[int, ...], order: str = "hwc") -> Forward:
    """Return [batch, *shape] of features in HWC order ("chw": as PyTorch reshapes to NCHW)."""
    if order == "chw" and len(shape) == 3:
        height, width, channels = shape
        y = x.reshape(x.shape[0], channels, height, width).transpose(0, 2, 3, 1)
    else:
        y = x.reshape(x.shape[0], *shape)
    return y, lambda dy: (flatten_forward(dy, order)[0].reshape(x.shape), {})


# --- pooling and upsampling: rows and columns are resampled by one matrix each, backwards by its
# transpose; max pooling is written tap by tap -----------------------------------------------------


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


def separable_forward(x: Array, rows: Array, columns: Array) -> Forward:
    """Return y[n, r, s, c] = Σ rows[r, i] · columns[s, j] · x[n, i, j, c]."""
    y = np.einsum("ri,nijc,sj->nrsc", rows, x, columns, optimize=True)
    return y, lambda dy: (separable_forward(dy, rows.T, columns.T)[0], {})


def global_average_pool_forward(x: Array) -> Forward:
    """Return the mean over all pixels, [batch, channels]."""
    shape, pixels = x.shape, x.shape[1] * x.shape[2]
    y = x.mean(axis=(1, 2))
    return y, lambda dy: (np.broadcast_to(dy[:, None, None, :], shape) / pixels, {})


def max_pool_forward(x: Array, window: int, stride: int, padding: Padding) -> Forward:
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
