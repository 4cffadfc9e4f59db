"""Where Keras' own layers and optimizers depart from the spec.

Each departure has a row in docs/porting.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import keras
import tensorflow as tf

from shared.spec import AdamSpec
from tf_impl.parallel import mean_over_replicas, own_copy, replica_count

__all__ = ["Adam", "BatchNormalization", "leaky_relu"]


def leaky_relu(x: tf.Tensor, slope: float = 0.2) -> tf.Tensor:
    """Return x where x > 0, else slope · x (Maas et al. 2013); its gradient at 0 is the slope."""
    if x.dtype != tf.float64:
        # One kernel in each direction: 5 % less CPU time for a whole step than with tf.where.
        return tf.nn.leaky_relu(x, slope)
    # tf.nn.leaky_relu and Keras hold the slope in float32, also for float64 data.
    return tf.where(x > 0, x, tf.constant(slope, x.dtype) * x)


class BatchNormalization(keras.layers.Layer):
    """Batch normalisation over every axis but the last (Ioffe & Szegedy 2015, Algorithm 1).

    The running variance is unbiased, n/(n - 1), which Keras' own layer is not; `momentum` is the
    weight of the new statistic. Among several replicas the batch is the global one, unless
    `is_per_replica`: then each normalises its own slice, and the running statistics follow the
    replicas' mean.
    """

    is_per_replica = False

    def __init__(
        self, *, epsilon: float = 1e-5, momentum: float = 0.1, dtype: str, name: str
    ) -> None:
        # Without autocast: in mixed precision too, parameters and statistics stay in float32.
        super().__init__(dtype=dtype, name=name, autocast=False)
        self.epsilon = epsilon
        self.momentum = momentum

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Create scale, bias and the running statistics."""
        features = (input_shape[-1],)
        self.scale = self.add_weight(name="scale", shape=features, initializer="ones")
        self.bias = self.add_weight(name="bias", shape=features, initializer="zeros")
        self.mean = self.add_weight(
            name="mean", shape=features, initializer="zeros", trainable=False
        )
        self.var = self.add_weight(name="var", shape=features, initializer="ones", trainable=False)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Normalise by the batch's statistics while training, else by the running ones."""
        if not training:
            values = [v.value for v in (self.mean, self.var, self.bias, self.scale)]
            y = tf.nn.batch_normalization(tf.cast(x, self.variable_dtype), *values, self.epsilon)
            return tf.cast(y, x.dtype)
        has_fused = x.dtype in (tf.float32, tf.bfloat16) and x.shape.rank == 4
        normalise = self._fused if has_fused else self._plain
        if replica_count() > 1 and not self.is_per_replica:
            normalise = self._global
        y, mean, unbiased_variance = normalise(x)
        if self.is_per_replica:
            mean, unbiased_variance = mean_over_replicas([mean, unbiased_variance])
        for running, batch in ((self.mean, mean), (self.var, unbiased_variance)):
            statistic = own_copy(running)
            statistic.assign(statistic * (1.0 - self.momentum) + batch * self.momentum)
        return tf.cast(y, x.dtype)

    def _fused(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        # The fused op has no float64 kernel; the variance that it returns is unbiased.
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=self.scale.value,
            offset=self.bias.value,
            mean=[],
            variance=[],
            epsilon=self.epsilon,
            is_training=True,
        )
        return y, mean, variance

    def _plain(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        x = tf.cast(x, self.variable_dtype)
        mean, variance = tf.nn.moments(x, axes=list(range(x.shape.rank - 1)))
        return self._by(x, mean, variance, count=1)

    def _global(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        x = tf.cast(x, self.variable_dtype)
        axes = list(range(x.shape.rank - 1))
        (mean,) = mean_over_replicas([tf.reduce_mean(x, axes)])
        # Centred, so that no digits are lost; no gradient through the mean, as in tf.nn.moments,
        # because the sum of what is centred is 0.
        squares = tf.math.squared_difference(x, tf.stop_gradient(mean))
        (variance,) = mean_over_replicas([tf.reduce_mean(squares, axes)])
        return self._by(x, mean, variance, count=replica_count())

    def _by(
        self, x: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor, *, count: int
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Return x normalised, the mean, and the unbiased variance of `count` slices like x."""
        count = tf.cast(count * (tf.size(x) // x.shape[-1]), x.dtype)
        y = tf.nn.batch_normalization(
            x, mean, variance, self.bias.value, self.scale.value, self.epsilon
        )
        return y, mean, variance * (count / (count - 1))


class Adam(tf.Module):
    """Adam in the form of Kingma & Ba 2015, Algorithm 1: epsilon outside the corrected root.

    Keras' own adds epsilon before the bias correction and keeps its settings in float32; no
    constant epsilon makes the two agree.
    """

    def __init__(self, settings: AdamSpec, variables: Iterable[keras.Variable]) -> None:
        super().__init__()
        self.settings = settings
        self.variables_to_update = list(variables)
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.first_moments = [self._zeros(v) for v in self.variables_to_update]
        self.second_moments = [self._zeros(v) for v in self.variables_to_update]

    @staticmethod
    def _zeros(variable: keras.Variable) -> tf.Variable:
        return tf.Variable(tf.zeros(variable.shape, variable.dtype), trainable=False)

    def apply(self, gradients: Sequence[tf.Tensor]) -> None:
        """Update every variable by its gradient, in the order given to the constructor.

        Each replica updates its own copies, all of them by the same gradients.
        """
        if tf.executing_eagerly() or replica_count() > 1 or "CPU" not in self.step.device:
            self._update(gradients)
        else:
            # One pass over memory instead of thirteen: 3 % of a step. On a GPU only the mode xla
            # compiles, so that the other one needs no XLA there.
            tf.function(self._update, jit_compile=True)(list(gradients))

    def _update(self, gradients: Sequence[tf.Tensor]) -> None:
        beta1, beta2 = self.settings.beta1, self.settings.beta2
        step = tf.cast(own_copy(self.step).assign_add(1), tf.float64)
        # In float32, 1 - β₂ᵗ would be off by 1e-5 at the first steps; float64 and expm1 are not.
        correction1 = -tf.math.expm1(step * tf.constant(math.log(beta1), tf.float64))
        correction2 = -tf.math.expm1(step * tf.constant(math.log(beta2), tf.float64))
        rate = self.settings.learning_rate / correction1
        root = tf.sqrt(correction2)
        updated = (self.variables_to_update, self.first_moments, self.second_moments)
        for *variables, gradient in zip(*updated, gradients, strict=True):
            variable, m, v = map(own_copy, variables)
            m.assign(m * beta1 + gradient * (1.0 - beta1))
            v.assign(v * beta2 + tf.square(gradient) * (1.0 - beta2))
            denominator = tf.sqrt(v) / tf.cast(root, v.dtype) + self.settings.epsilon
            variable.assign_sub(tf.cast(rate, m.dtype) * m / denominator)
