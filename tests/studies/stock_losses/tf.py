"""Our losses beside TensorFlow's and Keras' own, as documented: the tables of docs/losses.md."""

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from shared.interface import Array
from shared.studies.accuracy import Results
from tests.studies.stock_losses import WRITTEN_OUT, Formula, make_formulas
from tf_impl.losses import LOSSES

Function = Callable[[tf.Tensor, float], tf.Tensor]  # scores, target → loss of each score


def _keras_loss(name: str, **options: bool) -> Function:
    # The mean is taken over the last axis.
    loss = getattr(keras.losses, name)(reduction=None, **options)
    return lambda x, y: loss(tf.fill([x.shape[0], 1], tf.constant(y, x.dtype)), x[:, None])


_cross_entropy = _keras_loss("BinaryCrossentropy")
_squared = _keras_loss("MeanSquaredError")
FUNCTIONS: dict[tuple[str, str], Function] = {
    ("bce", "tf.nn.sigmoid_cross_entropy_with_logits"): (
        lambda x, y: tf.nn.sigmoid_cross_entropy_with_logits(y * tf.ones_like(x), x)
    ),
    ("bce", "tf.nn.softplus(±x)"): lambda x, y: tf.nn.softplus(-x if y else x),
    ("bce", WRITTEN_OUT): (
        lambda x, y: tf.nn.relu(-x if y else x) + tf.math.log1p(tf.exp(-tf.abs(x)))
    ),
    ("bce", "BinaryCrossentropy(from_logits=True)"): (
        _keras_loss("BinaryCrossentropy", from_logits=True)
    ),
    ("bce", "BinaryCrossentropy()(sigmoid(x))"): lambda x, y: _cross_entropy(tf.sigmoid(x), y),
    ("bce_probs", "BinaryCrossentropy()"): _cross_entropy,
    ("lsgan", "0.5 * MeanSquaredError()"): lambda x, y: 0.5 * _squared(x, y),
}


def _run(compiled: bool, function: Function, x: Array, target: float, dtype: str) -> Results:
    def both(scores: tf.Tensor) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            tape.watch(scores)
            values = tf.cast(function(scores, target), scores.dtype)
        return values, tape.gradient(values, scores)

    scores = tf.cast(tf.constant(x), dtype)
    # Without autograph, which looks for the source code of a lambda.
    run = tf.function(both, autograph=False).get_concrete_function(scores) if compiled else both
    values, gradients = (result.numpy().astype(np.float64) for result in run(scores))
    return values, gradients


def loss_formulas() -> list[Formula]:
    """Return every formula under every way of running it, in the order of the tables."""
    runs = {"eager": functools.partial(_run, False), "tf.function": functools.partial(_run, True)}
    return make_formulas("tf", LOSSES, FUNCTIONS, runs)
