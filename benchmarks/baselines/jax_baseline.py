"""A stock Flax NNX step: nnx.jit, nnx.BatchNorm, nnx.Optimizer, two value_and_grads.

G runs twice in a step, once to give the discriminator its images and once inside G's own loss, as
in most public JAX code.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jax_impl.layers import Layers, plain_layers
from jax_impl.models import create_models
from jax_impl.state import select_device
from shared.spec import NETWORKS, AdamSpec, Conventions, SystemSpec, optimizer_name
from shared.spec.streams import initial_state

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

CONVENTIONS = Conventions(batch_norm_running_variance="biased")
"""Where nnx's own layers depart from the spec."""


def _layers(dtype: jnp.dtype) -> Layers:
    """Return Flax' own layers; `plain_layers` has its convolutions already."""
    settings = {"dtype": dtype, "param_dtype": jnp.float32, "rngs": nnx.Rngs(0)}
    return plain_layers(jnp.float32, dtype)._replace(
        batch_norm=partial(nnx.BatchNorm, momentum=0.9, epsilon=1e-5, **settings),
        leaky_relu=partial(nnx.leaky_relu, negative_slope=0.2),
    )


@dataclass
class BaselineState:
    """The networks, the optimizers and the device."""

    spec: SystemSpec
    device: jax.Device
    networks: dict[str, Any]
    optimizers: dict[str, nnx.Optimizer]


def spec_of(spec: SystemSpec) -> SystemSpec:
    """Return the system that this step trains: G makes its images anew from the same latents."""
    return spec.replace(generator_batch="same_latents")


def create(
    spec: SystemSpec, seed: int, device: str, threads: int, precision: str = "float32"
) -> BaselineState:
    """Return a fresh state. Raises ValueError for another system than dcgan64 with loss bce.

    `threads` is XLA's to know before it starts, so nothing is done with it here.
    """
    if (spec.architecture, spec.loss) != ("dcgan64", "bce"):
        raise ValueError(f"the baseline trains dcgan64 with bce, received {spec.name}, {spec.loss}")
    dtype = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
    place = select_device(device)
    with jax.default_device(place):
        networks: dict[str, Any] = dict(
            zip(NETWORKS, create_models(spec, _layers(dtype)), strict=True)
        )
        optimizers: dict[str, nnx.Optimizer] = {
            name: nnx.Optimizer(network, _adam(getattr(spec, f"{name}_optimizer")), wrt=nnx.Param)
            for name, network in networks.items()
        }
    state = BaselineState(spec, place, networks, optimizers)
    import_state(state, initial_state(spec, seed))
    return state


def _adam(settings: AdamSpec) -> optax.GradientTransformation:
    return optax.adam(
        settings.learning_rate, b1=settings.beta1, b2=settings.beta2, eps=settings.epsilon
    )


def images_to_device(state: BaselineState, images: np.ndarray) -> jax.Array:
    """Return NumPy images NHWC as `step` takes them."""
    return jax.device_put(images.astype(np.float32, copy=False), state.device)


def latents_to_device(state: BaselineState, latents: np.ndarray) -> jax.Array:
    """Return NumPy latents [batch, latent_dim] as `step` takes them."""
    return jax.device_put(latents.astype(np.float32, copy=False), state.device)


def step(state: BaselineState, real_images: jax.Array, latents: jax.Array) -> dict[str, jax.Array]:
    """Make one training step; returns its losses."""
    return _step(
        state.networks["generator"],
        state.networks["discriminator"],
        state.optimizers["generator"],
        state.optimizers["discriminator"],
        real_images,
        latents,
    )


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

    (total, (real, fake)), gradients = nnx.value_and_grad(discriminator_loss, has_aux=True)(
        discriminator
    )
    discriminator_optimizer.update(discriminator, gradients)

    def generator_loss(network: nnx.Module, judge: nnx.Module) -> jax.Array:
        return _cross_entropy(judge(network(latents)), 1.0)

    value, gradients = nnx.value_and_grad(generator_loss)(generator, discriminator)
    generator_optimizer.update(generator, gradients)
    return {
        "discriminator_loss": total,
        "discriminator_loss_real": real,
        "discriminator_loss_fake": fake,
        "generator_loss": value,
    }


def _cross_entropy(scores: jax.Array, label: float) -> jax.Array:
    scores = scores.astype(jnp.float32)
    return optax.sigmoid_binary_cross_entropy(scores, jnp.full_like(scores, label)).mean()


def export_state(state: BaselineState) -> dict[str, np.ndarray]:
    """Return the arrays of the state by canonical name."""
    return {name: np.array(variable[...]) for name, variable in _variables(state).items()}


def import_state(state: BaselineState, arrays: dict[str, np.ndarray]) -> None:
    """Replace the arrays of the state."""
    for name, variable in _variables(state).items():
        value = jnp.asarray(arrays[name], variable[...].dtype)
        variable[...] = jax.device_put(value, state.device)


def _variables(state: BaselineState) -> dict[str, nnx.Variable]:
    """Return every variable of the state by canonical name."""
    found: dict[str, nnx.Variable] = {}
    for network in NETWORKS:
        moments = state.optimizers[network].opt_state[0]
        for name, parameter in state.spec.parameters(network).items():
            _, layer, own = name.split("/")
            found[name] = getattr(getattr(state.networks[network], layer), own)
            if parameter.trainable:
                found[optimizer_name(name, "m")] = moments.mu[layer][own]
                found[optimizer_name(name, "v")] = moments.nu[layer][own]
        found[f"{network}_optimizer/step"] = moments.count
    return found


def synchronize(state: BaselineState) -> float:
    """Wait for the device by reading back a number that depends on both updated networks."""
    leaves = [jax.tree.leaves(nnx.state(n, nnx.Param))[0] for n in state.networks.values()]
    return float(sum(jnp.sum(leaf) for leaf in leaves))
