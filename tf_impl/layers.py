"""The layers and the optimizer as the spec has them, where Keras' own depart from it too.

Each departure has a row in docs/porting.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import keras
import tensorflow as tf
from tensorflow import Tensor

from shared.framework_adapter import Layers
from shared.spec import AdamSpec


def plain_layers(dtype: str) -> Layers:
    """Return the layers with weights of `dtype`, as the framework's own documentation has them.

    `dtype` may be the name of a policy such as mixed_bfloat16: Keras computes in float32 where a
    layer has none.
    """
    return Layers(
        conv=partial(conv, dtype=dtype),
        conv_transpose=partial(conv_transpose, dtype=dtype),
        dense=partial(dense, dtype=dtype),
        batch_norm=partial(BatchNorm, dtype=dtype),
        relu=tf.nn.relu,
        leaky_relu=leaky_relu,
    )


def conv(
    in_features: int,
    out_features: int,
    stride: int,
    padding: int,
    *,
    bias: bool = False,
    kind: type[keras.layers.Conv2D] = keras.layers.Conv2D,
    dtype: str,
) -> keras.layers.Conv2D:
    """Return a convolution; its kernel is HWIO: docs/porting.md#kernels-and-layouts."""
    pads = "same" if padding else "valid"
    layer = kind(out_features, 4, stride, pads, use_bias=bias, dtype=dtype)
    return _built(layer, (None, None, None, in_features))


def conv_transpose(
    in_features: int,
    out_features: int,
    stride: int,
    padding: int,
    *,
    bias: bool = False,
    kind: type[keras.layers.Conv2DTranspose] = keras.layers.Conv2DTranspose,
    dtype: str,
) -> keras.layers.Conv2DTranspose:
    """Return a transposed convolution; its kernel is HWOI: docs/porting.md#kernels-and-layouts."""
    pads = "same" if padding else "valid"
    layer = kind(out_features, 4, stride, pads, use_bias=bias, dtype=dtype)
    return _built(layer, (None, None, None, in_features))


def dense(in_features: int, out_features: int, *, dtype: str) -> keras.layers.Dense:
    """Return a dense layer; its kernel is (in, out)."""
    return _built(keras.layers.Dense(out_features, dtype=dtype), (None, in_features))


def _built(layer: keras.Layer, shape: tuple[int | None, ...]) -> keras.Layer:
    # Else Keras creates a layer's weights when it first sees data.
    layer.build(shape)
    return layer


def leaky_relu(x: Tensor, slope: float = 0.2) -> Tensor:
    """Return x where x > 0, else slope · x (Maas et al. 2013); its gradient at 0 is the slope."""
    # tf.nn.leaky_relu and Keras hold the slope in float32, also for float64 data.
    return tf.where(x > 0, x, tf.constant(slope, x.dtype) * x)


