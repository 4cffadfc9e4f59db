"""What makes a step faster and changes no number; a reader can skip it.

Drop-in for what `layers` and `train` have in its plain form: Flax' convolutions, of which XLA is
slow on a CPU in most gradients, and which are slower there in bfloat16 than matrix products.
"""

import ctypes
import math
from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array as Tensor

from shared.spec.compute import Compute

from . import layers

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def keep_memory() -> None:
    """Have glibc keep what is freed, before JAX starts: clearing new pages takes 12 % of a step."""
    if set_option := getattr(ctypes.CDLL(None), "mallopt", None):
        # M_ARENA_MAX, M_MMAP_MAX and M_TRIM_THRESHOLD of <malloc.h>.
        for option, value in ((-8, 1), (-4, 0), (-1, 2**31 - 1)):
            set_option(option, value)


def fast_layers(dtype: jnp.dtype, compute_dtype: jnp.dtype, compute: Compute) -> layers.Layers:
    """Return the layers with weights of `dtype`, and products of `compute_dtype`."""
    plain = layers.plain_layers(dtype, compute_dtype)
    # Of a sharded batch a slice would have to be moved between the devices; 0 leaves all to XLA.
    slices = (MOST_SLICES if compute.devices == 1 else 1) if compute.device == "cpu" else 0
    return plain._replace(
        conv=partial(plain.conv, kind=partial(Conv, slices)),
        conv_transpose=partial(plain.conv_transpose, kind=partial(ConvTranspose, slices)),
    )


class Conv(nnx.Conv):
    """As the plain one, with gradients that are fast on a CPU."""

    def __init__(self, slices: int, *sizes: Any, **options: Any) -> None:
        super().__init__(*sizes, **options)
        self.slices = slices

    def __call__(self, inputs: Tensor, out_sharding: Any = None) -> Tensor:
        """Return [batch, height / stride, width / stride, out], or 1x1 from 4x4."""
        return _applied(self, conv, inputs)


class ConvTranspose(nnx.ConvTranspose):
    """As the plain one, with gradients that are fast on a CPU."""

    def __init__(self, slices: int, *sizes: Any, **options: Any) -> None:
        super().__init__(*sizes, **options)
        self.slices = slices

    def __call__(self, inputs: Tensor, out_sharding: Any = None) -> Tensor:
        """Return [batch, stride · height, stride · width, out], or 4x4 from 1x1."""
        return _applied(self, conv_transpose, inputs)


