"""Several hosts: jax.distributed, by three variables in each process' environment.

    JAX_COORDINATOR_ADDRESS=HOST:12345 JAX_NUM_PROCESSES=2 JAX_PROCESS_ID=0

Each process loads the whole global batch and gives its devices their rows. The first alone prints
and writes.
"""

import contextlib
import os
import socket
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from shared.run.training import Processes

# JAX itself reads the first alone, and finds the others in the variables of some schedulers.
COORDINATOR, PROCESSES, PROCESS = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"


def hosts() -> int:
    """Return how many processes train the run."""
    return _number(PROCESSES) if COORDINATOR in os.environ else 1


def connect(wait_limit: float) -> None:
    """Join the other processes, which are waited for, and later missed, `wait_limit` seconds."""
    if hosts() == 1:
        return
    address, process, limit = os.environ[COORDINATOR], _number(PROCESS), int(wait_limit)
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"{COORDINATOR} is expected to be HOST:PORT, received {address!r}")
    if process == 0:
        try:  # JAX itself would crash
            socket.create_server(("", int(port))).close()
        except OSError as error:
            raise ValueError(
                f"{COORDINATOR} names port {port}, on which this host cannot listen "
                f"({error.strerror}); choose another one for all processes"
            ) from error
    jax.distributed.initialize(
        address, hosts(), process, initialization_timeout=limit, heartbeat_timeout_seconds=limit
    )


def _number(variable: str) -> int:
    text = os.environ.get(variable, "")
    if not text.isdecimal():
        raise ValueError(f"{COORDINATOR} needs a whole number as {variable}, received {text!r}")
    return int(text)


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Raise ConnectionError if another process of the run dies during this."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        raise ConnectionError(
            f"process {jax.process_index()} lost another one of the run; the last checkpoint is "
            f"good, start all of them again with --resume ({str(error).splitlines()[0]})"
        ) from error


def processes() -> Processes | None:
    """Return the processes of the run, if there are several; the first one writes it."""
    return Processes(jax.process_index() == 0, _any_process) if jax.process_count() > 1 else None


def _any_process(flag: bool) -> bool:
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))
