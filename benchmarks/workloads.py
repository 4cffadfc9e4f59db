"""One training step of each framework as the benchmark calls it: data on the device, no NumPy.

Each framework has two plain functions: `configure_*` imports it and applies the settings that
must come before anything else, `*_workload` builds a state and its inputs. They differ only in
how a framework is asked; what is timed is the implementation's own `train_step`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks.request import DeviceName
from shared.interface import load_implementation
from shared.spec import SystemSpec

Batch = tuple[np.ndarray, np.ndarray]
"""Real images NHWC and latents [count, latent_dim] of one step, as `train_step` takes them."""


@dataclass(frozen=True)
class Workload:
    """One state in training.

    `step` makes a step on the next batch in rotation and returns its losses, on the device and
    perhaps not computed yet. `synchronize` waits by reading back a number that depends on both
    updated networks. `export_state` returns the arrays of the state by canonical name and
    `import_state` replaces them.
    `effective_settings` reads back what is really in use, `peak_device_bytes` the framework's own
    figure for a GPU (None on a CPU).
    """

    step: Callable[[], dict[str, Any]]
    synchronize: Callable[[], float]
    export_state: Callable[[], dict[str, np.ndarray]]
    import_state: Callable[[dict[str, np.ndarray]], None]
    effective_settings: Callable[[], dict[str, Any]]
    peak_device_bytes: Callable[[], int | None]


@dataclass(frozen=True)
class Framework:
    """The two functions of a framework.

    `configure(device, threads)` raises MissingFrameworkError where it is not installed and
    ValueError where it sees no such device.
    """

    configure: Callable[[DeviceName, int], None]
    create: Callable[[SystemSpec, int, str, DeviceName, Sequence[Batch]], Workload]


def _rotation(train: ModuleType, state: Any, batches: Sequence[Batch]) -> Iterator[tuple[Any, Any]]:
    """Put batches on the state's device and return them over and over."""
    return itertools.cycle(
        [(train.images_to_device(state, x), train.latents_to_device(state, z)) for x, z in batches]
    )


def configure_pytorch(device: DeviceName, threads: int) -> None:
    """Import PyTorch, set its threads, and forbid TF32: float32 means float32."""
    load_implementation("pytorch")
    import torch

    from pytorch_impl import train

    torch.set_num_threads(threads)
    if device == "gpu":
        torch.backends.cuda.matmul.fp32_precision = "ieee"
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    train.select_device(device)


def pytorch_workload(
    spec: SystemSpec, seed: int, dtype: str, device: DeviceName, batches: Sequence[Batch]
) -> Workload:
    """Return PyTorch's training state with its batches on the device."""
    import torch

    from pytorch_impl import checkpoint, train

    state = train.create_train_state(spec, seed=seed, dtype=dtype, device=device)
    inputs = _rotation(train, state, batches)

    def effective_settings() -> dict[str, Any]:
        weight = next(state.generator.parameters())
        on_gpu = weight.is_cuda
        return {
            "platform": "gpu" if on_gpu else "cpu",
            "device": torch.cuda.get_device_name() if on_gpu else str(weight.device),
            "dtype": str(weight.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
        }

    return Workload(
        step=lambda: train.train_step(state, *next(inputs)),
        synchronize=lambda: train.synchronize(state),
        export_state=lambda: checkpoint.export_state(state),
        import_state=lambda arrays: checkpoint.import_state(state, arrays),
        effective_settings=effective_settings,
        peak_device_bytes=lambda: torch.cuda.max_memory_allocated() if device == "gpu" else None,
    )


def configure_tf(device: DeviceName, threads: int) -> None:
    """Import TensorFlow, set its threads, and forbid TF32: float32 means float32."""
    load_implementation("tf")
    import tensorflow as tf

    from tf_impl import train

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    if device == "gpu":
        tf.config.experimental.enable_tensor_float_32_execution(False)
    train.select_device(device)


def tf_workload(
    spec: SystemSpec, seed: int, dtype: str, device: DeviceName, batches: Sequence[Batch]
) -> Workload:
    """Return TensorFlow's training state with its batches on the device."""
    import tensorflow as tf

    from tf_impl import checkpoint, train

    state = train.create_train_state(spec, seed=seed, dtype=dtype, device=device)
    inputs = _rotation(train, state, batches)

    def effective_settings() -> dict[str, Any]:
        weight = state.generator.trainable_variables[0].value
        return {
            "platform": "gpu" if "GPU" in weight.device else "cpu",
            "device": weight.device,
            "dtype": weight.dtype.name,
            "threads": tf.config.threading.get_intra_op_parallelism_threads(),
        }

    return Workload(
        step=lambda: train.train_step(state, *next(inputs)),
        synchronize=lambda: train.synchronize(state),
        export_state=lambda: checkpoint.export_state(state),
        import_state=lambda arrays: checkpoint.import_state(state, arrays),
        effective_settings=effective_settings,
        peak_device_bytes=lambda: (
            tf.config.experimental.get_memory_info("GPU:0")["peak"] if device == "gpu" else None
        ),
    )


def configure_jax(device: DeviceName, threads: int) -> None:
    """Import JAX, and forbid TF32: float32 means float32.

    The threads of its CPU client come from NPROC, which the launcher sets: there is no call.
    """
    load_implementation("jax")
    import jax

    from jax_impl import train

    if device == "gpu":
        jax.config.update("jax_default_matmul_precision", "highest")
    train.select_device(device)


def jax_workload(
    spec: SystemSpec, seed: int, dtype: str, device: DeviceName, batches: Sequence[Batch]
) -> Workload:
    """Return JAX's training state with its batches on the device."""
    from jax_impl import checkpoint, train

    state = train.create_train_state(spec, seed=seed, dtype=dtype, device=device)
    inputs = _rotation(train, state, batches)

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
        export_state=lambda: checkpoint.export_state(state),
        import_state=import_state,
        effective_settings=lambda: _jax_settings(*state.placement),
        peak_device_bytes=lambda: (
            state.placement[1].memory_stats()["peak_bytes_in_use"] if device == "gpu" else None
        ),
    )


def _jax_settings(dtype: Any, place: Any) -> dict[str, Any]:
    return {
        "platform": "cpu" if place.platform == "cpu" else "gpu",
        "device": place.device_kind,
        "dtype": str(np.dtype(dtype)),
        "threads": _xla_threads(),
    }


def _xla_threads() -> int | None:
    """Return how many threads XLA's pool has, which the kernel knows; None beside Linux."""
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    return names.count("tf_XLAEigen") or None


FRAMEWORKS: dict[str, Framework] = {
    "pytorch": Framework(configure_pytorch, pytorch_workload),
    "tf": Framework(configure_tf, tf_workload),
    "jax": Framework(configure_jax, jax_workload),
}
