"""JAX as the benchmark uses it. These three files differ only in the framework."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.plan.request import Request
from benchmarks.worker import exchanges
from benchmarks.worker.feed import Feed
from benchmarks.worker.workloads import Framework, Operation, Workload, create_state, settings_of
from shared.interface import load_implementation
from shared.spec import SystemSpec


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


def create(spec: SystemSpec, seed: int, request: Request, feed: Feed) -> Workload:
    """Return JAX's training state with its batches."""
    from jax_impl import checkpoint, train

    state = create_state(train, spec, seed, request)
    inputs = feed.on_device(lambda batch: train.batches_to_devices(state, *batch))

    def step() -> dict[str, Any]:
        nonlocal state  # the step is a pure function: it returns the new state
        state, metrics = train.train_step(state, *next(inputs))
        return metrics

    def import_state(arrays: dict[str, np.ndarray]) -> None:
        nonlocal state
        state = checkpoint.import_state(state, arrays)

    return Workload(
        step=step,
        synchronize=lambda: train.synchronize(state),
        wait=lambda: wait(request, [state]),
        export_state=lambda: checkpoint.export_state(state),
        import_state=import_state,
        effective_settings=lambda: settings_of(state, **read_back(state.generator.parameters)),
        peak_device_bytes=lambda: peak_device_bytes(request),
        communicate=None if state.mesh is None else communication(spec, state.mesh),
    )


def communication(spec: SystemSpec, mesh: Any) -> Callable[[], None]:
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

    sizes = exchanges.of_step(spec)
    whole = PartitionSpec()
    run = jax.jit(jax.shard_map(exchange, mesh=mesh, in_specs=whole, out_specs=whole))
    place = parallel.replicated(mesh)
    count = [*sizes.gathered, *sizes.reduced]
    values = [jax.device_put(jnp.zeros(size, jnp.float32), place) for size in count]
    return lambda: jax.block_until_ready(run(values))


def wait(request: Request, networks: Sequence[Any]) -> None:
    """Wait for every array of the networks."""
    import jax

    jax.block_until_ready([_arrays(network) for network in networks])


def _arrays(network: Any) -> list[Any]:
    """Return the arrays of a network, which is a module or a tree of arrays."""
    import jax
    from flax import nnx

    return jax.tree.leaves(nnx.state(network) if isinstance(network, nnx.Module) else network)


def read_back(network: Any) -> dict[str, Any]:
    """Return platform, device, dtype, threads, layout and flags that are in use."""
    import jax

    leaf = next(array for array in _arrays(network) if array.ndim > 1)
    place = next(iter(leaf.devices()))
    flags = {
        "jax_default_matmul_precision": jax.config.values["jax_default_matmul_precision"],
        "jax_enable_x64": jax.config.values["jax_enable_x64"],
    }
    return {
        "platform": "cpu" if place.platform == "cpu" else "gpu",
        "device": place.device_kind,
        "dtype": str(leaf.dtype),
        "threads": _xla_threads(),
        "layout": "channels_last",  # XLA lays arrays out as it likes; this is what it is told
        "flags": {name: str(value) for name, value in flags.items()},
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
    total, part = (jnp.ones(length, jnp.float32, device=place) for _ in range(2))
    add = jax.jit(jnp.add, donate_argnums=0)  # the result takes the place of the first array

    def run(count: int) -> None:
        nonlocal total
        for _ in range(count):
            total = add(total, part)
        jax.block_until_ready(total)

    return run


FRAMEWORK = Framework(
    configure, create, operations, products, additions, wait, read_back, peak_device_bytes
)
