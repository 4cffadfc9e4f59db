"""What is timed: the own `train_step` of an implementation, or a baseline, on batches of a feed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks.plan import host
from benchmarks.plan.configuration import DTYPE, Request
from benchmarks.worker.feed import Batch, Feed
from shared.spec import SystemSpec
from shared.spec.compute import Compute

Operation = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Workload:
    """One state in training.

    `step` makes a step on the next batch and returns its losses, on the device and perhaps not
    computed yet. `synchronize` waits by reading back a number that depends on both updated
    networks; `wait` waits by the framework's own barrier, on which the sync contract is tested.
    `export_state` returns the arrays of the state by canonical name and `import_state` replaces
    them. `effective_settings` reads back what is really in use, `peak_device_bytes` the
    framework's own figure for a GPU (None on a CPU). `communicate` makes the exchanges of a step
    alone (`exchanges`) and waits for them; None on one device. `peak_resident_bytes` is the
    memory of every process that takes part.
    """

    step: Callable[[], dict[str, Any]]
    synchronize: Callable[[], float]
    wait: Callable[[], None]
    export_state: Callable[[], dict[str, np.ndarray]]
    import_state: Callable[[dict[str, np.ndarray]], None]
    effective_settings: Callable[[], dict[str, Any]]
    peak_device_bytes: Callable[[], int | None]
    communicate: Callable[[], None] | None = None
    peak_resident_bytes: Callable[[], int] = host.peak_resident_bytes


def load(framework: str) -> Any:
    """Return a framework's functions, a module; imports nothing of the framework itself yet.

    - configure(request): import the framework and apply what must come before anything else.
      Raises MissingFrameworkError, or ValueError where the framework sees no such device.
    - create(spec, seed, request, feed): a Workload.
    - operations(request): a matrix product and a 3x3 convolution (NHWC, HWIO, padding 1) under the
      settings in force, for the precision probe.
    - products(request, size): a function of n that makes n square products on the device and waits.
    - additions(request, length): one that adds one float32 array to another, in place, n times.
    - communication(request, spec, state): the exchanges of a step, for several devices.
    - wait(request), read_back(network), peak_device_bytes(request): for `create_workload`.
    """
    return importlib.import_module(f"benchmarks.worker.{framework}_workload")


def baseline(framework: str) -> ModuleType:
    """Return the module of a framework's baseline."""
    return importlib.import_module(f"benchmarks.baselines.{framework}_baseline")


def create_workload(spec: SystemSpec, seed: int, request: Request, feed: Feed) -> Workload:
    """Return a training state of ours, or of the baseline, with its batches."""
    framework, asked = load(request.framework), request.configuration
    if asked.implementation == "baseline":
        train = checkpoint = module = baseline(request.framework)
        state = module.create(spec, seed, request.device, asked.threads, asked.precision)
        train_step = module.step

        def move(batch: Batch) -> tuple[Any, Any]:
            images, latents = batch
            return module.images_to_device(state, images), module.latents_to_device(state, latents)

    else:
        train, checkpoint = (
            importlib.import_module(f"{request.framework}_impl.{name}")
            for name in ("train", "checkpoint")
        )
        state = create_state(train, spec, seed, request)
        train_step = train.train_step

        def move(batch: Batch) -> tuple[Any, Any]:
            moved: tuple[Any, Any] = train.batches_to_devices(state, *batch)
            return moved

    inputs = feed.on_device(move)

    return Workload(
        step=lambda: train_step(state, *next(inputs)),
        synchronize=lambda: train.synchronize(state),
        wait=lambda: framework.wait(request),
        export_state=lambda: checkpoint.export_state(state),
        import_state=lambda arrays: checkpoint.import_state(state, arrays),
        effective_settings=lambda: settings(state) | framework.read_back(_generator(state)),
        peak_device_bytes=lambda: framework.peak_device_bytes(request),
        communicate=(framework.communication(request, spec, state) if asked.devices > 1 else None),
    )


def create_state(train: ModuleType, spec: SystemSpec, seed: int, request: Request) -> Any:
    """Return an implementation's training state in the precision and mode that were asked for."""
    configuration = request.configuration
    compute = Compute(
        dtype=DTYPE,
        precision=configuration.precision,
        mode=configuration.mode,
        device=request.device,
        devices=configuration.devices,
    )
    return train.create_train_state(spec, compute, seed=seed)


def settings(state: Any) -> dict[str, Any]:
    """Return the mode of a state; a baseline has none."""
    return {"mode": state.compute.mode if hasattr(state, "compute") else None}


def _generator(state: Any) -> Any:
    """Return the generator of a state of ours or of a baseline's; of JAX all arrays."""
    state = getattr(state, "train_state", state)
    if hasattr(state, "networks"):
        return state.networks["generator"]
    return state.generator if hasattr(state, "generator") else state.arrays
