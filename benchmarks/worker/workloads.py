"""What the benchmark asks of a framework, whose own answers are in `*_workload.py`.

What is timed is the implementation's own `train_step` on data on the device, not its NumPy
adapter; `benchmarks.worker.feed` says where its batches come from.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks.plan import host
from benchmarks.plan.request import Request
from benchmarks.worker.feed import Feed
from shared.spec import SystemSpec

Operation = Callable[[np.ndarray, np.ndarray], np.ndarray]


class UnsupportedError(Exception):
    """The implementation does not offer what a configuration asks for."""


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


@dataclass(frozen=True)
class Framework:
    """The functions of a framework.

    `configure` imports it and applies the settings that must come before anything else; it raises
    MissingFrameworkError where it is not installed and ValueError where it sees no such device.
    `create` returns a workload of a system with a seed. `operations` are a matrix product and a
    3x3 convolution (NHWC, HWIO, padding 1) under the settings in force, for the precision probe;
    `products` returns what makes n square products of a size on the device and waits for them;
    `additions` what adds one float32 array of a length to another n times, in place, and waits.
    `wait`, `read_back` and `peak_device_bytes` serve the workloads, with networks in whatever
    form the framework has them.
    """

    configure: Callable[[Request], None]
    create: Callable[[SystemSpec, int, Request, Feed], Workload]
    operations: Callable[[Request], dict[str, Operation]]
    products: Callable[[Request, int], Callable[[int], None]]
    additions: Callable[[Request, int], Callable[[int], None]]
    wait: Callable[[Request, Sequence[Any]], None]
    read_back: Callable[[Any], dict[str, Any]]
    peak_device_bytes: Callable[[Request], int | None]


def load(name: str) -> Framework:
    """Return a framework's functions; imports nothing of the framework itself yet."""
    framework: Framework = importlib.import_module(f"benchmarks.worker.{name}_workload").FRAMEWORK
    return framework


def create_state(train: ModuleType, spec: SystemSpec, seed: int, request: Request) -> Any:
    """Return an implementation's training state in the precision and mode that were asked for.

    Raises UnsupportedError where the implementation knows no such keyword.
    """
    configuration = request.configuration
    keywords: dict[str, Any] = {"seed": seed, "dtype": request.dtype, "device": request.device}
    known = inspect.signature(train.create_train_state).parameters
    for name, value, usual in (
        ("precision", configuration.precision, "float32"),
        ("mode", configuration.mode, None),
        ("devices", configuration.devices, 1),
    ):
        if name in known:
            keywords[name] = value
        elif value != usual:
            raise UnsupportedError(
                f"{train.__name__}.create_train_state takes no {name}, and {value!r} was asked "
                f"for; leave out --{name}"
            )
    return train.create_train_state(spec, **keywords)


def settings_of(state: Any, **read_back: Any) -> dict[str, Any]:
    """Return the settings of a row: what the framework says, and the state's mode if it has one."""
    mode = getattr(state, "mode", None)
    return {"mode": None if mode is None else str(mode), **read_back}
