"""Several devices: one jit over a mesh of them, across hosts with jax.distributed.

The state is whole on every device, a batch is divided along its first axis, and the compiler adds
the exchanges (Xu et al. 2021, "GSPMD"): batch statistics are global by themselves.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator, Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from shared.command_line import EXIT_BAD_INPUT, TrainingOptions
from shared.following_run import FollowingRun
from shared.training_run import TrainingRun

__all__ = [
    "LostDeviceError",
    "any_process",
    "divided",
    "joined",
    "leave",
    "mesh_of",
    "open_run",
    "prepare_devices",
    "put",
    "replicated",
]

AXIS = "replicas"
# Read by jax.distributed itself, which finds the other two in a cluster's own variables alone.
COORDINATOR, PROCESSES, PROCESS = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"


class LostDeviceError(ValueError):
    """Another process of the run died or no longer answers."""


def prepare_devices(device: str, devices: int, wait_limit: float = 300.0) -> None:
    """Join the other hosts, if there are any, and have enough devices; before anything else.

    `devices` counts those of all hosts. CPU devices are virtual ones in this process. Raises
    ValueError if there are fewer GPUs, or if JAX has started with fewer CPU devices.
    """
    hosts = _number(PROCESSES) if COORDINATOR in os.environ else 1
    if devices % hosts:
        raise ValueError(f"--devices {devices} cannot be divided among {hosts} hosts")
    # Once JAX has started it refuses; whether it has enough devices is seen below.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", devices // hosts)
    if hosts > 1:
        _require_free_port(os.environ[COORDINATOR])
        jax.distributed.initialize(
            os.environ[COORDINATOR],
            hosts,
            _number(PROCESS),
            initialization_timeout=int(wait_limit),
            heartbeat_timeout_seconds=int(wait_limit),
        )
    mesh_of(device, devices)


def _require_free_port(address: str) -> None:
    """Raise ValueError if the first process cannot listen there; JAX itself would crash."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"{COORDINATOR} is expected to be HOST:PORT, received {address!r}")
    if _number(PROCESS) > 0:
        return
    try:
        socket.create_server(("", int(port))).close()
    except OSError as error:
        raise ValueError(
            f"{COORDINATOR} names port {port}, on which this host cannot listen "
            f"({error.strerror}); choose another one for all processes"
        ) from error


def _number(variable: str) -> int:
    text = os.environ.get(variable, "")
    if not text.isdecimal():
        raise ValueError(
            f"{COORDINATOR} is set, so the environment variable {variable} is expected to be a "
            f"whole number, received {text!r}"
        )
    return int(text)


def mesh_of(device: str, devices: int) -> Mesh | None:
    """Return a mesh of so many devices of a kind; None for one device."""
    if devices == 1:
        return None
    kind = jax.default_backend() if device == "auto" else device
    available = jax.devices(kind)
    if len(available) < devices:
        raise ValueError(
            f"--devices {devices} was asked for, but JAX sees {len(available)} {kind.upper()}"
            f"{'' if len(available) == 1 else 's'}; use --devices {len(available)}"
            f"{'' if kind == 'cpu' else ' or --device cpu'}"
        )
    return Mesh(np.array(available[:devices]), (AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the place of what is whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def divided(mesh: Mesh) -> NamedSharding:
    """Return the place of a batch, of which every device has its part."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def put(array: np.ndarray, place: jax.Device | Sharding) -> jax.Array:
    """Return an array, which every host has whole, on the devices."""
    if isinstance(place, NamedSharding):
        return jax.make_array_from_callback(array.shape, place, lambda index: array[index])
    return jax.device_put(array, place)


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Raise LostDeviceError if another process of the run dies during this."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        raise LostDeviceError(
            f"process {jax.process_index()} lost another one of the run; the last checkpoint is "
            f"good, start all of them again with --resume ({str(error).splitlines()[0]})"
        ) from error


def leave(code: int) -> int:
    """Return the exit code; of several processes one that failed ends here.

    An orderly end would wait for the others, which may be gone, and then abort.
    """
    if code == EXIT_BAD_INPUT and jax.process_count() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def any_process(flag: bool) -> bool:
    """Return whether any process says True; every process must ask."""
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def open_run(
    options: TrainingOptions, device: str, versions: Mapping[str, str]
) -> TrainingRun | FollowingRun:
    """Open the run: the first process writes it, the others follow.

    If it fails in one of several, that one raises what it met and the others ValueError.
    """
    if jax.process_count() == 1:
        return TrainingRun.open(options, device=device, versions=versions)
    try:
        if jax.process_index() == 0:
            run: TrainingRun | FollowingRun = TrainingRun.open(
                options, device=device, versions=versions, agree=any_process
            )
        else:
            run = FollowingRun.open(options, agree=any_process)
    except (ValueError, OSError):
        any_process(True)
        raise
    if any_process(False):
        raise ValueError("another process of the run could not start; its message says why")
    return run
