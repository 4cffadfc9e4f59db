"""A stock Flax NNX step: nnx.jit, nnx.BatchNorm, nnx.Optimizer, two value_and_grads.

The jitted step holds its modules by `nnx.cached_partial`, as Flax' guide on performance advises. G
runs twice in a step, to give D its images and inside G's own loss, as in most public code.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks.baselines import adam_settings
from jax_impl import checkpoint
from jax_impl.layers import Layers, plain_layers
from jax_impl.models import create_models
from jax_impl.state import Modules, select_device
from shared.interface import METRIC_NAMES, Array, Arrays
from shared.spec import NETWORKS, AdamSpec, Conventions, SystemSpec, state_shapes
from shared.spec.compute import Compute
from shared.spec.streams import initial_state

CONVENTIONS = Conventions(batch_norm_running_variance="biased")
"""Where nnx's own layers depart from the spec."""
GENERATOR_BATCH = "same_latents"
"""G makes its images anew from the same latents."""


@dataclass
class TrainState(Modules):
    """Both networks and both optimizers, and the step that holds them from its first call on."""

    step: Callable[..., dict[str, jax.Array]] | None = None


def create_train_state(spec: SystemSpec, compute: Compute, *, seed: int = 0) -> TrainState:
    """Return a fresh state. Raises ValueError for another system than dcgan64 with loss bce."""
    settings = adam_settings(spec)
    dtype = jnp.bfloat16 if compute.precision == "bfloat16" else jnp.float32
    with jax.default_device(select_device(compute.device)):
        networks: Any = create_models(spec, _layers(dtype))
        state = TrainState(spec, compute, *networks, *map(_adam, networks, settings))
    import_state(state, initial_state(spec, seed))
    return state


def _layers(dtype: jnp.dtype) -> Layers:
    """Return Flax' own layers; `plain_layers` has its convolutions already."""
    settings = {"dtype": dtype, "param_dtype": jnp.float32, "rngs": nnx.Rngs(0)}
    return plain_layers(jnp.float32, dtype)._replace(
        batch_norm=partial(nnx.BatchNorm, momentum=0.9, epsilon=1e-5, **settings),
        leaky_relu=partial(nnx.leaky_relu, negative_slope=0.2),
    )


def _adam(network: nnx.Module, own: AdamSpec) -> nnx.Optimizer:
    adam = optax.adam(own.learning_rate, own.beta1, own.beta2, own.epsilon)
    return nnx.Optimizer(network, adam, wrt=nnx.Param)


def batches_to_devices(
    state: Modules, real_images: Array, latents: Array
) -> tuple[jax.Array, jax.Array]:
    """Return a step's NumPy batches as `train_step` takes them."""
    batches = (np.asarray(batch, np.float32) for batch in (real_images, latents))
    return jax.device_put(tuple(batches), select_device(state.compute.device))


def train_step(
    state: TrainState, real_images: jax.Array, latents: jax.Array
) -> dict[str, jax.Array]:
    """Make one training step; returns its losses."""
    if state.step is None:
        optimizers = state.generator_optimizer, state.discriminator_optimizer
        state.step = nnx.cached_partial(_step, state.generator, state.discriminator, *optimizers)
    return state.step(real_images, latents)


@nnx.jit
def _step(
    generator: nnx.Module,
    discriminator: nnx.Module,
    generator_optimizer: nnx.Optimizer,
    discriminator_optimizer: nnx.Optimizer,
    real_images: jax.Array,
    latents: jax.Array,
) -> dict[str, jax.Array]:
    fake_images = generator(latents)

    def discriminator_loss(network: nnx.Module) -> tuple[jax.Array, tuple]:
        real = _cross_entropy(network(real_images), 1.0)
        fake = _cross_entropy(network(fake_images), 0.0)
        return real + fake, (real, fake)

    found, gradients = nnx.value_and_grad(discriminator_loss, has_aux=True)(discriminator)
    total, (real, fake) = found
    discriminator_optimizer.update(discriminator, gradients)

    def generator_loss(network: nnx.Module, judge: nnx.Module) -> jax.Array:
        return _cross_entropy(judge(network(latents)), 1.0)

    value, gradients = nnx.value_and_grad(generator_loss)(generator, discriminator)
    generator_optimizer.update(generator, gradients)
    return dict(zip(METRIC_NAMES, (total, real, fake, value), strict=True))


def _cross_entropy(scores: jax.Array, label: float) -> jax.Array:
    scores = scores.astype(jnp.float32)
    return optax.sigmoid_binary_cross_entropy(scores, jnp.full_like(scores, label)).mean()


def export_state(state: Modules) -> Arrays:
    """Return the arrays of the state by canonical name."""
    variables = checkpoint._variables(state)
    return {name: np.array(variables[name][...]) for name in state_shapes(state.spec)}


def import_state(state: Modules, arrays: Arrays) -> None:
    """Replace the arrays of the state."""
    for name, variable in checkpoint._variables(state).items():
        array = arrays[name.replace("/updates", "/step")]  # Flax' count beside Optax'
        variable[...] = jnp.asarray(array, variable[...].dtype)
    # All of the state, or the second step is compiled anew for what the first one has moved.
    held = (*(state.network(n) for n in NETWORKS), *(state.optimizer(n) for n in NETWORKS))
    nnx.update(held, jax.device_put(nnx.state(held), select_device(state.compute.device)))


def synchronize(state: Modules) -> float:
    """Wait for the device by reading back a number that depends on both updated networks."""
    networks = (state.generator, state.discriminator)
    return float(sum(jnp.sum(jax.tree.leaves(nnx.state(n, nnx.Param))[0]) for n in networks))
