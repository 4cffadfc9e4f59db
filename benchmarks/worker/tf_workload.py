"""TensorFlow as the benchmark uses it. These three files differ only in the framework."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.plan.request import Request
from benchmarks.worker import exchanges
from benchmarks.worker.feed import Feed
from benchmarks.worker.workloads import Framework, Operation, Workload, create_state, settings_of
from shared.interface import load_implementation
from shared.spec import SystemSpec


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


def create(spec: SystemSpec, seed: int, request: Request, feed: Feed) -> Workload:
    """Return TensorFlow's training state with its batches."""
    from tf_impl import checkpoint, train

    state = create_state(train, spec, seed, request)
    inputs = feed.on_device(lambda batch: train.batches_to_devices(state, *batch))
    return Workload(
        step=lambda: train.train_step(state, *next(inputs)),
        synchronize=lambda: train.synchronize(state),
        wait=lambda: wait(request, []),
        export_state=lambda: checkpoint.export_state(state),
        import_state=lambda arrays: checkpoint.import_state(state, arrays),
        effective_settings=lambda: settings_of(state, **read_back(state.generator)),
        peak_device_bytes=lambda: peak_device_bytes(request),
        communicate=None if state.strategy is None else communication(spec, state.strategy),
    )


def communication(spec: SystemSpec, strategy: Any) -> Callable[[], None]:
    """Return what makes the exchanges of a step alone, one after another, and waits for them."""
    import tensorflow as tf

    sizes = exchanges.of_step(spec)

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


def wait(request: Request, networks: Sequence[Any]) -> None:
    """Wait for everything that runs on any device."""
    import tensorflow as tf

    tf.test.experimental.sync_devices()


def peak_device_bytes(request: Request) -> int | None:
    """Return the most bytes that tensors ever held on the GPU; None on a CPU."""
    import tensorflow as tf

    on_gpu = request.device == "gpu"
    return tf.config.experimental.get_memory_info("GPU:0")["peak"] if on_gpu else None


def operations(request: Request) -> dict[str, Operation]:
    """Return a matrix product and a convolution of NumPy arrays, done by TensorFlow there."""
    import tensorflow as tf

    place = "/GPU:0" if request.device == "gpu" else "/CPU:0"

    def convolution(images: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        with tf.device(place):
            return tf.nn.conv2d(images, kernel, strides=1, padding="SAME").numpy()

    def product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        with tf.device(place):
            return tf.matmul(left, right).numpy()

    return {"matmul": product, "convolution": convolution}


def products(request: Request, size: int) -> Callable[[int], None]:
    """Return what makes n products of two size x size matrices and waits for them."""
    import tensorflow as tf

    place = "/GPU:0" if request.device == "gpu" else "/CPU:0"
    dtype = tf.bfloat16 if request.configuration.precision == "bfloat16" else tf.float32
    with tf.device(place):
        left = tf.cast(tf.fill((size, size), 0.5), dtype)

    def run(count: int) -> None:
        with tf.device(place):
            for _ in range(count):
                tf.matmul(left, left)
        wait(request, [])

    return run


def additions(request: Request, length: int) -> Callable[[int], None]:
    """Return what adds a float32 array to another one n times, in place, and waits."""
    import tensorflow as tf

    with tf.device("/GPU:0" if request.device == "gpu" else "/CPU:0"):
        total, part = tf.Variable(tf.ones(length)), tf.ones(length)

    def run(count: int) -> None:
        for _ in range(count):
            total.assign_add(part, read_value=False)  # where the variable is
        wait(request, [])

    return run


FRAMEWORK = Framework(
    configure, create, operations, products, additions, wait, read_back, peak_device_bytes
)
