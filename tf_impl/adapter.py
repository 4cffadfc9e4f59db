"""TensorFlow behind `shared.interface.Implementation`: NumPy in, NumPy out."""

from functools import partial

import keras
import tensorflow as tf

from shared.framework_adapter import FrameworkAdapter
from shared.interface import Array, Arrays, LossValues, split_labels
from shared.spec import AdamSpec, check_loss

from . import activations, checkpoint, state, train
from .layers import create_adam
from .losses import LOSSES
from .parallel import run_on_replicas
from .state import TrainState, batches_to_devices
from .stock_losses import loss_formulas


class TensorFlowImplementation(FrameworkAdapter):
    """The NumPy-in, NumPy-out interface of this package."""

    name = "tf"
    checkpoint, train, places, layers = checkpoint, train, state, activations
    loss_formulas = staticmethod(loss_formulas)

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

    def gradients(self, state: TrainState, real_images: Array, latents: Array) -> Arrays:
        """Return one step's gradients of both networks by parameter name; nothing changes."""
        scratch = checkpoint.create_train_state(
            state.spec, state.compute, arrays=checkpoint.export_state(state)
        )
        step = partial(train.compute_step, scratch)
        batches = batches_to_devices(scratch, real_images, latents)
        _, gradients = run_on_replicas(scratch.strategy, step, *batches)
        return checkpoint.export_gradients(scratch, gradients)

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


implementation = TensorFlowImplementation()
