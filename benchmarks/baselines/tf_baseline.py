"""A plain Keras step: stock layers and Adam, one tf.function, one tape per network.

G runs twice in a step, once to give the discriminator its images and once under its own tape, as
in most public TF2 code; every trainable variable is watched, so G's step forms D's gradients on
the tape, though they are not asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from shared.spec import NETWORKS, AdamSpec, Conventions, SystemSpec, optimizer_name
from shared.spec.streams import initial_state
from tf_impl.layers import Layers, plain_layers
from tf_impl.models import create_models
from tf_impl.state import select_device

__all__ = [
    "CONVENTIONS",
    "create",
    "export_state",
    "images_to_device",
    "import_state",
    "latents_to_device",
    "spec_of",
    "step",
    "synchronize",
]

CONVENTIONS = Conventions(
    batch_norm_running_variance="biased", adam_epsilon_placement="before_correction"
)
"""Where Keras' own layers and Adam depart from the spec."""


@dataclass
class BaselineState:
    """The networks, the optimizers, the device, and the step that was traced for them."""

    spec: SystemSpec
    device: str
    networks: dict[str, keras.Model]
    optimizers: dict[str, keras.optimizers.Adam]
    function: Any = None


def spec_of(spec: SystemSpec) -> SystemSpec:
    """Return the system that this step trains: G makes its images anew from the same latents."""
    return spec.replace(generator_batch="same_latents")


def create(
    spec: SystemSpec, seed: int, device: str, threads: int, precision: str = "float32"
) -> BaselineState:
    """Return a fresh state. Raises ValueError for another system than dcgan64 with loss bce.

    `threads` can be set only before TensorFlow starts, so nothing is done with it here.
    """
    if (spec.architecture, spec.loss) != ("dcgan64", "bce"):
        raise ValueError(f"the baseline trains dcgan64 with bce, received {spec.name}, {spec.loss}")
    policy = "mixed_bfloat16" if precision == "bfloat16" else "float32"
    place = select_device(device)
    with tf.device(place):
        networks = dict(zip(NETWORKS, create_models(spec, _layers(policy)), strict=True))
        optimizers: dict[str, keras.optimizers.Adam] = {
            name: _adam(getattr(spec, f"{name}_optimizer")) for name in NETWORKS
        }
        for name, network in networks.items():
            optimizers[name].build(network.trainable_variables)
    state = BaselineState(spec, place, networks, optimizers)
    import_state(state, initial_state(spec, seed))
    return state


def _adam(settings: AdamSpec) -> keras.optimizers.Adam:
    return keras.optimizers.Adam(
        settings.learning_rate, settings.beta1, settings.beta2, settings.epsilon
    )


def _layers(policy: str) -> Layers:
    """Return Keras' own layers; `plain_layers` has its convolutions already."""

    def batch_norm(features: int) -> keras.layers.Layer:
        layer = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, dtype=policy)
        layer.build((None, None, None, features))
        return layer

    leaky_relu = partial(tf.nn.leaky_relu, alpha=0.2)
    return plain_layers(policy)._replace(batch_norm=batch_norm, leaky_relu=leaky_relu)


def images_to_device(state: BaselineState, images: np.ndarray) -> tf.Tensor:
    """Return NumPy images NHWC as `step` takes them."""
    with tf.device(state.device):
        return tf.constant(images.astype(np.float32, copy=False))


def latents_to_device(state: BaselineState, latents: np.ndarray) -> tf.Tensor:
    """Return NumPy latents [batch, latent_dim] as `step` takes them."""
    with tf.device(state.device):
        return tf.constant(latents.astype(np.float32, copy=False))


def step(state: BaselineState, real_images: tf.Tensor, latents: tf.Tensor) -> dict[str, tf.Tensor]:
    """Make one training step; returns its losses."""
    if state.function is None:
        state.function = tf.function(lambda images, z: _step(state, images, z))
    with tf.device(state.device):
        return state.function(real_images, latents)


def _step(state: BaselineState, real_images: tf.Tensor, latents: tf.Tensor) -> dict[str, tf.Tensor]:
    generator, discriminator = state.networks["generator"], state.networks["discriminator"]
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
    return {
        "discriminator_loss": total,
        "discriminator_loss_real": real,
        "discriminator_loss_fake": fake,
        "generator_loss": generator_loss,
    }


def _update(state: BaselineState, name: str, tape: tf.GradientTape, loss: tf.Tensor) -> None:
    variables = state.networks[name].trainable_variables
    gradients = tape.gradient(loss, [variable.value for variable in variables])
    state.optimizers[name].apply(gradients, variables)


def _cross_entropy(scores: tf.Tensor, label: float) -> tf.Tensor:
    scores = tf.cast(scores, tf.float32)
    labels = tf.fill(tf.shape(scores), label)
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=scores))


def export_state(state: BaselineState) -> dict[str, np.ndarray]:
    """Return the arrays of the state by canonical name."""
    return {name: np.array(variable.numpy()) for name, variable in _variables(state).items()}


def import_state(state: BaselineState, arrays: dict[str, np.ndarray]) -> None:
    """Replace the arrays of the state."""
    for name, variable in _variables(state).items():
        variable.assign(np.asarray(arrays[name]).astype(variable.dtype))


_BATCH_NORM_NAMES = {
    "scale": "gamma",
    "bias": "beta",
    "mean": "moving_mean",
    "var": "moving_variance",
}


def _variables(state: BaselineState) -> dict[str, keras.Variable]:
    """Return every variable of the state by canonical name."""
    found: dict[str, keras.Variable] = {}
    for network in NETWORKS:
        model, optimizer = state.networks[network], state.optimizers[network]
        positions = {id(v): i for i, v in enumerate(model.trainable_variables)}
        for name, parameter in state.spec.parameters(network).items():
            _, layer, own = name.split("/")
            own = _BATCH_NORM_NAMES[own] if layer.startswith("batch_norm") else own
            variable = getattr(getattr(model, layer), own)
            found[name] = variable
            if parameter.trainable:
                i = positions[id(variable)]
                found[optimizer_name(name, "m")] = optimizer._momentums[i]
                found[optimizer_name(name, "v")] = optimizer._velocities[i]
        found[f"{network}_optimizer/step"] = optimizer.iterations
    return found


def synchronize(state: BaselineState) -> float:
    """Wait for the device by reading back a number that depends on both updated networks."""
    networks = state.networks.values()
    return float(sum(tf.reduce_sum(n.trainable_variables[0].value) for n in networks))
