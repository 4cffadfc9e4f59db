"""JAX's own functions, as `main.load` lists them."""

import itertools
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from benchmarks.plan.configuration import Request
from benchmarks.plan.costs import exchanges_of_step
from benchmarks.worker.workloads import create_workload
from jax_impl import parallel
from jax_impl.state import TrainState, select_device
from jax_impl.train import PRODUCTS
from shared.interface import Array
from shared.spec import SystemSpec

create = partial(create_workload, sys.modules[__name__])


def configure(request: Request) -> None:
    """Allow TF32 only where it is asked for; `run_worker` sets the threads, by NPROC."""
    if request.plan.device == "gpu":
        products = PRODUCTS[request.configuration.precision]
        jax.config.update("jax_default_matmul_precision", products)
    parallel.prepare_devices(request.plan.device, request.configuration.devices)
    select_device(request.plan.device)


def communication(request: Request, spec: SystemSpec, state: TrainState) -> Callable[[], None]:
    """Return what makes the exchanges of a step alone, one after another, and waits for them."""

    def exchange(values: list[Any]) -> list[Any]:
        results: list[Any] = []
        for value in values:
            # In a step each waits for the one before: the compiler must not make one of them all,
            # as it does even across optimization_barrier. They are zeros, so that the sum is too.
            own = value + results[-1][0] if results else value
            results.append(jax.lax.psum(own, parallel.AXIS))
        return results

    mesh, whole = state.settings.mesh, PartitionSpec()
    assert mesh is not None
    run = jax.jit(jax.shard_map(exchange, mesh=mesh, in_specs=whole, out_specs=whole))
    zeros = [jnp.zeros(size, jnp.float32) for size in itertools.chain(*exchanges_of_step(spec))]
    values = jax.device_put(zeros, parallel.replicated(mesh))
    return lambda: jax.block_until_ready(run(values))


def wait(request: Request) -> None:
    """Wait for every array on any device."""
    jax.block_until_ready(jax.live_arrays())


def read_back(state: TrainState) -> dict[str, Any]:
    """Return platform, device, dtype, threads, layout and flags that are in use."""
    leaf = next(array for array in jax.tree.leaves(state.arrays) if array.ndim > 1)
    place = next(iter(leaf.devices()))
    threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    flags = ("jax_default_matmul_precision", "jax_enable_x64")
    return {
        "platform": "cpu" if place.platform == "cpu" else "gpu",
        "device": place.device_kind,
        "dtype": str(leaf.dtype),
        "threads": threads.count("tf_XLAEigen") or None,  # of XLA's pool; None beside Linux
        "layout": "channels_last",  # XLA lays arrays out as it likes; this is its input
        "flags": {name: str(jax.config.values[name]) for name in flags},
    }


def forget_peak(request: Request) -> None:
    """Do nothing: JAX counts the peak of a process; the narrow step before is far below it."""


def peak_device_bytes() -> int:
    """Return the most bytes that arrays ever held on the GPU."""
    return jax.devices("gpu")[0].memory_stats()["peak_bytes_in_use"]


def to_device(request: Request, array: Array, dtype: str = "float32") -> jax.Array:
    """Return an array on the device."""
    return jnp.asarray(array, dtype, device=select_device(request.plan.device))


_SETTINGS: Any = {"padding": "SAME", "dimension_numbers": ("NHWC", "HWIO", "NHWC")}
_convolve = partial(jax.lax.conv_general_dilated, window_strides=(2, 2), **_SETTINGS)
OPERATIONS = {"matmul": jnp.matmul, "convolution": _convolve}


def addition(request: Request, length: int) -> Callable[[], Any]:
    """Return what adds a float32 array to another one, in place."""
    place = select_device(request.plan.device)
    # Made by JAX: an array of NumPy's that it borrowed would not give its place to the result.
    total, summand = (jnp.ones(length, jnp.float32, device=place) for _ in range(2))
    add = jax.jit(jnp.add, donate_argnums=0)  # the result takes the place of the first array

    def once() -> None:
        nonlocal total
        total = add(total, summand)

    return once
