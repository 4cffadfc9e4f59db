"""A stock Flax NNX step: nnx.BatchNorm, nnx.Optimizer, two value_and_grads.

The jitted step takes and returns its modules' arrays, the functional loop of Flax' guide on
performance. G runs twice in a step, to give D its images and inside G's own loss, as in most
public code.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from jax_impl.checkpoint import Parts, import_state, state_of_parts
from jax_impl.layers import Layers, plain_layers
from jax_impl.models import create_models
from jax_impl.state import Leaves, Settings, TrainState, batches_to_devices
from shared.interface import METRIC_NAMES
from shared.spec import NETWORKS, AdamSpec, Conventions, SystemSpec
from shared.spec.compute import Compute
from shared.spec.streams import initial_state

__all__ = ["batches_to_devices", "create_train_state", "train_step"]

CONVENTIONS = Conventions(batch_norm_running_variance="biased")
"""Where nnx's own layers depart from the spec."""
GENERATOR_BATCH = "same_latents"
"""G makes its images anew from the same latents."""


def create_train_state(spec: SystemSpec, compute: Compute, *, seed: int = 0) -> TrainState:
    """Return a fresh state."""
    dtype = jnp.bfloat16 if compute.precision == "bfloat16" else jnp.float32

    def create() -> Parts:
        networks: Any = create_models(spec, _layers(dtype))
        return (*networks, *map(_adam, networks, map(spec.adam, NETWORKS)))

    state = state_of_parts(spec, compute, create)
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


def train_step(
    state: TrainState, real_images: jax.Array, latents: jax.Array
) -> dict[str, jax.Array]:
    """Make one training step; returns its losses."""
    state.arrays, losses = _step(state.settings, state.arrays, real_images, latents)
    return losses


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _step(
    settings: Settings, arrays: Leaves, real_images: jax.Array, latents: jax.Array
) -> tuple[Leaves, dict[str, jax.Array]]:
    modules = settings.merge(arrays)
    generator, discriminator = modules.generator, modules.discriminator
    fake_images = generator(latents)

    def discriminator_loss(network: nnx.Module) -> tuple[jax.Array, tuple]:
        real = _cross_entropy(network(real_images), 1.0)
        fake = _cross_entropy(network(fake_images), 0.0)
        return real + fake, (real, fake)

    found, gradients = nnx.value_and_grad(discriminator_loss, has_aux=True)(discriminator)
    total, (real, fake) = found
    modules.discriminator_optimizer.update(discriminator, gradients)

    def generator_loss(network: nnx.Module, judge: nnx.Module) -> jax.Array:
        return _cross_entropy(judge(network(latents)), 1.0)

    value, gradients = nnx.value_and_grad(generator_loss)(generator, discriminator)
    modules.generator_optimizer.update(generator, gradients)
    losses = dict(zip(METRIC_NAMES, (total, real, fake, value), strict=True))
    return modules.arrays(), losses


def _cross_entropy(scores: jax.Array, label: float) -> jax.Array:
    scores = scores.astype(jnp.float32)
    return optax.sigmoid_binary_cross_entropy(scores, jnp.full_like(scores, label)).mean()
