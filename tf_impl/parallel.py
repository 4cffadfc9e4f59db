"""Several devices: TensorFlow's own `tf.distribute`, one replica of the networks on each.

The copies of a variable begin equal and get the same updates: they stay equal to the last bit.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import keras
import tensorflow as tf
from tensorflow import Tensor

from shared.interface import Array
from shared.spec.compute import require_devices, rows_of_replica

from . import cluster, fast, layers


def prepare_devices(device: str, devices: int) -> None:
    """Have enough devices of all hosts, after `cluster.connect`; ValueError if there are not."""
    if devices == 1 or cluster.workers() > 1:
        return
    if cluster.kind_of(device) == "GPU":
        require_devices("TensorFlow", devices, len(tf.config.list_physical_devices("GPU")))
        return
    (processor,) = tf.config.list_physical_devices("CPU")
    configured = tf.config.get_logical_device_configuration(processor) or []
    if len(configured) >= devices:
        return
    try:
        tf.config.set_logical_device_configuration(
            processor, [tf.config.LogicalDeviceConfiguration() for _ in range(devices)]
        )
    except RuntimeError as error:
        raise ValueError(
            f"{devices} CPU devices were asked for after TensorFlow had started with "
            f"{max(1, len(configured))}; call tf_impl.parallel.prepare_devices first of all, "
            "with the largest number"
        ) from error


def create_strategy(device: str, devices: int) -> tf.distribute.Strategy | None:
    """Return what runs a step on `devices` replicas; None for one, which needs nothing."""
    prepare_devices(device, devices)
    if cluster.workers() > 1:
        return cluster.strategy()
    return None if devices == 1 else _mirrored(cluster.kind_of(device), devices)


@lru_cache
def _mirrored(kind: str, devices: int) -> tf.distribute.Strategy:
    # TensorFlow's collectives number their groups from 1 in each strategy, so that strategies of
    # 2 and of 4 CPU devices in one process abort each other. A sum on the first device needs none.
    operations = tf.distribute.ReductionToOneDevice() if kind == "CPU" else None
    names = [f"/{kind}:{i}" for i in range(devices)]
    return tf.distribute.MirroredStrategy(names, cross_device_ops=operations)


def shard(strategy: tf.distribute.Strategy, array: Array, batches: int) -> Any:
    """Return each replica's rows of `batches` batches, on its device: `rows_of_replica`."""
    count = strategy.num_replicas_in_sync

    def slice_of(context: tf.distribute.experimental.ValueContext) -> tf.Tensor:
        replica = context.replica_id_in_sync_group
        return tf.constant(rows_of_replica(array, batches, count, replica))

    return strategy.experimental_distribute_values_from_function(slice_of)


def run_on_replicas(
    strategy: tf.distribute.Strategy | None, function: Callable, *arguments: Any
) -> Any:
    """Return what `function` returns, which is the same on every replica; None: call it here."""
    if strategy is None:
        return function(*arguments)
    results = strategy.run(function, args=arguments)
    return tf.nest.map_structure(lambda r: strategy.experimental_local_results(r)[0], results)


# --- within a replica ---------------------------------------------------------------------------


def replica_count() -> int:
    """Return how many replicas run this code at once, on all hosts."""
    context = tf.distribute.get_replica_context()
    return context.num_replicas_in_sync if context else 1


def mean_over_replicas(values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Return the mean of each value over the replicas, by one collective; it has a gradient."""
    if replica_count() == 1:
        return list(values)
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, list(values))


def own_copy(variable: keras.Variable | tf.Variable) -> tf.Variable:
    """Return the running replica's copy of a variable, which all assign alike: no communication."""
    value = variable.value if isinstance(variable, keras.Variable) else variable
    if replica_count() == 1:
        return value
    context = tf.distribute.get_replica_context()
    copies = context.strategy.experimental_local_results(value)
    # A constant of the graph that is built; it counts the replicas of all hosts, each has as many.
    replica = int(tf.get_static_value(context.replica_id_in_sync_group))
    return copies[replica % len(copies)]


@keras.saving.register_keras_serializable(package=__name__)
class GlobalBatchNorm(layers.BatchNorm):
    """Batch normalisation by the global batch, of which each replica has a slice."""

    def by_batch(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return x normalised by the global batch, whose mean and unbiased variance follow."""
        x = tf.cast(x, self.variable_dtype)
        axes = list(range(x.shape.rank - 1))
        (mean,) = mean_over_replicas([tf.reduce_mean(x, axes)])
        # Centred, so that no digits are lost; no gradient through the mean, as in tf.nn.moments,
        # because the sum of what is centred is 0.
        squares = tf.math.squared_difference(x, tf.stop_gradient(mean))
        (variance,) = mean_over_replicas([tf.reduce_mean(squares, axes)])
        count = tf.cast(replica_count() * (tf.size(x) // x.shape[-1]), x.dtype)
        return self.normalize(x, mean, variance), mean, variance * (count / (count - 1))

    def move(self, mean: Tensor, variance: Tensor) -> None:
        """Move each replica's own copy of the running statistics, all of them alike."""
        for running, batch in ((self.mean, mean), (self.var, variance)):
            statistic = own_copy(running)
            statistic.assign(statistic * (1.0 - self.momentum) + batch * self.momentum)


@keras.saving.register_keras_serializable(package=__name__)
class PerReplicaBatchNorm(fast.BatchNorm):
    """Each replica normalises its own slice; the running statistics follow the replicas' mean."""

    def move(self, mean: Tensor, variance: Tensor) -> None:
        """Move each replica's own copy of the running statistics, all of them alike."""
        GlobalBatchNorm.move(self, *mean_over_replicas([mean, variance]))


@keras.saving.register_keras_serializable(package=__name__)
class Adam(layers.Adam):
    """Each replica updates its own copies, all of them by the same gradients."""

    def apply(
        self, grads: Sequence[Tensor], trainable_variables: list[keras.Variable] | None = None
    ) -> None:
        """Update every variable by its gradient, in the order given to `build`."""
        step = own_copy(self._iterations).assign_add(1)
        rate = own_copy(self._learning_rate)
        held = (self._trainable_variables, self.first_moments, self.second_moments)
        for variable, m, v, gradient in zip(*held, grads, strict=True):
            self.move(own_copy(variable), own_copy(m), own_copy(v), gradient, step, rate)
