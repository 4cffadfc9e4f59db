"""Where Flax' own layers and Optax' Adam depart from the spec, or where XLA is slow on a CPU.

Each departure has a row in docs/porting.md. The convolutions are Flax' in everything but the way
in which their gradients are computed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from shared.spec import AdamSpec

__all__ = ["BatchNorm", "Conv", "ConvTranspose", "adam", "leaky_relu"]

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def leaky_relu(x: jax.Array, slope: float = 0.2) -> jax.Array:
    """Return x where x > 0, else slope · x (Maas et al. 2013); its gradient at 0 is the slope."""
    # jax.nn.leaky_relu tests x >= 0, so its gradient at 0 is 1.
    return jnp.where(x > 0, x, slope * x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """Slide an HWIO kernel over x [batch, height, width, in]; `padding` is PyTorch's."""
    pads = ((padding, padding), (padding, padding))
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=_LAYOUT
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv_transpose(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """Spread x [batch, height, width, in] through an HWOI kernel; `padding` is PyTorch's."""
    if x.shape[1:3] == (1, 1) and (stride, padding) == (1, 0):
        return jnp.einsum("brci,hwoi->bhwo", x, kernel)
    if (stride, padding) == (2, 1) and kernel.shape[2] in SUB_PIXEL_CHANNELS:
        return jax.lax.platform_dependent(
            x, kernel, cpu=_sub_pixel_conv_transpose, default=_conv_transpose_of_xla(2, 1)
        )
    return _conv_transpose_of_xla(stride, padding)(x, kernel)


# Where XLA's own conv-transpose on a CPU is slow: 33 against 14 ms from 128 to 64 channels, 5
# against 4 from 64 to 32. From 128 channels on, and for the 3 of an image, it is the faster one.
SUB_PIXEL_CHANNELS = range(8, 65)


def _conv_transpose_of_xla(
    stride: int, padding: int
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    def apply(x: jax.Array, kernel: jax.Array) -> jax.Array:
        outside = kernel.shape[0] - 1 - padding
        return jax.lax.conv_transpose(
            x,
            kernel,
            strides=(stride, stride),
            padding=((outside, outside), (outside, outside)),
            dimension_numbers=_LAYOUT,
            transpose_kernel=True,
        )

    return apply


def _sub_pixel_conv_transpose(x: jax.Array, kernel: jax.Array) -> jax.Array:
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
    y = jax.lax.conv_general_dilated(
        x, small, (1, 1), ((1, 1), (1, 1)), dimension_numbers=_LAYOUT
    ).reshape(batch, size + 1, size + 1, 2, 2, out_features)
    rows = [
        jnp.stack([y[:, i : i + size, j : j + size, i, j] for j in (0, 1)], axis=3) for i in (0, 1)
    ]
    return jnp.stack(rows, axis=2).reshape(batch, 2 * size, 2 * size, out_features)


def _conv_forward(
    x: jax.Array, kernel: jax.Array, stride: int, padding: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return conv(x, kernel, stride, padding), (x, kernel)


def _conv_backward(
    stride: int, padding: int, saved: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    # An HWIO kernel read as HWOI is that of the transpose.
    return conv_transpose(dy, kernel, stride, padding), _kernel_gradient(
        x, kernel, dy, stride, padding
    )


def _conv_transpose_forward(
    x: jax.Array, kernel: jax.Array, stride: int, padding: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return conv_transpose(x, kernel, stride, padding), (x, kernel)


def _conv_transpose_backward(
    stride: int, padding: int, saved: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    # XLA's own weight gradient of a conv-transpose runs at 1-3 GFLOP/s on a CPU. Written as the
    # weight gradient of the convolution that it transposes, the whole step is several times faster.
    x, kernel = saved
    return conv(dy, kernel, stride, padding), _kernel_gradient(dy, kernel, x, stride, padding)


def _kernel_gradient(
    x: jax.Array, kernel: jax.Array, dy: jax.Array, stride: int, padding: int
) -> jax.Array:
    """Return the gradient of a convolution's kernel, by XLA's own rule."""
    pads = ((padding, padding), (padding, padding))
    _, gradient = jax.vjp(
        lambda k: jax.lax.conv_general_dilated(
            x, k, (stride, stride), pads, dimension_numbers=_LAYOUT
        ),
        kernel,
    )
    return gradient(dy)[0]


conv.defvjp(_conv_forward, _conv_backward)
conv_transpose.defvjp(_conv_transpose_forward, _conv_transpose_backward)


class _Convolution(nnx.Module):
    """The kernel of 4x4, the bias if there is one, and the settings of both kinds."""

    def __init__(
        self,
        kernel_features: tuple[int, int],
        out_features: int,
        stride: int,
        padding: int,
        *,
        dtype: jnp.dtype,
        param_dtype: jnp.dtype | None = None,
        bias: bool = False,
    ) -> None:
        param_dtype = param_dtype or dtype
        self.kernel = nnx.Param(jnp.zeros((4, 4, *kernel_features), param_dtype))
        self.bias = nnx.Param(jnp.zeros(out_features, param_dtype)) if bias else None
        self.stride = stride
        self.padding = padding
        self.dtype = dtype

    def _apply(self, function: Callable[..., jax.Array], x: jax.Array) -> jax.Array:
        kernel = self.kernel[...].astype(self.dtype)
        y = function(x.astype(self.dtype), kernel, self.stride, self.padding)
        return y if self.bias is None else y + self.bias[...].astype(self.dtype)


class Conv(_Convolution):
    """A convolution: kernel HWIO of 4x4, padding in PyTorch's meaning, no bias by default."""

    def __init__(
        self, in_features: int, out_features: int, stride: int, padding: int, **settings: Any
    ) -> None:
        super().__init__((in_features, out_features), out_features, stride, padding, **settings)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return [batch, height / stride, width / stride, out], or 1x1 from 4x4."""
        return self._apply(conv, x)


class ConvTranspose(_Convolution):
    """A conv-transpose: kernel HWOI of 4x4, padding in PyTorch's meaning, no bias by default."""

    def __init__(
        self, in_features: int, out_features: int, stride: int, padding: int, **settings: Any
    ) -> None:
        super().__init__((out_features, in_features), out_features, stride, padding, **settings)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return [batch, stride · height, stride · width, out], or 4x4 from 1x1."""
        return self._apply(conv_transpose, x)


class BatchNorm(nnx.Module):
    """Batch normalisation over every axis but the last (Ioffe & Szegedy 2015, Algorithm 1).

    The running variance is unbiased, n/(n - 1), which Flax' own layer is not; `momentum` is the
    weight of the new statistic. Buffers have the parameters' dtype, and the variance is that of
    the centred batch, not E[x²] - E[x]². `replicas` parts of a batch are each normalised by their
    own statistics, of which the running ones take the mean.
    """

    def __init__(
        self,
        features: int,
        *,
        epsilon: float = 1e-5,
        momentum: float = 0.1,
        replicas: int = 1,
        dtype: jnp.dtype,
        param_dtype: jnp.dtype | None = None,
    ) -> None:
        param_dtype = param_dtype or dtype
        self.scale = nnx.Param(jnp.ones(features, param_dtype))
        self.bias = nnx.Param(jnp.zeros(features, param_dtype))
        self.mean = nnx.BatchStat(jnp.zeros(features, param_dtype))
        self.var = nnx.BatchStat(jnp.ones(features, param_dtype))
        self.dtype = dtype
        self.epsilon = epsilon
        self.momentum = momentum
        self.replicas = replicas

    def __call__(self, x: jax.Array, *, training: bool) -> jax.Array:
        """Normalise by the batch's statistics while training, else by the running ones."""
        x = x.astype(self.mean[...].dtype)
        if not training:
            return self._normalize(x, self.mean[...], self.var[...])
        if self.replicas == 1:
            y, *statistics = self._by_batch(x)
        else:
            parts = x.reshape(self.replicas, -1, *x.shape[1:])
            y, *statistics = jax.vmap(self._by_batch)(parts)
            y, statistics = y.reshape(x.shape), [jnp.mean(s, axis=0) for s in statistics]
        for running, batch in zip((self.mean, self.var), statistics, strict=True):
            running[...] = running[...] * (1.0 - self.momentum) + batch * self.momentum
        return y

    def _by_batch(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return x normalised by its own statistics, its mean and its unbiased variance."""
        axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
        mean = jnp.mean(x, axes)
        variance = jnp.mean(jnp.square(x - mean), axes)
        return self._normalize(x, mean, variance), mean, variance * (count / (count - 1))

    def _normalize(self, x: jax.Array, mean: jax.Array, variance: jax.Array) -> jax.Array:
        factor = self.scale[...] * jax.lax.rsqrt(variance + self.epsilon)
        return ((x - mean) * factor + self.bias[...]).astype(self.dtype)


def adam(settings: AdamSpec) -> optax.GradientTransformation:
    """Return Adam in the form of Kingma & Ba 2015, Algorithm 1.

    As optax.adam, but for 1 - βᵗ, which optax forms in the parameters' dtype: in float32 the
    first updates are off by 6e-6.
    """
    return optax.chain(
        _scale_by_adam(settings), optax.scale_by_learning_rate(settings.learning_rate)
    )


def _scale_by_adam(settings: AdamSpec) -> optax.GradientTransformation:
    beta1, beta2, epsilon = settings.beta1, settings.beta2, settings.epsilon

    def initialise(parameters: optax.Params) -> optax.ScaleByAdamState:
        zeros = functools.partial(jax.tree.map, jnp.zeros_like)
        return optax.ScaleByAdamState(
            jnp.zeros([], jnp.int32), zeros(parameters), zeros(parameters)
        )

    def update(
        gradients: optax.Updates, state: optax.ScaleByAdamState, parameters: optax.Params = None
    ) -> tuple[optax.Updates, optax.ScaleByAdamState]:
        count = state.count + 1
        m = jax.tree.map(lambda g, m: beta1 * m + (1 - beta1) * g, gradients, state.mu)
        v = jax.tree.map(lambda g, v: beta2 * v + (1 - beta2) * jnp.square(g), gradients, state.nu)

        def direction(m: jax.Array, v: jax.Array) -> jax.Array:
            correction1, correction2 = (
                -jnp.expm1(count.astype(m.dtype) * math.log(beta)) for beta in (beta1, beta2)
            )
            return (m / correction1) / (jnp.sqrt(v / correction2) + epsilon)

        return jax.tree.map(direction, m, v), optax.ScaleByAdamState(count, m, v)

    return optax.GradientTransformation(initialise, update)
