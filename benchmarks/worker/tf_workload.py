"""TensorFlow's own functions, as `main.load` lists them."""

import itertools
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from benchmarks.plan.configuration import Request
from benchmarks.plan.costs import exchanges_of_step
from benchmarks.worker.workloads import create_workload
from shared.interface import Array
from shared.spec import SystemSpec
from tf_impl import parallel
from tf_impl.state import TrainState, select_device, set_tf32

create = partial(create_workload, sys.modules[__name__])


def configure(request: Request) -> None:
    """Set the threads, and allow TF32 only where it is asked for."""
    device, asked = request.plan.device, request.configuration
    tf.config.threading.set_intra_op_parallelism_threads(asked.threads)
    tf.config.threading.set_inter_op_parallelism_threads(asked.threads)
    if device == "gpu":
        set_tf32(asked.precision == "tf32")
    parallel.prepare_devices(device, asked.devices)
    select_device(device)


def communication(request: Request, spec: SystemSpec, state: TrainState) -> Callable[[], None]:
    """Return what makes the exchanges of a step alone, one after another, and waits for them."""
    strategy = state.strategy
    assert strategy is not None

    def exchange(values: list[Any]) -> Any:
        context = tf.distribute.get_replica_context()
        results: list[Any] = []
        for value in values:
            with tf.control_dependencies(results[-1:]):  # in a step each waits for the one before
                own = tf.identity(value)
            results.append(context.all_reduce(tf.distribute.ReduceOp.SUM, own))
        return results

    run = tf.function(lambda values: strategy.run(exchange, args=(values,)))
    # Arguments, because constants are added up once, when the function is compiled.
    values = [
        strategy.experimental_distribute_values_from_function(lambda _, n=size: tf.ones(n))
        for size in itertools.chain(*exchanges_of_step(spec))
    ]

    def communicate() -> None:
        for value in strategy.experimental_local_results(run(values)[-1]):
            value.numpy()

    return communicate


def read_back(state: TrainState) -> dict[str, Any]:
    """Return platform, device, dtype, threads, layout and flags that are in use."""
    weight = state.generator.trainable_variables[0].value
    flags = {
        "tensor_float_32": tf.config.experimental.tensor_float_32_execution_enabled(),
        "jit": tf.config.optimizer.get_jit(),
    }
    return {
        "platform": "gpu" if "GPU" in weight.device else "cpu",
        "device": weight.device,
        "dtype": weight.dtype.name,
        "threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "layout": keras.config.image_data_format(),
        "flags": {name: str(value) for name, value in flags.items()},
    }


def wait(request: Request) -> None:
    """Wait for everything that runs on any device."""
    tf.test.experimental.sync_devices()


def forget_peak(request: Request) -> None:
    """Count the GPU's peak of memory anew."""
    if request.plan.device == "gpu":
        tf.config.experimental.reset_memory_stats("GPU:0")


def peak_device_bytes() -> int:
    """Return the most bytes that tensors ever held on the GPU."""
    return tf.config.experimental.get_memory_info("GPU:0")["peak"]


def to_device(request: Request, array: Array, dtype: str = "float32") -> tf.Tensor:
    """Return an array on the device."""
    with tf.device(select_device(request.plan.device)):
        return tf.cast(tf.identity(array), dtype)


_convolve = partial(tf.nn.conv2d, strides=2, padding="SAME")
OPERATIONS = {"matmul": tf.matmul, "convolution": _convolve}


def addition(request: Request, length: int) -> Callable[[], Any]:
    """Return what adds a float32 array to another one, in place."""
    with tf.device(select_device(request.plan.device)):
        total, summand = tf.Variable(tf.ones(length)), tf.ones(length)
    return lambda: total.assign_add(summand, read_value=False)  # where the variable is
