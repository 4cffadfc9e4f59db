"""JAX behind `shared.interface.Implementation`: NumPy in, NumPy out."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array as Tensor

from shared.interface import METRIC_NAMES, Array, Arrays, LossValues, split_labels
from shared.spec import AdamSpec, NetworkName, SystemSpec, check_loss
from shared.spec.compute import Compute

from . import checkpoint, train
from .activations import activations
from .layers import create_adam
from .losses import LOSSES
from .state import (
    Settings,
    TrainState,
    batches_to_devices,
    images_to_device,
    images_to_numpy,
    latents_to_device,
    synchronize,
)
from .stock_losses import loss_formulas


def _x64(dtype: str | np.dtype) -> AbstractContextManager:
    """Enter x64 where float64 is computed; an array that left it would lose its dtype."""
    return jax.enable_x64(np.dtype(dtype) == np.float64)


@partial(jax.jit, static_argnums=0)
def _gradients(
    settings: Settings, arrays: nnx.State, real_images: Tensor, latents: Tensor
) -> train.Gradients:
    return train.compute_step(settings.merge(arrays), real_images, latents)[1]


class JaxImplementation:
    """The NumPy-in, NumPy-out interface of this package; the keywords are those of `Compute`.

    Batches are those of all devices together.
    """

    name = "jax"
    loss_formulas = staticmethod(loss_formulas)

    def __init__(self, device: str = "cpu", **compute: Any) -> None:
        self.compute = Compute(device=device, **compute)

    def loss(
        self, loss: str, real_scores: Array, fake_scores: Array, **labels: float
    ) -> LossValues:
        """Return the loss called `loss` and its gradients, in the inputs' dtype."""
        functions = LOSSES[check_loss(loss)]
        discriminator_labels, generator_labels = split_labels(labels)
        with _x64(real_scores.dtype):
            real, fake = jnp.asarray(real_scores), jnp.asarray(fake_scores)
            discriminator, (real_gradient, fake_gradient) = jax.value_and_grad(
                lambda r, f: functions.discriminator(r, f, **discriminator_labels), argnums=(0, 1)
            )(real, fake)
            generator, generator_gradient = jax.value_and_grad(
                lambda f: functions.generator(f, **generator_labels)
            )(fake)
            values = (discriminator, generator, real_gradient, fake_gradient, generator_gradient)
            return LossValues(*(np.array(v) for v in values))

    def create(self, spec: SystemSpec, *, seed: int = 0, dtype: str = "float32") -> TrainState:
        """Return a fresh training state with the weights that `seed` stands for."""
        with _x64(dtype):
            return checkpoint.create_train_state(
                spec, replace(self.compute, dtype=dtype), seed=seed
            )

    def generate(self, state: TrainState, latents: Array, *, training: bool = False) -> Array:
        """Return images [batch, height, width, channels]; the state does not change."""
        with _x64(state.compute.dtype):
            values = latents_to_device(state, latents)
            return images_to_numpy(train.generate(state, values, training=training))

    def discriminate(self, state: TrainState, images: Array, *, training: bool = False) -> Array:
        """Return scores [batch]; the state does not change."""
        with _x64(state.compute.dtype):
            values = images_to_device(state, images)
            return np.array(train.discriminate(state, values, training=training))

    def activations(
        self, state: TrainState, network: NetworkName, inputs: Array, *, training: bool = False
    ) -> Arrays:
        """Return what each layer makes of the inputs, by its name; the state does not change."""
        to_device = latents_to_device if network == "generator" else images_to_device
        with _x64(state.compute.dtype):
            values = to_device(state, inputs)
            found = activations(state, network, values, training=training)
            return {name: np.array(x) for name, x in found.items()}

    def gradients(self, state: TrainState, real_images: Array, latents: Array) -> Arrays:
        """Return one step's gradients of both networks by parameter name; nothing changes."""
        with _x64(state.compute.dtype):
            batches = batches_to_devices(state, real_images, latents)
            gradients = _gradients(state.settings, state.arrays, *batches)
            return checkpoint.export_gradients(state, gradients)

    def train_step(self, state: TrainState, real_images: Array, latents: Array) -> dict[str, float]:
        """Make one training step and return its losses; the state moves."""
        with _x64(state.compute.dtype):
            batches = batches_to_devices(state, real_images, latents)
            metrics = train.train_step(state, *batches)
            # A jitted function returns a dict in alphabetical order.
            return {name: float(metrics[name]) for name in METRIC_NAMES}

    def adam(
        self, parameter: Array, gradient: Array, m: Array, v: Array, step: int, settings: AdamSpec
    ) -> tuple[Array, Array, Array]:
        """Return the parameter and both moments after update number `step` (the first is 1)."""
        with _x64(str(parameter.dtype)):
            network = nnx.Dict(parameter=nnx.Param(jnp.asarray(parameter)))
            optimizer = create_adam(network, settings)
            moments = optimizer.opt_state
            moments.count[...] = jnp.asarray(step - 1, jnp.int32)
            moments.mu["parameter"][...] = jnp.asarray(m)
            moments.nu["parameter"][...] = jnp.asarray(v)
            gradients = nnx.State({"parameter": nnx.Param(jnp.asarray(gradient))})
            optimizer.update(network, gradients)
            after = (network["parameter"], moments.mu["parameter"], moments.nu["parameter"])
            first, second, third = (np.array(array[...]) for array in after)
            return first, second, third

    def export_state(self, state: TrainState) -> Arrays:
        """Return weights, BN statistics, Adam moments and counters by canonical name."""
        with _x64(state.compute.dtype):
            return checkpoint.export_state(state)

    def import_state(self, state: TrainState, arrays: Arrays) -> None:
        """Replace the whole state; a missing, unexpected or misshapen array is a ValueError."""
        with _x64(state.compute.dtype):
            checkpoint.import_state(state, arrays)

    def synchronize(self, state: TrainState) -> None:
        """Return when all work on the state is done."""
        with _x64(state.compute.dtype):
            synchronize(state)


implementation = JaxImplementation()
