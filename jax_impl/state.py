"""The training state: both networks, both optimizers, and where they are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, Sharding

from jax_impl.checkpoint import import_state
from jax_impl.layers import BatchNorm, adam
from jax_impl.models import create_models
from jax_impl.parallel import divided, mesh_of, put, replicated
from shared.spec import AdamSpec, NetworkName, SystemSpec
from shared.spec.precision import PRECISIONS, check_mode, check_precision
from shared.spec.replicas import check_replicas
from shared.spec.streams import initial_state

__all__ = [
    "MODES",
    "PRECISIONS",
    "TrainState",
    "batches_to_devices",
    "create_train_state",
    "images_to_device",
    "images_to_numpy",
    "latents_to_device",
    "select_device",
    "synchronize",
]

DTYPES = {"float32": jnp.float32, "float64": jnp.float64}
MODES = ("jit",)
"""jit: one compiled function for the whole step."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["parameters", "statistics", "optimizer_state"],
    meta_fields=["graph", "settings"],
)
@dataclass(frozen=True)
class NetworkState:
    """One network: its graph (static), parameters, BN statistics and Adam's state."""

    graph: nnx.GraphDef
    settings: AdamSpec
    parameters: nnx.State
    statistics: nnx.State
    optimizer_state: optax.OptState


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["generator", "discriminator"],
    meta_fields=["spec", "precision", "mode", "mesh"],
)
@dataclass(frozen=True)
class TrainState:
    """Both networks and both optimizers of one system, whole on each of its devices.

    `mesh`: the devices, if there are several.
    """

    spec: SystemSpec
    generator: NetworkState
    discriminator: NetworkState
    precision: str = "float32"
    mode: str = "jit"
    mesh: Mesh | None = None

    def network(self, name: NetworkName) -> NetworkState:
        """Return a network by its name."""
        return self.generator if name == "generator" else self.discriminator

    @property
    def placement(self) -> tuple[jnp.dtype, jax.Device | Sharding]:
        """The dtype of the parameters and the place that holds them."""
        leaf = jax.tree.leaves(self.generator.parameters)[0]
        if self.mesh is not None:
            return leaf.dtype, replicated(self.mesh)
        return leaf.dtype, next(iter(leaf.devices()))


def select_device(name: str) -> jax.Device:
    """Return the device for "cpu", "gpu" or "auto"; no GPU where one is asked for is an error."""
    if name not in ("auto", "cpu", "gpu"):
        raise ValueError(f"unknown device {name!r}; expected auto, cpu or gpu")
    if name == "auto":
        return jax.devices()[0]
    try:
        return jax.devices(name)[0]
    except RuntimeError as error:
        raise ValueError(
            f"device {name} was asked for, but JAX sees none; use --device cpu"
        ) from error


def create_train_state(
    spec: SystemSpec,
    *,
    seed: int = 0,
    dtype: str = "float32",
    device: str = "cpu",
    precision: str = "float32",
    mode: str | None = None,
    devices: int = 1,
    batch_norm: str = "global",
) -> TrainState:
    """Return a fresh state: the weights that `seed` stands for in every framework.

    `precision`: one of `shared.spec.precision.PRECISIONS`. `mode`: one of MODES, None for jit.
    `devices`, `batch_norm`: see `shared.spec.replicas`.
    """
    check_replicas(spec, devices, batch_norm)
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; expected one of {', '.join(DTYPES)}")
    if dtype == "float64" and jax.dtypes.canonicalize_dtype(jnp.float64) != jnp.float64:
        raise ValueError("float64 in JAX needs x64; enter `with jax.enable_x64(True):` first")
    place, mode = select_device(device), mode or "jit"
    check_precision(precision, spec, dtype=dtype, on_gpu=place.platform == "gpu")
    check_mode(mode, MODES)
    compute_dtype = jnp.bfloat16 if precision == "bfloat16" else None
    # Abstract networks hold shapes alone: no initial weights are drawn to be thrown away.
    generator, discriminator = nnx.eval_shape(
        lambda: create_models(spec, DTYPES[dtype], compute_dtype)
    )
    if batch_norm == "per-replica":
        _divide_batch_norm(generator, devices)
        _divide_batch_norm(discriminator, devices)
    mesh = mesh_of(device, devices)
    abstract = TrainState(
        spec,
        _network_state(generator, spec.generator_optimizer),
        _network_state(discriminator, spec.discriminator_optimizer),
        precision,
        mode,
        mesh,
    )
    return import_state(
        abstract, initial_state(spec, seed), replicated(mesh) if mesh is not None else place
    )


def _divide_batch_norm(network: nnx.Module, replicas: int) -> None:
    for layer in vars(network).values():
        if isinstance(layer, BatchNorm):
            layer.replicas = replicas


def _network_state(network: nnx.Module, settings: AdamSpec) -> NetworkState:
    graph, *states = nnx.split(network, nnx.Param, nnx.BatchStat)
    parameters, statistics = states
    optimizer_state = jax.eval_shape(adam(settings).init, parameters)
    return NetworkState(graph, settings, parameters, statistics, optimizer_state)


def batches_to_devices(
    state: TrainState, real_images: np.ndarray, latents: np.ndarray
) -> tuple[jax.Array, jax.Array]:
    """Return a step's NumPy batches as `train_step` takes them, divided among the devices."""
    if state.mesh is None:
        return images_to_device(state, real_images), latents_to_device(state, latents)
    dtype, place = state.placement[0], divided(state.mesh)
    images, rows = (array.astype(dtype, copy=False) for array in (real_images, latents))
    return put(images, place), put(rows, place)


def images_to_device(state: TrainState, images: np.ndarray) -> jax.Array:
    """Return NumPy images NHWC as `train_step` takes them."""
    return _to_device(state, images)


def latents_to_device(state: TrainState, latents: np.ndarray) -> jax.Array:
    """Return NumPy latents [batch, latent_dim] as `train_step` takes them."""
    return _to_device(state, latents)


def _to_device(state: TrainState, array: np.ndarray) -> jax.Array:
    dtype, place = state.placement
    return put(array.astype(dtype, copy=False), place)


def images_to_numpy(images: jax.Array) -> np.ndarray:
    """Return images as NumPy NHWC."""
    return np.array(images)


def synchronize(state: TrainState) -> float:
    """Wait for the device by reading back one number that depends on both updated networks."""
    networks = (state.generator, state.discriminator)
    return float(sum(jnp.sum(jax.tree.leaves(n.parameters)[0]) for n in networks))
