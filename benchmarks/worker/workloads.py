"""What is timed: the own `train_step` of an implementation, or a baseline, and its batches."""

import importlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.plan.configuration import DTYPE, Request
from shared.data.dataset import Batches, load_dataset
from shared.interface import Array, Arrays
from shared.spec import SystemSpec
from shared.spec.compute import Compute
from shared.spec.streams import latents, stream

ROTATION = 3  # batches, so that no step sees the images of the step before

Batch = tuple[Array, Array]
"""Real images NHWC and latents [count, latent_dim] of one step, both float32."""
Operation = Callable[[Array, Array], Array]


class RowError(Exception):
    """What ends a row: its status, and a message that holds the reason."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Workload:
    """One state in training.

    `step` makes a step on the next batch and returns its losses, on the device and perhaps not
    computed yet. `synchronize` waits by reading back a number that depends on both updated
    networks; `wait` waits by the framework's own barrier, on which the sync contract is tested.
    `export_state` and `import_state` are those of an implementation. `effective_settings` reads
    back what is in use, `peak_device_bytes` the framework's own figure for a GPU (None on a CPU).
    `communicate` makes the exchanges of a step alone (`costs.exchanges_of_step`) and waits for
    them; None on one device.
    """

    step: Callable[[], dict[str, Any]]
    synchronize: Callable[[], float]
    wait: Callable[[], None]
    export_state: Callable[[], Arrays]
    import_state: Callable[[Arrays], None]
    effective_settings: Callable[[], dict[str, Any]]
    peak_device_bytes: Callable[[], int | None]
    communicate: Callable[[], None] | None = None


def baseline(framework: str) -> Any:
    """Return the module of a framework's baseline."""
    return importlib.import_module(f"benchmarks.baselines.{framework}_baseline")


def operations(framework: Any, request: Request) -> dict[str, Operation]:
    """Return OPERATIONS of NumPy arrays, under the settings in force: for the precision probe."""

    def on_device(function: Callable[..., Any]) -> Operation:
        return lambda *arrays: np.asarray(
            function(*(framework.to_device(request, a) for a in arrays))
        )

    return {name: on_device(function) for name, function in framework.OPERATIONS.items()}


def create_workload(
    framework: Any, spec: SystemSpec, seed: int, request: Request, batch: Batch | None = None
) -> Workload:
    """Return a training state of ours, or of the baseline, by a framework's module."""
    asked = request.configuration
    names = (f"{asked.framework}_impl.{name}" for name in ("train", "checkpoint", "state"))
    train, checkpoint, places = map(importlib.import_module, names)
    if asked.implementation == "baseline":
        train = baseline(asked.framework)
    device, on_gpu = request.plan.device, request.plan.device == "gpu"
    compute = Compute(DTYPE, asked.precision, asked.mode, device, asked.devices)
    state = train.create_train_state(spec, compute, seed=seed)
    inputs = batches(request, lambda one: train.batches_to_devices(state, *one), batch)
    return Workload(
        step=lambda: train.train_step(state, *next(inputs)),
        synchronize=lambda: places.synchronize(state),
        wait=lambda: framework.wait(request),
        export_state=lambda: checkpoint.export_state(state),
        import_state=lambda arrays: checkpoint.import_state(state, arrays),
        effective_settings=lambda: {"mode": state.compute.mode} | framework.read_back(state),
        peak_device_bytes=framework.peak_device_bytes if on_gpu else lambda: None,
        communicate=framework.communication(request, spec, state) if asked.devices > 1 else None,
    )


def batches(
    request: Request, move: Callable[[Batch], Any], only: Batch | None = None
) -> Iterator[Any]:
    """Return an endless run of batches as `move` moves them to the device; or of `only` one.

    Those that stay on the device are moved once, the others when their step comes. Raises
    InputError where the images of the loader cannot be loaded.
    """
    if only is not None:
        return itertools.repeat(move(only))
    spec, plan, source = request.spec, request.plan, request.configuration.input

    def z(step: int) -> Array:
        count = spec.latent_batches * spec.batch_size
        return latents(spec, plan.seed, step, count).astype(np.float32)

    if source == "loader":
        loader = Batches(load_dataset(plan.data, spec).images, spec, plan.seed)
        # As a training command in each step: images in a new order, new latents.
        return (move((loader.images(i), z(i))) for i in itertools.count())
    shape = (spec.discriminator_steps * spec.batch_size, *spec.image_shape)
    rotation = []
    for i in range(ROTATION):
        images = stream(plan.seed, "benchmark_images", i).uniform(*spec.image_range, shape)
        rotation.append((images.astype(np.float32), z(i)))
    if source == "device":
        return itertools.cycle([move(one) for one in rotation])
    return map(move, itertools.cycle(rotation))
