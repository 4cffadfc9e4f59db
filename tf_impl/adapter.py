"""TensorFlow behind `shared.interface.Implementation`: NumPy in, NumPy out."""

from collections.abc import Callable
from functools import partial

import keras
import numpy as np
import tensorflow as tf
from tensorflow import Tensor

from shared.framework_adapter import FrameworkAdapter
from shared.interface import Array, Arrays
from shared.spec import AdamSpec

from . import checkpoint, losses, state, train
from .layers import create_adam
from .parallel import run_on_replicas
from .state import TrainState, batches_to_devices


class TensorFlowImplementation(FrameworkAdapter):
    """The NumPy-in, NumPy-out interface of this package."""

    name = "tf"
    checkpoint, losses, train, places = checkpoint, losses, train, state
    forward = staticmethod(train._forward)

    def to_numpy(self, tensor: Tensor) -> Array:
        """Return a tensor as an array; NumPy itself cannot ask one of bfloat16 for a copy."""
        return np.array(tensor.numpy())

    def value_and_gradients(self, loss: Callable, *scores: Array) -> tuple[Tensor, ...]:
        """Return a loss of scores, then its gradient by each of them."""
        tensors = list(map(tf.constant, scores))
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = loss(*tensors)
        return value, *tape.gradient(value, tensors)

    def gradients(self, state: TrainState, real_images: Array, latents: Array) -> Arrays:
        """Return one step's gradients of both networks by parameter name; nothing changes."""
        before = self.export_state(state)
        batches = batches_to_devices(state, real_images, latents)
        _, gradients = run_on_replicas(state.strategy, partial(train.compute_step, state), *batches)
        self.import_state(state, before)
        return checkpoint.export_gradients(state, gradients)

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
