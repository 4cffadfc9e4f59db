"""JAX's own functions, as `workloads.load` lists them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.plan.configuration import Request
from benchmarks.worker.exchanges import exchanges_of_step
from benchmarks.worker.workloads import Operation, create_workload
from shared.interface import load_implementation
from shared.spec import SystemSpec

create = create_workload


def configure(request: Request) -> None:
    """Import JAX, and allow TF32 only where it is asked for.

    The threads of its CPU client come from NPROC, which the launcher sets: there is no call.
    """
    load_implementation("jax")
    import jax

    from jax_impl import parallel, train

    if request.device == "gpu":
        products = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "default"}
        precision = products[request.configuration.precision]
        jax.config.update("jax_default_matmul_precision", precision)
    parallel.prepare_devices(request.device, request.configuration.devices)
    train.select_device(request.device)


def communication(request: Request, spec: SystemSpec, state: Any) -> Callable[[], None]:
    """Return what makes the exchanges of a step alone, one after another, and waits for them."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import PartitionSpec

    from jax_impl import parallel

    def exchange(values: list[Any]) -> list[Any]:
        results: list[Any] = []
        for value in values:
            # In a step each waits for the one before: the compiler must not make one of them all,
            # as it does even across optimization_barrier. They are zeros, so that the sum is too.
            own = value + results[-1][0] if results else value
            results.append(jax.lax.psum(own, parallel.AXIS))
        return results

    sizes, mesh = exchanges_of_step(spec), state.mesh
    whole = PartitionSpec()
    run = jax.jit(jax.shard_map(exchange, mesh=mesh, in_specs=whole, out_specs=whole))
    place = parallel.replicated(mesh)
    values = [
        jax.device_put(jnp.zeros(size, jnp.float32), place)
        for size in (*sizes.gathered, *sizes.reduced)
    ]
    return lambda: jax.block_until_ready(run(values))


def wait(request: Request) -> None:
    """Wait for every array on any device."""
    import jax

    jax.block_until_ready(jax.live_arrays())


def read_back(network: Any) -> dict[str, Any]:
    """Return platform, device, dtype, threads, layout and flags that are in use."""
    import jax
    from flax import nnx

    tree = nnx.state(network) if isinstance(network, nnx.Module) else network
    leaf = next(array for array in jax.tree.leaves(tree) if array.ndim > 1)
    place = next(iter(leaf.devices()))
    flags = ("jax_default_matmul_precision", "jax_enable_x64")
    return {
        "platform": "cpu" if place.platform == "cpu" else "gpu",
        "device": place.device_kind,
        "dtype": str(leaf.dtype),
        "threads": _xla_threads(),
        "layout": "channels_last",  # XLA lays arrays out as it likes; this is its input
        "flags": {name: str(jax.config.values[name]) for name in flags},
    }


def _xla_threads() -> int | None:
    """Return how many threads XLA's pool has, which the kernel knows; None beside Linux."""
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    return names.count("tf_XLAEigen") or None


def peak_device_bytes(request: Request) -> int | None:
    """Return the most bytes that arrays ever held on the GPU; None on a CPU."""
    import jax

    on_gpu = request.device == "gpu"
    return jax.devices("gpu")[0].memory_stats()["peak_bytes_in_use"] if on_gpu else None


def operations(request: Request) -> dict[str, Operation]:
    """Return a matrix product and a convolution of NumPy arrays, done by JAX on the device."""
    import jax
    import jax.numpy as jnp

    place = jax.devices(request.device)[0]
    convolve = jax.jit(
        lambda images, kernel: jax.lax.conv_general_dilated(
            images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    )

    def on_device(function: Callable[[Any, Any], Any]) -> Operation:
        return lambda *arrays: np.asarray(function(*(jax.device_put(a, place) for a in arrays)))

    return {"matmul": on_device(jax.jit(jnp.matmul)), "convolution": on_device(convolve)}


def products(request: Request, size: int) -> Callable[[int], None]:
    """Return what makes n products of two size x size matrices and waits for them."""
    import jax
    import jax.numpy as jnp

    place = jax.devices(request.device)[0]
    dtype = jnp.bfloat16 if request.configuration.precision == "bfloat16" else jnp.float32
    left = jax.device_put(np.full((size, size), 0.5, dtype), place)
    multiply = jax.jit(jnp.matmul)

    def run(count: int) -> None:
        for _ in range(count):
            result = multiply(left, left)
        jax.block_until_ready(result)

    return run


def additions(request: Request, length: int) -> Callable[[int], None]:
    """Return what adds a float32 array to another one n times, in place, and waits."""
    import jax
    import jax.numpy as jnp

    place = jax.devices(request.device)[0]
    total, summand = (jnp.ones(length, jnp.float32, device=place) for _ in range(2))
    add = jax.jit(jnp.add, donate_argnums=0)  # the result takes the place of the first array

    def run(count: int) -> None:
        nonlocal total
        for _ in range(count):
            total = add(total, summand)
        jax.block_until_ready(total)

    return run
