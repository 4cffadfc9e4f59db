"""Several devices: one jit over a mesh of them, to which the compiler adds all exchanges.

So batch statistics are global by themselves. Source: Xu et al. 2021, "GSPMD".
"""

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array as Tensor
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from shared.interface import Array
from shared.spec.compute import require_devices

from . import cluster, fast, layers

AXIS = "replicas"


def prepare_devices(device: str, devices: int) -> None:
    """Have enough devices of all hosts, after `cluster.connect`; ValueError if there are not."""
    hosts = cluster.hosts()
    if devices % hosts:
        raise ValueError(f"--devices {devices} cannot be divided among {hosts} hosts")
    fast.keep_memory()
    # Once JAX has started it refuses; whether it has enough devices is seen below.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", devices // hosts)
    mesh_of(device, devices)


def mesh_of(device: str, devices: int) -> Mesh | None:
    """Return a mesh of so many devices of a kind; None for one device."""
    if devices == 1:
        return None
    kind = jax.default_backend() if device == "auto" else device
    try:
        available = jax.devices(kind)
    except RuntimeError:  # no platform of this kind
        available = []
    require_devices("JAX", devices, len(available), kind)
    return Mesh(np.array(available[:devices]), (AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the place of what is whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def sharded(mesh: Mesh) -> NamedSharding:
    """Return the place of a batch, of which every device has its rows."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def put(array: Array, place: jax.Device | Sharding) -> jax.Array:
    """Return an array, which every host has whole, on the devices."""
    if isinstance(place, NamedSharding):
        return jax.make_array_from_callback(array.shape, place, lambda index: array[index])
    return jax.device_put(array, place)


class PerReplicaBatchNorm(layers.BatchNorm):
    """Normalises each replica's rows by their own statistics; the running ones take the mean."""

    def __init__(self, features: int, *, replicas: int, **options: Any) -> None:
        super().__init__(features, **options)
        self.replicas = replicas

    def by_batch(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return x normalised replica by replica, and the means of the statistics."""
        rows = x.reshape(self.replicas, -1, *x.shape[1:])
        y, *statistics = jax.vmap(super().by_batch)(rows)
        mean, variance = (jnp.mean(s, axis=0) for s in statistics)
        return y.reshape(x.shape), mean, variance
