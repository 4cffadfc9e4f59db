"""JAX behind `shared.interface.Implementation`: NumPy in, NumPy out."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array as Tensor

from shared.framework_adapter import FrameworkAdapter
from shared.interface import Array, Arrays
from shared.spec import AdamSpec, NetworkName

from . import checkpoint, losses, state, train
from .layers import create_adam
from .state import Leaves, Modules, Settings, TrainState, batches_to_devices


@partial(jax.jit, static_argnums=0)
def _gradients(
    settings: Settings, arrays: Leaves, real_images: Tensor, latents: Tensor
) -> train.Gradients:
    return train.compute_step(settings.merge(arrays), real_images, latents)[1]


class JaxImplementation(FrameworkAdapter):
    """The NumPy-in, NumPy-out interface of this package."""

    name = "jax"
    checkpoint, losses, train, places = checkpoint, losses, train, state

    def computing_in(self, dtype: str | np.dtype) -> AbstractContextManager:
        """Enter x64 where float64 is computed; an array that left it would lose its dtype."""
        return jax.enable_x64(np.dtype(dtype) == np.float64)

    def value_and_gradients(self, loss: Callable, *scores: Array) -> tuple[Tensor, ...]:
        """Return a loss of scores, then its gradient by each of them."""
        by_all = jax.value_and_grad(loss, argnums=tuple(range(len(scores))))
        value, gradients = by_all(*map(jnp.asarray, scores))
        return value, *gradients

    def forward(self, modules: Modules, network: NetworkName, x: Tensor, training: bool) -> Tensor:
        """Run a network where nothing is compiled; the state does not change."""
        module = modules.network(network)
        if not training:
            module.eval()
        return module(x)

    def modules(self, state: TrainState) -> Modules:
        """Return what holds both networks and their optimizers."""
        return state.settings.merge(state.arrays)

    def own_step(
        self, state: TrainState, real_images: Tensor, latents: Tensor
    ) -> dict[str, Tensor]:
        """Make the step that was given on modules made of the arrays, which they then replace."""
        modules = self.modules(state)
        metrics = super().own_step(modules, real_images, latents)
        state.arrays = modules.arrays()
        return metrics

    def gradients(self, state: TrainState, real_images: Array, latents: Array) -> Arrays:
        """Return one step's gradients of both networks by parameter name; nothing changes."""
        with self.computing_in(state.compute.dtype):
            batches = batches_to_devices(state, real_images, latents)
            gradients = _gradients(state.settings, state.arrays, *batches)
            return checkpoint.export_gradients(state, gradients)

    def adam(
        self, parameter: Array, gradient: Array, m: Array, v: Array, step: int, settings: AdamSpec
    ) -> tuple[Array, Array, Array]:
        """Return the parameter and both moments after update number `step` (the first is 1)."""
        with self.computing_in(parameter.dtype):
            network = nnx.Dict(parameter=nnx.Param(jnp.asarray(parameter)))
            optimizer = create_adam(network, settings)
            moments = optimizer.opt_state
            moments.count[...] = jnp.asarray(step - 1, jnp.int32)
            moments.mu["parameter"][...] = jnp.asarray(m)
            moments.nu["parameter"][...] = jnp.asarray(v)
            optimizer.update(network, nnx.State({"parameter": nnx.Param(jnp.asarray(gradient))}))
            after = (network["parameter"], moments.mu["parameter"], moments.nu["parameter"])
            first, second, third = (np.array(array[...]) for array in after)
            return first, second, third


implementation = JaxImplementation()
