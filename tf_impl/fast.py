"""What makes a step faster and changes no number; a reader can skip it.

Drop-in for what `layers` and `train` have in its plain form.
"""

from collections.abc import Sequence
from functools import partial

import keras
import tensorflow as tf
from tensorflow import Tensor

from . import layers


def fast_layers(dtype: str) -> layers.Layers:
    """Return the layers with weights of `dtype`."""
    return layers.plain_layers(dtype)._replace(
        batch_norm=partial(BatchNorm, dtype=dtype), leaky_relu=leaky_relu
    )


def leaky_relu(x: Tensor, slope: float = 0.2) -> Tensor:
    """Return x where x > 0, else slope · x.

    One kernel in each direction: 5 % less CPU time for a whole step than with tf.where.
    """
    if x.dtype == tf.float64:  # for which TensorFlow's holds the slope in float32
        return layers.leaky_relu(x, slope)
    return tf.nn.leaky_relu(x, slope)


@keras.saving.register_keras_serializable(package=__name__)
class BatchNorm(layers.BatchNorm):
    """As the plain one, by one fused operation on images."""

    def by_batch(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return x normalised by its own statistics, its mean and its unbiased variance."""
        # The fused operation has no float64 kernel; the variance that it returns is unbiased.
        if x.dtype not in (tf.float32, tf.bfloat16) or x.shape.rank != 4:
            return super().by_batch(x)
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


@keras.saving.register_keras_serializable(package=__name__)
class Adam(layers.Adam):
    """As the plain one, compiled: one pass over memory instead of thirteen, 3 % of a step.

    On a GPU only the mode xla compiles, so that the other one needs no XLA there.
    """

    def apply(
        self, grads: Sequence[Tensor], trainable_variables: list[keras.Variable] | None = None
    ) -> None:
        """Update every variable by its gradient."""
        update = partial(super().apply, trainable_variables=trainable_variables)
        on_cpu = "CPU" in self.first_moments[0].value.device
        if on_cpu and not tf.executing_eagerly():
            update = tf.function(update, autograph=False, jit_compile=True)
        update(list(grads))
