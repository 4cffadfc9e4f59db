"""The training state: both networks, both optimizers, and where they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array as Tensor
from jax.sharding import Mesh, Sharding

from shared.framework_adapter import ByNetwork
from shared.interface import Array
from shared.spec import SystemSpec
from shared.spec.compute import Compute, resolve, uses_gpu

from . import fast, parallel
from .layers import Adam, Layers, plain_layers

DTYPES = {"float32": jnp.float32, "float64": jnp.float64}
MODES = ("jit",)
"""jit: one compiled function for the whole step."""

Leaves = list[list[Tensor]]
"""The arrays of the generator, the discriminator and their optimizers, in the order of JAX."""


@dataclass
class Modules(ByNetwork):
    """Both networks and both optimizers as NNX has them: what a compiled function works on."""

    spec: SystemSpec
    compute: Compute
    generator: nnx.Module
    discriminator: nnx.Module
    generator_optimizer: Adam
    discriminator_optimizer: Adam

    @property
    def dtype(self) -> jnp.dtype:
        """The dtype of the weights."""
        return DTYPES[self.compute.dtype]

    def arrays(self) -> Leaves:
        """Return the arrays of all, as `TrainState` keeps them."""
        networks = (self.generator, self.discriminator)
        return leaves((*networks, self.generator_optimizer, self.discriminator_optimizer))


@dataclass
class TrainState:
    """Both networks and both optimizers of one system, whole on each of its devices.

    They are split into their settings and their arrays once, as the guide of Flax on performance
    has it: `nnx.jit` goes through the modules at every call, which takes longer than a small step
    (12 against 2 ms on a CPU). `device` is the first, or all of them as a sharding.
    """

    spec: SystemSpec
    compute: Compute
    device: jax.Device | Sharding
    settings: Settings
    arrays: Leaves

    @property
    def dtype(self) -> jnp.dtype:
        """The dtype of the weights."""
        return DTYPES[self.compute.dtype]


@dataclass(frozen=True)
class Settings:
    """What of a training state is no array: what a compiled function is compiled for."""

    spec: SystemSpec
    compute: Compute
    graph: nnx.GraphDef
    structure: jax.tree_util.PyTreeDef
    mesh: Mesh | None

    def __hash__(self) -> int:
        """Return the hash, which every step asks for and which takes a graph 0.6 ms."""
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.spec, self.compute, self.graph, self.mesh))

    def merge(self, arrays: Leaves) -> Modules:
        """Return the networks and the optimizers that have these arrays."""
        variables = jax.tree.unflatten(self.structure, jax.tree.leaves(arrays))
        # A copy: where nothing is compiled, an update would reach the arrays themselves.
        return Modules(self.spec, self.compute, *nnx.merge(self.graph, variables, copy=True))


def leaves(parts: Sequence[Any]) -> Leaves:
    """Return the arrays of each network and optimizer.

    Lists cost a step nothing, where JAX takes 0.5 ms to go through the variables of Flax.
    """
    return [jax.tree.leaves(nnx.state(part)) for part in parts]


def select_device(name: str) -> jax.Device:
    """Return the device for "cpu", "gpu" or "auto"; no GPU where one is asked for is an error."""
    return jax.devices("gpu" if uses_gpu(name, has_gpu()) else "cpu")[0]


def has_gpu() -> bool:
    """Whether JAX sees a GPU."""
    try:
        return bool(jax.devices("gpu"))
    except RuntimeError:  # no platform of this kind
        return False


def check_compute(spec: SystemSpec, compute: Compute) -> Compute:
    """Return `compute` with its device and mode; what cannot be had is a ValueError."""
    compute = resolve(compute, spec, modes=MODES, has_gpu=has_gpu())
    if compute.dtype == "float64" and not jax.config.values["jax_enable_x64"]:
        raise ValueError("float64 in JAX needs x64; enter `with jax.enable_x64(True):` first")
    return compute


def choose_layers(compute: Compute) -> Layers:
    """Return the layers that networks are made of."""
    dtype = DTYPES[compute.dtype]
    dtypes = (dtype, jnp.bfloat16 if compute.precision == "bfloat16" else dtype)
    layers = fast.fast_layers(*dtypes, compute) if compute.fast else plain_layers(*dtypes)
    if compute.batch_norm == "per-replica":
        kind = partial(parallel.PerReplicaBatchNorm, replicas=compute.devices)
        layers = layers._replace(batch_norm=partial(kind, param_dtype=dtype, dtype=dtypes[1]))
    return layers


def batches_to_devices(
    state: TrainState, real_images: Array, latents: Array
) -> tuple[Tensor, Tensor]:
    """Return a step's NumPy batches as `train_step` takes them, sharded among the devices."""
    mesh = state.settings.mesh
    if mesh is None:
        return images_to_device(state, real_images), latents_to_device(state, latents)
    place = parallel.sharded(mesh)
    images, rows = (array.astype(state.dtype, copy=False) for array in (real_images, latents))
    return parallel.put(images, place), parallel.put(rows, place)


def images_to_device(state: TrainState, images: Array) -> Tensor:
    """Return NumPy images NHWC as `discriminate` takes them, whole on the first device."""
    return _to_device(state, images)


def latents_to_device(state: TrainState, latents: Array) -> Tensor:
    """Return NumPy latents [batch, latent_dim] as `generate` takes them, on the first device."""
    return _to_device(state, latents)


def _to_device(state: TrainState, array: Array) -> Tensor:
    return parallel.put(array.astype(state.dtype, copy=False), state.device)


def images_to_numpy(images: Tensor) -> Array:
    """Return images as NumPy NHWC."""
    return np.array(images)


def synchronize(state: TrainState) -> float:
    """Wait for the device by reading back one number that depends on both updated networks."""
    generator, discriminator, *_ = state.arrays
    return float(jnp.sum(generator[0]) + jnp.sum(discriminator[0]))
