"""A plain Keras step: stock layers and Adam, one tf.function, one tape per network.

G runs twice in a step, once to give the discriminator its images and once under its own tape, as
in most public TF2 code; its step forms D's gradients on the tape, though they are not asked for.
"""

from functools import partial

import keras
import tensorflow as tf

from shared.interface import METRIC_NAMES
from shared.spec import NETWORKS, AdamSpec, Conventions, NetworkName, SystemSpec
from shared.spec.compute import Compute
from shared.spec.streams import initial_state
from tf_impl.checkpoint import import_state
from tf_impl.layers import Layers, plain_layers
from tf_impl.models import create_models
from tf_impl.state import TrainState, batches_to_devices, select_device

__all__ = ["batches_to_devices", "create_train_state", "train_step"]

CONVENTIONS = Conventions(
    batch_norm_running_variance="biased", adam_epsilon_placement="before_correction"
)
"""Where Keras' own layers and Adam depart from the spec."""
GENERATOR_BATCH = "same_latents"
"""G makes its images anew from the same latents."""


def create_train_state(spec: SystemSpec, compute: Compute, *, seed: int = 0) -> TrainState:
    """Return a fresh state."""
    place = select_device(compute.device)
    policy = "mixed_bfloat16" if compute.precision == "bfloat16" else "float32"
    with tf.device(place):
        networks = create_models(spec, _layers(policy))
        adams = map(_adam, networks, map(spec.adam, NETWORKS))
        state = TrainState(spec, compute, place, *networks, *adams)
    import_state(state, initial_state(spec, seed))
    return state


class StockAdam(keras.optimizers.Adam):
    """Keras' own, with the names that `tf_impl.checkpoint` has for its moments."""

    first_moments = property(lambda self: self._momentums)
    second_moments = property(lambda self: self._velocities)


def _adam(network: keras.Model, own: AdamSpec) -> StockAdam:
    optimizer = StockAdam(own.learning_rate, own.beta1, own.beta2, own.epsilon)
    optimizer.build(network.trainable_variables)
    return optimizer


def _layers(policy: str) -> Layers:
    """Return Keras' own layers; `plain_layers` has its convolutions already."""

    def batch_norm(features: int) -> keras.layers.Layer:
        layer = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, dtype=policy)
        layer.build((None, None, None, features))
        return layer

    leaky_relu = partial(tf.nn.leaky_relu, alpha=0.2)
    return plain_layers(policy)._replace(batch_norm=batch_norm, leaky_relu=leaky_relu)


def train_step(
    state: TrainState, real_images: tf.Tensor, latents: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Make one training step; returns its losses."""
    if not state.functions:
        state.functions["step"] = tf.function(partial(_step, state))
    with tf.device(state.device):
        return state.functions["step"](real_images, latents)


def _step(state: TrainState, real_images: tf.Tensor, latents: tf.Tensor) -> dict[str, tf.Tensor]:
    generator, discriminator = state.generator, state.discriminator
    fake_images = generator(latents, training=True)
    with tf.GradientTape() as tape:
        real = _cross_entropy(discriminator(real_images, training=True), 1.0)
        fake = _cross_entropy(discriminator(fake_images, training=True), 0.0)
        total = real + fake
    _update(state, "discriminator", tape, total)
    with tf.GradientTape() as tape:
        scores = discriminator(generator(latents, training=True), training=True)
        generator_loss = _cross_entropy(scores, 1.0)
    _update(state, "generator", tape, generator_loss)
    return dict(zip(METRIC_NAMES, (total, real, fake, generator_loss), strict=True))


def _update(state: TrainState, name: NetworkName, tape: tf.GradientTape, loss: tf.Tensor) -> None:
    variables = state.network(name).trainable_variables
    gradients = tape.gradient(loss, [variable.value for variable in variables])
    state.optimizer(name).apply(gradients, variables)


def _cross_entropy(scores: tf.Tensor, label: float) -> tf.Tensor:
    scores = tf.cast(scores, tf.float32)
    labels = tf.fill(tf.shape(scores), label)
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=scores))