@keras.saving.register_keras_serializable(package=__name__)
class BatchNorm(keras.layers.Layer):
    """Batch normalisation of [batch, ..., features] (Ioffe & Szegedy 2015, Algorithm 1).

    The running variance is unbiased, n/(n - 1), which Keras' own layer is not; `momentum` is the
    weight of the new statistic.
    """

    def __init__(
        self, features: int, *, epsilon: float = 1e-5, momentum: float = 0.1, **options: Any
    ) -> None:
        # Without autocast: in mixed precision too, parameters and statistics stay in float32.
        super().__init__(**{"autocast": False, **options})
        self.features = features
        self.epsilon = epsilon
        self.momentum = momentum
        add = partial(self.add_weight, shape=(features,), autocast=False)
        self.scale = add(name="scale", initializer="ones")
        self.bias = add(name="bias", initializer="zeros")
        self.mean = add(name="mean", initializer="zeros", trainable=False)
        self.var = add(name="var", initializer="ones", trainable=False)
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """Return what makes the same layer."""
        own = {name: getattr(self, name) for name in ("features", "epsilon", "momentum")}
        return super().get_config() | own

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        """Normalise by the batch's statistics while training, else by the running ones."""
        if training:
            y, *statistics = self.by_batch(x)
            self.move(*statistics)
        else:
            y = self.normalize(tf.cast(x, self.variable_dtype), self.mean.value, self.var.value)
        return tf.cast(y, x.dtype)

    def by_batch(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return x normalised by its own statistics, its mean and its unbiased variance."""
        x = tf.cast(x, self.variable_dtype)
        mean, variance = tf.nn.moments(x, axes=list(range(x.shape.rank - 1)))
        count = tf.cast(tf.size(x) // x.shape[-1], x.dtype)
        return self.normalize(x, mean, variance), mean, variance * (count / (count - 1))

    def normalize(self, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """Return x by the given statistics."""
        affine = (self.bias.value, self.scale.value)
        return tf.nn.batch_normalization(x, mean, variance, *affine, self.epsilon)

    def move(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics towards those of a batch."""
        for running, batch in ((self.mean, mean), (self.var, variance)):
            running.assign(running * (1.0 - self.momentum) + batch * self.momentum)


def create_adam(network: keras.Model, settings: AdamSpec, kind: type[Adam] | None = None) -> Adam:
    """Return Adam of a network's parameters, in the form of Kingma & Ba 2015, Algorithm 1."""
    optimizer = (kind or Adam)(
        learning_rate=settings.learning_rate,
        beta1=settings.beta1,
        beta2=settings.beta2,
        epsilon=settings.epsilon,
    )
    optimizer.build(network.trainable_variables)
    return optimizer


@keras.saving.register_keras_serializable(package=__name__)
class Adam(keras.optimizers.Optimizer):
    """Adam with epsilon outside the bias-corrected root.

    Keras' own adds epsilon before the bias correction and keeps its settings in float32; no
    constant epsilon makes the two agree.
    """

    def __init__(
        self,
        learning_rate: float,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        **options: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, **options)
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        # In place of Keras' own, which is in float32.
        self._learning_rate = keras.Variable(
            learning_rate, dtype="float64", trainable=False, name="learning_rate"
        )

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Create the moments, all zero."""
        if self.built:
            return
        super().build(variables)
        names = ["first_moment", "second_moment"]
        self.first_moments, self.second_moments = self.add_optimizer_variables(variables, names)

    def update_step(self, gradient: Tensor, variable: tf.Variable, learning_rate: Tensor) -> None:
        """Update one variable and its moments by its gradient."""
        index = self._get_variable_index(variable)
        m, v = self.first_moments[index].value, self.second_moments[index].value
        self.move(variable, m, v, gradient, self.iterations.value + 1, learning_rate)

    def move(
        self,
        variable: tf.Variable,
        m: tf.Variable,
        v: tf.Variable,
        gradient: Tensor,
        step: Tensor,
        learning_rate: Tensor,
    ) -> None:
        """Make update number `step` of a variable and its moments m and v."""
        # In float32, 1 - β₂ᵗ would be off by 1e-5 at the first steps; float64 and expm1 are not.
        step = tf.cast(step, tf.float64)
        correction1 = -tf.math.expm1(step * tf.constant(math.log(self.beta1), tf.float64))
        correction2 = -tf.math.expm1(step * tf.constant(math.log(self.beta2), tf.float64))
        rate = tf.cast(learning_rate / correction1, m.dtype)
        root = tf.cast(tf.sqrt(correction2), v.dtype)
        m.assign(m * self.beta1 + gradient * (1.0 - self.beta1))
        v.assign(v * self.beta2 + tf.square(gradient) * (1.0 - self.beta2))
        variable.assign_sub(rate * m / (tf.sqrt(v) / root + self.epsilon))

    def get_config(self) -> dict[str, Any]:
        """Return what makes the same optimizer."""
        own = {name: getattr(self, name) for name in ("beta1", "beta2", "epsilon")}
        return super().get_config() | own
