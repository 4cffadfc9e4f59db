"""The layers and the optimizer as the spec has them, where Flax' and Optax' own depart from it too.

Each departure has a row in docs/porting.md.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array as Tensor  # one name in the three implementations

from shared.framework_adapter import Layers
from shared.spec import AdamSpec


def plain_layers(dtype: jnp.dtype, compute_dtype: jnp.dtype) -> Layers:
    """Return the layers with weights of `dtype`, as the framework's own documentation has them.

    Activations and products have `compute_dtype`.
    """
    dtypes: dict[str, Any] = {"dtype": compute_dtype, "param_dtype": dtype}
    # No weights are drawn: a training state is made of the shapes alone.
    own = dtypes | {"rngs": nnx.Rngs(0)}
    return Layers(
        conv=partial(conv, **own),
        conv_transpose=partial(conv_transpose, **own),
        dense=partial(nnx.Linear, **own),
        batch_norm=partial(BatchNorm, **dtypes),
        relu=jax.nn.relu,
        leaky_relu=leaky_relu,
    )


def conv(
    in_features: int,
    out_features: int,
    stride: int,
    padding: int,
    *,
    bias: bool = False,
    kind: Callable[..., nnx.Conv] = nnx.Conv,
    **options: Any,
) -> nnx.Conv:
    """Return a convolution; its kernel is HWIO: docs/porting.md#kernels-and-layouts."""
    features = (in_features, out_features, (4, 4))
    return kind(*features, strides=stride, padding=padding, use_bias=bias, **options)


def conv_transpose(
    in_features: int,
    out_features: int,
    stride: int,
    padding: int,
    *,
    bias: bool = False,
    kind: Callable[..., nnx.ConvTranspose] = nnx.ConvTranspose,
    **options: Any,
) -> nnx.ConvTranspose:
    """Return a transposed convolution; its kernel is HWOI: docs/porting.md#kernels-and-layouts."""
    features = (in_features, out_features, (4, 4))
    options |= {"padding": "SAME" if padding else "VALID", "transpose_kernel": True}
    return kind(*features, strides=stride, use_bias=bias, **options)


def leaky_relu(x: Tensor, slope: float = 0.2) -> Tensor:
    """Return x where x > 0, else slope · x (Maas et al. 2013); its gradient at 0 is the slope."""
    # jax.nn.leaky_relu tests x >= 0, so its gradient at 0 is 1.
    return jnp.where(x > 0, x, slope * x)


class BatchNorm(nnx.Module):
    """Batch normalisation of [batch, ..., features] (Ioffe & Szegedy 2015, Algorithm 1).

    The running variance is unbiased, n/(n - 1), which Flax' own layer is not; `momentum` is the
    weight of the new statistic. Buffers have the parameters' dtype, and the variance is that of
    the centred batch, not E[x²] - E[x]².
    """

    def __init__(
        self,
        features: int,
        *,
        epsilon: float = 1e-5,
        momentum: float = 0.1,
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
        self.use_running_average = False  # which `eval` and `train` of a network change

    def __call__(self, x: Tensor) -> Tensor:
        """Normalise by the batch's statistics while training, else by the running ones."""
        x = x.astype(self.mean.dtype)
        if self.use_running_average:
            return self.normalize(x, self.mean[...], self.var[...])
        y, *statistics = self.by_batch(x)
        self.move(*statistics)
        return y

    def by_batch(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return x normalised by its own statistics, its mean and its unbiased variance."""
        axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
        mean = jnp.mean(x, axes)
        variance = jnp.mean(jnp.square(x - mean), axes)
        return self.normalize(x, mean, variance), mean, variance * (count / (count - 1))

    def normalize(self, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """Return x by the given statistics."""
        factor = self.scale[...] * jax.lax.rsqrt(variance + self.epsilon)
        return ((x - mean) * factor + self.bias[...]).astype(self.dtype)

    def move(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics towards those of a batch."""
        for running, batch in ((self.mean, mean), (self.var, variance)):
            running[...] = running[...] * (1.0 - self.momentum) + batch * self.momentum


def create_adam(network: nnx.Module, settings: AdamSpec) -> Adam:
    """Return Adam of a network's parameters, in the form of Kingma & Ba 2015, Algorithm 1."""
    return Adam(network, settings)


class Adam(nnx.Optimizer):
    """Adam with its learning rate as an array: another one compiles nothing anew."""

    def __init__(self, network: nnx.Module, settings: AdamSpec) -> None:
        transformation = scale_by_adam(settings.beta1, settings.beta2, settings.epsilon)
        super().__init__(network, transformation, wrt=nnx.Param)
        dtype = jax.tree.leaves(nnx.state(network, nnx.Param))[0].dtype
        self.learning_rate = nnx.OptState(jnp.asarray(settings.learning_rate, dtype))

    def update(self, network: nnx.Module, gradients: nnx.State, /, **options: Any) -> optax.Updates:
        """Update the network's parameters and the moments by the gradients."""
        rate = self.learning_rate[...]
        return super().update(network, gradients, learning_rate=rate, **options)


@functools.cache  # of equal settings it must be the same object, or `jit` compiles anew
def scale_by_adam(
    beta1: float, beta2: float, epsilon: float
) -> optax.GradientTransformationExtraArgs:
    """Return Adam as a transformation whose `update` is given the learning rate.

    As optax.adam, but for 1 - βᵗ, which optax forms in the parameters' dtype: in float32 the
    first updates are off by 6e-6.
    """

    def update(
        gradients: optax.Updates,
        state: optax.ScaleByAdamState,
        parameters: optax.Params = None,
        *,
        learning_rate: Tensor,
    ) -> tuple[optax.Updates, optax.ScaleByAdamState]:
        count = state.count + 1
        m = jax.tree.map(lambda g, m: beta1 * m + (1 - beta1) * g, gradients, state.mu)
        v = jax.tree.map(lambda g, v: beta2 * v + (1 - beta2) * jnp.square(g), gradients, state.nu)

        def step(m: Tensor, v: Tensor) -> Tensor:
            correction1, correction2 = (
                -jnp.expm1(count.astype(m.dtype) * math.log(beta)) for beta in (beta1, beta2)
            )
            direction = (m / correction1) / (jnp.sqrt(v / correction2) + epsilon)
            return -learning_rate * direction

        return jax.tree.map(step, m, v), optax.ScaleByAdamState(count, m, v)

    return optax.GradientTransformationExtraArgs(_zero_moments, update)


def _zero_moments(parameters: optax.Params) -> optax.ScaleByAdamState:
    zeros = partial(jax.tree.map, jnp.zeros_like)
    return optax.ScaleByAdamState(jnp.zeros([], jnp.int32), zeros(parameters), zeros(parameters))
