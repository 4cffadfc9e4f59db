"""What makes a step faster and changes no number; a reader can skip it.

Drop-in for what `layers` and `train` have in its plain form: Flax' convolutions, of which XLA is
slow on a CPU in some forward passes and in most gradients.
"""

import math
from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array as Tensor

from shared.spec.compute import Compute

from . import layers

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def fast_layers(dtype: jnp.dtype, compute_dtype: jnp.dtype, compute: Compute) -> layers.Layers:
    """Return the layers with weights of `dtype`, and products of `compute_dtype`."""
    plain = layers.plain_layers(dtype, compute_dtype)
    # Of a sharded batch a slice would have to be moved between the devices.
    by_slices = compute.device == "cpu" and compute.devices == 1
    return plain._replace(
        conv=partial(plain.conv, kind=partial(Conv, by_slices)),
        conv_transpose=partial(plain.conv_transpose, kind=partial(ConvTranspose, by_slices)),
    )


class Conv(nnx.Conv):
    """As the plain one, with gradients that are fast on a CPU."""

    def __init__(self, by_slices: bool, *sizes: Any, **options: Any) -> None:
        super().__init__(*sizes, **options)
        self.by_slices = by_slices

    def __call__(self, inputs: Tensor, out_sharding: Any = None) -> Tensor:
        """Return [batch, height / stride, width / stride, out], or 1x1 from 4x4."""
        return _applied(self, conv, inputs)


class ConvTranspose(nnx.ConvTranspose):
    """As the plain one, with gradients that are fast on a CPU."""

    def __init__(self, by_slices: bool, *sizes: Any, **options: Any) -> None:
        super().__init__(*sizes, **options)
        self.by_slices = by_slices

    def __call__(self, inputs: Tensor, out_sharding: Any = None) -> Tensor:
        """Return [batch, stride · height, stride · width, out], or 4x4 from 1x1."""
        return _applied(self, conv_transpose, inputs)


def _applied(layer: Any, function: Callable[..., Tensor], x: Tensor) -> Tensor:
    stride = layer.strides  # with which all have their padding: 2 has 1, 1 has none
    kernel = layer.kernel[...].astype(layer.dtype)
    y = function(x.astype(layer.dtype), kernel, stride, stride - 1, layer.by_slices)
    return y if layer.bias is None else y + layer.bias[...].astype(layer.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def conv(x: Tensor, kernel: Tensor, stride: int, padding: int, by_slices: bool) -> Tensor:
    """Slide an HWIO kernel over x [batch, height, width, in]; `padding` is PyTorch's.

    `by_slices`: a few images at a time, for which a core's cache has room.
    """
    parts = _slices(x, kernel, by_slices)
    return jnp.concatenate([_conv_of_xla(part, kernel, stride, padding) for part in parts])


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def conv_transpose(x: Tensor, kernel: Tensor, stride: int, padding: int, by_slices: bool) -> Tensor:
    """Spread x [batch, height, width, in] through an HWOI kernel; `padding` is PyTorch's."""
    if x.shape[1:3] == (1, 1) and (stride, padding) == (1, 0):
        return jnp.einsum("brci,hwoi->bhwo", x, kernel)
    parts = _slices(x, kernel, by_slices)
    return jnp.concatenate([_spread(part, kernel, stride, padding) for part in parts])


LEAST_IMAGES, MOST_SLICES = 8, 4  # a step of 32 images takes 0.92 of its time, of 64 images 0.9
MOST_WEIGHTS = 4 * 4 * 128 * 256  # reading a larger kernel again costs more than it saves


def _slices(images: Tensor, kernel: Tensor, by_slices: bool) -> list[Tensor]:
    if not by_slices or kernel.size > MOST_WEIGHTS:
        return [images]
    at_once = max(LEAST_IMAGES, math.ceil(len(images) / MOST_SLICES))
    return jnp.split(images, list(range(at_once, len(images), at_once)))


def _spread(x: Tensor, kernel: Tensor, stride: int, padding: int) -> Tensor:
    of_xla = partial(_conv_transpose_of_xla, stride=stride, padding=padding)
    if (stride, padding) == (2, 1) and kernel.shape[2] in SUB_PIXEL_CHANNELS:
        return jax.lax.platform_dependent(x, kernel, cpu=_sub_pixel_conv_transpose, default=of_xla)
    return of_xla(x, kernel)


# Where XLA's own conv-transpose on a CPU is slow: 33 against 14 ms from 128 to 64 channels, 5
# against 4 from 64 to 32. From 128 channels on, and for the 3 of an image, it is the faster one.
SUB_PIXEL_CHANNELS = range(8, 65)


def _conv_of_xla(x: Tensor, kernel: Tensor, stride: int, padding: int) -> Tensor:
    pads = ((padding, padding), (padding, padding))
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=_LAYOUT
    )