def _applied(layer: Any, function: Callable[..., Tensor], x: Tensor) -> Tensor:
    stride = layer.strides  # with which all have their padding: 2 has 1, 1 has none
    kernel = layer.kernel[...].astype(layer.dtype)
    y = function(x.astype(layer.dtype), kernel, stride, stride - 1, layer.slices)
    return y if layer.bias is None else y + layer.bias[...].astype(layer.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def conv(x: Tensor, kernel: Tensor, stride: int, padding: int, slices: int) -> Tensor:
    """Slide an HWIO kernel over x [batch, height, width, in]; `padding` is PyTorch's.

    `slices`: at most so many, of a few images for which a core's cache has room; 0 beside a CPU.
    """
    parts = _slices(x, kernel, slices)
    return jnp.concatenate([_convolve(part, kernel, stride, padding, slices) for part in parts])


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def conv_transpose(x: Tensor, kernel: Tensor, stride: int, padding: int, slices: int) -> Tensor:
    """Spread x [batch, height, width, in] through an HWOI kernel; `padding` is PyTorch's."""
    if x.shape[1:3] == (1, 1) and (stride, padding) == (1, 0):
        return jnp.einsum("brci,hwoi->bhwo", x, kernel)
    parts = _slices(x, kernel, slices)
    return jnp.concatenate([_spread(part, kernel, stride, padding, slices) for part in parts])


LEAST_IMAGES, MOST_SLICES = 8, 4  # a step of 32 images takes 0.92 of its time, of 64 images 0.9
MOST_WEIGHTS = 4 * 4 * 128 * 256  # reading a larger kernel again costs more than it saves


def _slices(images: Tensor, kernel: Tensor, slices: int) -> list[Tensor]:
    if slices < 2 or kernel.size > MOST_WEIGHTS:
        return [images]
    at_once = max(LEAST_IMAGES, math.ceil(len(images) / slices))
    return jnp.split(images, list(range(at_once, len(images), at_once)))


MIN_FEATURES = 64  # from here on XLA's products of bfloat16 on a CPU outrun its convolutions


def _by_products(x: Tensor, kernel: Tensor, padding: int, slices: int) -> bool:
    deep = padding == 1 and kernel.shape[2] >= MIN_FEATURES  # with which the stride is 2
    return deep and slices > 0 and x.dtype == jnp.bfloat16


def _convolve(x: Tensor, kernel: Tensor, stride: int, padding: int, slices: int) -> Tensor:
    if not _by_products(x, kernel, padding, slices):
        return _conv_of_xla(x, kernel, stride, padding)
    batch, height, width, features = x.shape
    y = _product(_patches(x, 3).reshape(-1, 16 * features), kernel.reshape(16 * features, -1))
    return y.astype(x.dtype).reshape(batch, height // 2, width // 2, -1)


def _conv_of_xla(x: Tensor, kernel: Tensor, stride: int, padding: int) -> Tensor:
    sizes = (stride, stride), [(padding, padding)] * 2
    return jax.lax.conv_general_dilated(x, kernel, *sizes, dimension_numbers=_LAYOUT)


def _spread(x: Tensor, kernel: Tensor, stride: int, padding: int, slices: int) -> Tensor:
    if not _by_products(x, kernel, padding, slices):
        sizes = (stride, stride), [(kernel.shape[0] - 1 - padding,) * 2] * 2
        return jax.lax.conv_transpose(
            x, kernel, *sizes, dimension_numbers=_LAYOUT, transpose_kernel=True
        )
    # A pixel's product with the kernel is 2x2 blocks, one row or column apart, of 2x2 pixels.
    batch, height, width, features = x.shape
    y = _product(x.reshape(-1, features), kernel.reshape(-1, features).T)
    y = y.reshape(batch, height, width, 2, 2, 2, 2, -1)
    blocks = [
        jnp.pad(y[:, :, :, i, :, j], ((0, 0), (i, 1 - i), (j, 1 - j), (0, 0), (0, 0), (0, 0)))
        for i in (0, 1)
        for j in (0, 1)
    ]
    images = reduce(jnp.add, blocks).transpose(0, 1, 3, 2, 4, 5)
    images = images.reshape(batch, 2 * height + 2, 2 * width + 2, -1)
    return images[:, 1:-1, 1:-1].astype(x.dtype)


def _product(a: Tensor, b: Tensor) -> Tensor:
    return jax.lax.dot(a, b, preferred_element_type=jnp.float32)


def _patches(x: Tensor, axis: int) -> Tensor:
    """Return what a 4x4 kernel sees at each position, along the last axis, 3, or the first."""
    batch, height, width, features = x.shape
    # As integers: XLA moves bfloat16 as float32, and a product that transposes is one of float32.
    bits = jnp.pad(x.view(jnp.uint16), ((0, 0), (1, 1), (1, 1), (0, 0)))
    bits = bits.reshape(batch, height + 2, width // 2 + 1, 2 * features)
    wide = jnp.moveaxis(jnp.concatenate([bits[:, :, :-1], bits[:, :, 1:]], 3), 3, axis)
    row = 1 if axis else 2
    rows = [jax.lax.slice_in_dim(wide, i, i + height - 1, 2, row) for i in range(4)]
    return jnp.concatenate(rows, axis).view(jnp.bfloat16)


def _keeping_inputs(function: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Any]]:
    """Return the forward pass that `defvjp` asks for."""
    return lambda x, kernel, *sizes: (function(x, kernel, *sizes), (x, kernel))


def _conv_backward(
    stride: int, padding: int, slices: int, saved: tuple[Tensor, Tensor], dy: Tensor
) -> tuple[Tensor, Tensor]:
    x, kernel = saved
    # An HWIO kernel read as HWOI is that of the transpose.
    dx = conv_transpose(dy, kernel, stride, padding, slices)
    return dx, _kernel_gradient(x, kernel, dy, stride, padding, slices)


def _conv_transpose_backward(
    stride: int, padding: int, slices: int, saved: tuple[Tensor, Tensor], dy: Tensor
) -> tuple[Tensor, Tensor]:
    # XLA's own weight gradient of a conv-transpose runs at 1-3 GFLOP/s on a CPU. Written as the
    # weight gradient of the convolution that it transposes, the whole step is several times faster.
    x, kernel = saved
    dx = conv(dy, kernel, stride, padding, slices)
    return dx, _kernel_gradient(dy, kernel, x, stride, padding, slices)


def _kernel_gradient(
    x: Tensor, kernel: Tensor, dy: Tensor, stride: int, padding: int, slices: int
) -> Tensor:
    """Return the gradient of a convolution's kernel, by XLA's own rule or a product."""

    def of_slice(x: Tensor, dy: Tensor) -> Tensor:
        if _by_products(x, kernel, padding, slices):
            rows = dy.reshape(-1, dy.shape[3])
            y = _product(_patches(x, 0).reshape(-1, len(rows)), rows)
            return y.astype(x.dtype).reshape(kernel.shape)
        convolve = partial(_conv_of_xla, x, stride=stride, padding=padding)
        return jax.linear_transpose(convolve, kernel)(dy)[0]

    return reduce(jnp.add, map(of_slice, *(_slices(a, kernel, slices) for a in (x, dy))))


conv.defvjp(_keeping_inputs(conv), _conv_backward)
conv_transpose.defvjp(_keeping_inputs(conv_transpose), _conv_transpose_backward)
