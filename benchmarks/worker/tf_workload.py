"""TensorFlow's own functions, as `workloads.load` lists them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.plan.configuration import Request
from benchmarks.worker.exchanges import exchanges_of_step
from benchmarks.worker.workloads import Operation, create_workload
from shared.interface import load_implementation
from shared.spec import SystemSpec

create = create_workload


def configure(request: Request) -> None:
    """Import TensorFlow, set its threads, and allow TF32 only where it is asked for."""
    load_implementation("tf")
    import tensorflow as tf

    from tf_impl import parallel, train

    tf.config.threading.set_intra_op_parallelism_threads(request.configuration.threads)
    tf.config.threading.set_inter_op_parallelism_threads(request.configuration.threads)
    if request.device == "gpu":
        allowed = request.configuration.precision == "tf32"
        tf.config.experimental.enable_tensor_float_32_execution(allowed)
    parallel.prepare_devices(request.device, request.configuration.devices)
    train.select_device(request.device)


def communication(request: Request, spec: SystemSpec, state: Any) -> Callable[[], None]:
    """Return what makes the exchanges of a step alone, one after another, and waits for them."""
    import tensorflow as tf

    sizes, strategy = exchanges_of_step(spec), state.strategy

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
        for size in (*sizes.gathered, *sizes.reduced)
    ]

    def communicate() -> None:
        for value in strategy.experimental_local_results(run(values)[-1]):
            value.numpy()

    return communicate


def read_back(network: Any) -> dict[str, Any]:
    """Return platform, device, dtype, threads, layout and flags that are in use."""
    import keras
    import tensorflow as tf

    weight = network.trainable_variables[0].value
    tensor_float_32 = tf.config.experimental.tensor_float_32_execution_enabled()
    return {
        "platform": "gpu" if "GPU" in weight.device else "cpu",
        "device": weight.device,
        "dtype": weight.dtype.name,
        "threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "layout": keras.config.image_data_format(),
        "flags": {
            "tensor_float_32": str(tensor_float_32),
            "jit": str(tf.config.optimizer.get_jit()),
        },
    }


def wait(request: Request) -> None:
    """Wait for everything that runs on any device."""
    import tensorflow as tf

    tf.test.experimental.sync_devices()


def peak_device_bytes(request: Request) -> int | None:
    """Return the most bytes that tensors ever held on the GPU; None on a CPU."""
    import tensorflow as tf

    on_gpu = request.device == "gpu"
    return tf.config.experimental.get_memory_info("GPU:0")["peak"] if on_gpu else None


def _place(request: Request) -> Any:
    import tensorflow as tf

    return tf.device(f"/{request.device.upper()}:0")


def operations(request: Request) -> dict[str, Operation]:
    """Return a matrix product and a convolution of NumPy arrays, done by TensorFlow there."""
    import tensorflow as tf

    def convolution(images: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        with _place(request):
            return tf.nn.conv2d(images, kernel, strides=1, padding="SAME").numpy()

    def product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        with _place(request):
            return tf.matmul(left, right).numpy()

    return {"matmul": product, "convolution": convolution}


def products(request: Request, size: int) -> Callable[[int], None]:
    """Return what makes n products of two size x size matrices and waits for them."""
    import tensorflow as tf

    dtype = tf.bfloat16 if request.configuration.precision == "bfloat16" else tf.float32
    with _place(request):
        left = tf.cast(tf.fill((size, size), 0.5), dtype)

    def run(count: int) -> None:
        with _place(request):
            for _ in range(count):
                tf.matmul(left, left)
        wait(request)

    return run


def additions(request: Request, length: int) -> Callable[[int], None]:
    """Return what adds a float32 array to another one n times, in place, and waits."""
    import tensorflow as tf

    with _place(request):
        total, summand = tf.Variable(tf.ones(length)), tf.ones(length)

    def run(count: int) -> None:
        for _ in range(count):
            total.assign_add(summand, read_value=False)  # where the variable is
        wait(request)

    return run