def _conv_transpose_of_xla(x: Tensor, kernel: Tensor, stride: int, padding: int) -> Tensor:
    outside = kernel.shape[0] - 1 - padding
    return jax.lax.conv_transpose(
        x,
        kernel,
        strides=(stride, stride),
        padding=((outside, outside), (outside, outside)),
        dimension_numbers=_LAYOUT,
        transpose_kernel=True,
    )


def _sub_pixel_conv_transpose(x: Tensor, kernel: Tensor) -> Tensor:
    """Write a conv-transpose of stride 2 as one convolution whose channels hold four pixels.

    An output row 2r needs the kernel's rows 3 and 1 on the input rows r - 1 and r, an output row
    2r + 1 the rows 2 and 0 on r and r + 1; columns likewise (Shi et al. 2016, section 3).
    """
    batch, size, _, in_features = x.shape
    out_features = kernel.shape[2]
    taps = np.array([[3, 1], [2, 0]])
    # [even or odd row, tap, even or odd column, tap, out, in]
    phases = kernel[taps][:, :, taps]
    small = phases.transpose(1, 3, 5, 0, 2, 4).reshape(2, 2, in_features, 4 * out_features)
    y = _conv_of_xla(x, small, 1, 1).reshape(batch, size + 1, size + 1, 2, 2, out_features)
    rows = [
        jnp.stack([y[:, i : i + size, j : j + size, i, j] for j in (0, 1)], axis=3) for i in (0, 1)
    ]
    return jnp.stack(rows, axis=2).reshape(batch, 2 * size, 2 * size, out_features)


def _keeping_inputs(function: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Any]]:
    """Return the forward pass that `defvjp` asks for."""
    return lambda x, kernel, *sizes: (function(x, kernel, *sizes), (x, kernel))


def _conv_backward(
    stride: int, padding: int, by_slices: bool, saved: tuple[Tensor, Tensor], dy: Tensor
) -> tuple[Tensor, Tensor]:
    x, kernel = saved
    # An HWIO kernel read as HWOI is that of the transpose.
    dx = conv_transpose(dy, kernel, stride, padding, by_slices)
    return dx, _kernel_gradient(x, kernel, dy, stride, padding, by_slices)


def _conv_transpose_backward(
    stride: int, padding: int, by_slices: bool, saved: tuple[Tensor, Tensor], dy: Tensor
) -> tuple[Tensor, Tensor]:
    # XLA's own weight gradient of a conv-transpose runs at 1-3 GFLOP/s on a CPU. Written as the
    # weight gradient of the convolution that it transposes, the whole step is several times faster.
    x, kernel = saved
    dx = conv(dy, kernel, stride, padding, by_slices)
    return dx, _kernel_gradient(dy, kernel, x, stride, padding, by_slices)


def _kernel_gradient(
    x: Tensor, kernel: Tensor, dy: Tensor, stride: int, padding: int, by_slices: bool
) -> Tensor:
    """Return the gradient of a convolution's kernel, by XLA's own rule."""

    def of_slice(x: Tensor, dy: Tensor) -> Tensor:
        _, gradient = jax.vjp(lambda k: _conv_of_xla(x, k, stride, padding), kernel)
        return gradient(dy)[0]

    return reduce(jnp.add, map(of_slice, *(_slices(a, kernel, by_slices) for a in (x, dy))))


conv.defvjp(_keeping_inputs(conv), _conv_backward)
conv_transpose.defvjp(_keeping_inputs(conv_transpose), _conv_transpose_backward)
