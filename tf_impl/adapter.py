"""TensorFlow behind `shared.interface.Implementation`: NumPy in, NumPy out."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from shared.interface import Array, Arrays, LossValues, split_labels
from shared.spec import AdamSpec, NetworkName, SystemSpec, check_loss
from shared.spec.compute import Compute

from . import checkpoint, train
from .activations import activations
from .layers import create_adam
from .losses import LOSSES
from .parallel import run_on_replicas
from .state import (
    TrainState,
    batches_to_devices,
    images_to_device,
    images_to_numpy,
    latents_to_device,
    synchronize,
)
from .stock_losses import loss_formulas


class TensorFlowImplementation:
    """The NumPy-in, NumPy-out interface of this package; the keywords are those of `Compute`.

    Batches are those of all devices together.
    """

    name = "tf"
    loss_formulas = staticmethod(loss_formulas)

    def __init__(self, device: str = "cpu", **compute: Any) -> None:
        self.compute = Compute(device=device, **compute)

    def loss(
        self, loss: str, real_scores: Array, fake_scores: Array, **labels: float
    ) -> LossValues:
        """Return the loss called `loss` and its gradients, in the inputs' dtype."""
        functions = LOSSES[check_loss(loss)]
        discriminator_labels, generator_labels = split_labels(labels)
        real, fake = tf.constant(real_scores), tf.constant(fake_scores)
        with tf.GradientTape() as tape:
            tape.watch((real, fake))
            discriminator = functions.discriminator(real, fake, **discriminator_labels)
        real_gradient, fake_gradient = tape.gradient(discriminator, (real, fake))
        with tf.GradientTape() as tape:
            tape.watch(fake)
            generator = functions.generator(fake, **generator_labels)
        generator_gradient = tape.gradient(generator, fake)
        values = (discriminator, generator, real_gradient, fake_gradient, generator_gradient)
        return LossValues(*(v.numpy() for v in values))

    def create(self, spec: SystemSpec, *, seed: int = 0, dtype: str = "float32") -> TrainState:
        """Return a fresh training state with the weights that `seed` stands for."""
        return checkpoint.create_train_state(spec, replace(self.compute, dtype=dtype), seed=seed)

    def generate(self, state: TrainState, latents: Array, *, training: bool = False) -> Array:
        """Return images [batch, height, width, channels]; the state does not change."""
        images = train.generate(state, latents_to_device(state, latents), training=training)
        return images_to_numpy(images)

    def discriminate(self, state: TrainState, images: Array, *, training: bool = False) -> Array:
        """Return scores [batch]; the state does not change."""
        values = images_to_device(state, images)
        return train.discriminate(state, values, training=training).numpy()

    def activations(
        self, state: TrainState, network: NetworkName, inputs: Array, *, training: bool = False
    ) -> Arrays:
        """Return what each layer makes of the inputs, by its name; the state does not change."""
        to_device = latents_to_device if network == "generator" else images_to_device
        found = activations(state, network, to_device(state, inputs), training=training)
        return {name: x.numpy() for name, x in found.items()}

    def gradients(self, state: TrainState, real_images: Array, latents: Array) -> Arrays:
        """Return one step's gradients of both networks by parameter name; nothing changes."""
        scratch = checkpoint.create_train_state(
            state.spec, state.compute, arrays=checkpoint.export_state(state)
        )
        step = partial(train.compute_step, scratch)
        batches = batches_to_devices(scratch, real_images, latents)
        _, gradients = run_on_replicas(scratch.strategy, step, *batches)
        return checkpoint.export_gradients(scratch, gradients)

    def train_step(self, state: TrainState, real_images: Array, latents: Array) -> dict[str, float]:
        """Make one training step and return its losses; the state moves."""
        batches = batches_to_devices(state, real_images, latents)
        metrics = train.train_step(state, *batches)
        return {name: float(value) for name, value in metrics.items()}

    def adam(
        self, parameter: Array, gradient: Array, m: Array, v: Array, step: int, settings: AdamSpec
    ) -> tuple[Array, Array, Array]:
        """Return the parameter and both moments after update number `step` (the first is 1)."""
        held = keras.layers.Layer(dtype=str(parameter.dtype))
        variable = held.add_weight(shape=parameter.shape)
        optimizer = create_adam(held, settings)
        (first,), (second,) = optimizer.first_moments, optimizer.second_moments
        values = ((variable, parameter), (first, m), (second, v), (optimizer.iterations, step - 1))
        for held_variable, value in values:
            held_variable.assign(value)
        optimizer.apply([tf.constant(gradient)])
        return variable.numpy(), first.numpy(), second.numpy()

    def export_state(self, state: TrainState) -> Arrays:
        """Return weights, BN statistics, Adam moments and counters by canonical name."""
        return checkpoint.export_state(state)

    def import_state(self, state: TrainState, arrays: Arrays) -> None:
        """Replace the whole state; a missing, unexpected or misshapen array is a ValueError."""
        checkpoint.import_state(state, arrays)

    def synchronize(self, state: TrainState) -> None:
        """Return when all work on the state is done."""
        synchronize(state)


implementation = TensorFlowImplementation()
