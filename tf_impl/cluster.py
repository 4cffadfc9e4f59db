"""Several hosts: `tf.distribute.MultiWorkerMirroredStrategy`, as TF_CONFIG describes them.

TF_CONFIG is TensorFlow's own convention, JSON in each worker's environment:

    {"cluster": {"worker": ["host0:12345", "host1:12345"]}, "task": {"type": "worker", "index": 0}}

Each worker trains with all of its GPUs, or with its CPU as one device. Each loads the whole global
batch and takes its own rows. Worker 0 alone prints and writes.
"""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import tensorflow as tf

# TensorFlow exports neither, and a strategy's own limits cannot be changed.
from tensorflow.compiler.xla.tsl.protobuf.coordination_config_pb2 import CoordinatedJob
from tensorflow.python.eager import context

from shared.run.training import Processes

_LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)
"""What TensorFlow raises, as it happens, where another worker is no more or does not answer."""


def workers() -> int:
    """Return how many workers TF_CONFIG names; 1 where there is none."""
    return len(_place()[0])


def kind_of(device: str) -> str:
    """Return TensorFlow's name of "cpu", "gpu" or "auto": CPU or GPU."""
    has_gpu = bool(tf.config.list_physical_devices("GPU"))
    return "GPU" if device == "gpu" or (device == "auto" and has_gpu) else "CPU"


def connect(device: str, devices: int, wait_limit: float) -> None:
    """Join the other workers first of all; ValueError unless `devices` are those of all workers."""
    if workers() == 1:
        return
    kind = kind_of(device)
    found = len(tf.config.list_physical_devices("GPU")) if kind == "GPU" else 1
    if devices != workers() * found:
        raise ValueError(
            f"--devices {devices} was asked for, but TF_CONFIG names {workers()} workers with "
            f"{found} {kind} each; use --devices {workers() * found}"
        )
    if kind == "CPU":
        tf.config.set_visible_devices([], "GPU")  # the strategy would take them
    if not is_connected():
        # TensorFlow's own limits for heartbeats and start are 10 seconds and an hour. The strategy
        # configures nothing where this was done. A limit of each collective would be a thread.
        milliseconds = round(1000 * wait_limit)
        context.context().configure_coordination_service(
            service_type="standalone",
            service_leader="/job:worker/task:0",
            cluster_register_timeout_in_ms=milliseconds,
            heartbeat_timeout_in_ms=milliseconds,
            shutdown_barrier_timeout_in_ms=milliseconds,
            coordinated_jobs=[CoordinatedJob(name="worker", num_tasks=workers())],
        )
        if _place()[1] == 0:  # the others' own wait for the first has a limit
            _await_others(wait_limit)
        strategy()


def is_connected() -> bool:
    """Whether this process has joined other workers."""
    return bool(strategy.cache_info().currsize)


@contextmanager
def joined() -> Iterator[None]:
    """Raise ConnectionError if another worker of the run is lost during this."""
    try:
        yield
    except _LOST as error:
        if workers() == 1:
            raise
        raise ConnectionError(
            "another worker of TF_CONFIG has ended or does not answer "
            f"({type(error).__name__}); start all of them again, with --resume from a checkpoint"
        ) from error


def processes() -> Processes | None:
    """Return the workers of the run, if there are several; worker 0 writes it."""
    return Processes(_place()[1] == 0, _any_process) if workers() > 1 else None


@tf.function(autograph=False)
def _sum_over_workers(value: tf.Tensor) -> tf.Tensor:
    # An argument is on no device, which the strategy refuses; a copy is on the replica's.
    copies = strategy().run(tf.identity, args=(value,))
    return strategy().reduce(tf.distribute.ReduceOp.SUM, copies, axis=None)


def _any_process(flag: bool) -> bool:
    return bool(_sum_over_workers(tf.constant(float(flag))) > 0)


def _await_others(wait_limit: float) -> None:
    """Wait until every other worker listens; ConnectionError after `wait_limit` seconds."""
    end = time.monotonic() + wait_limit
    for address in _place()[0][1:]:
        host, port = address.rsplit(":", 1)
        while True:
            try:
                socket.create_connection((host, int(port)), timeout=1.0).close()
                break
            except OSError as error:
                if time.monotonic() > end:
                    raise ConnectionError(
                        f"TF_CONFIG's worker {address} was not there within {wait_limit:g} "
                        "seconds; start all of them, or wait longer with --wait-limit"
                    ) from error
            time.sleep(0.2)


@cache
def strategy() -> tf.distribute.Strategy:
    """Return the strategy of the workers, which `connect` has to configure first."""
    return tf.distribute.MultiWorkerMirroredStrategy()


@cache
def _place() -> tuple[list[str], int]:
    """Return the workers' addresses and which of them this process is."""
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        return [""], 0
    try:
        described = json.loads(text)
        cluster, task = described["cluster"], described["task"]
        addresses, index = cluster["worker"], int(task["index"])
        [int(address.rsplit(":", 1)[1]) for address in addresses]
        fits = list(cluster) == ["worker"] and task["type"] == "worker"
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        fits, addresses, index = False, [], 0
    if not (fits and 0 <= index < len(addresses)):
        raise ValueError(
            f"TF_CONFIG must name workers and one of them as the task, received {text!r}; expected "
            '{"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", "index": 0}}'
        )
    return addresses, index
