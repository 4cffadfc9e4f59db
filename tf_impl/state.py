"""The training state: both networks, both optimizers, and where they are."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf

from shared.spec import NetworkName, SystemSpec
from shared.spec.precision import PRECISIONS, check_mode, check_precision
from shared.spec.replicas import check_replicas
from shared.spec.streams import initial_state
from tf_impl.checkpoint import import_state
from tf_impl.layers import Adam, BatchNormalization
from tf_impl.models import create_models
from tf_impl.parallel import create_strategy, divided

__all__ = [
    "MODES",
    "PRECISIONS",
    "TrainState",
    "batches_to_devices",
    "create_train_state",
    "images_to_device",
    "images_to_numpy",
    "latents_to_device",
    "select_device",
    "synchronize",
]

DTYPES = {"float32": tf.float32, "float64": tf.float64}
MODES = ("function", "xla")
"""function: one `tf.function` for the whole step. xla: the same, compiled by XLA."""


@dataclass
class TrainState:
    """Both networks and both optimizers of one system, whole on each of its devices.

    `device` is the first, which alone generates and discriminates; `strategy` is None for one.
    """

    spec: SystemSpec
    device: str
    dtype: tf.DType
    generator: keras.Model
    discriminator: keras.Model
    generator_optimizer: Adam
    discriminator_optimizer: Adam
    # A tf.function belongs to the variables that it was traced with, so to one state.
    functions: dict[str, Callable] = field(default_factory=dict)
    precision: str = "float32"
    mode: str = "function"
    devices: int = 1
    batch_norm: str = "global"
    strategy: tf.distribute.Strategy | None = None

    def network(self, name: NetworkName | str) -> keras.Model:
        """Return a network by its name."""
        return self.generator if name == "generator" else self.discriminator

    def optimizer(self, name: NetworkName) -> Adam:
        """Return a network's optimizer."""
        return self.generator_optimizer if name == "generator" else self.discriminator_optimizer


def select_device(name: str) -> str:
    """Return the device for "cpu", "gpu" or "auto"; no GPU where one is asked for is an error."""
    if name not in ("auto", "cpu", "gpu"):
        raise ValueError(f"unknown device {name!r}; expected auto, cpu or gpu")
    available = bool(tf.config.list_physical_devices("GPU"))
    if name == "gpu" and not available:
        raise ValueError("device gpu was asked for, but TensorFlow sees no GPU; use --device cpu")
    return "/GPU:0" if name == "gpu" or (name == "auto" and available) else "/CPU:0"


def create_train_state(
    spec: SystemSpec,
    *,
    seed: int = 0,
    dtype: str = "float32",
    device: str = "cpu",
    precision: str = "float32",
    mode: str | None = None,
    devices: int = 1,
    batch_norm: str = "global",
) -> TrainState:
    """Return a fresh state: the weights that `seed` stands for in every framework.

    `precision`: one of `precision.PRECISIONS`. `mode`: one of MODES, None for xla on one
    GPU and function otherwise: on a CPU, XLA's convolutions are slower. `devices` and
    `batch_norm`: `shared.spec.replicas` and `tf_impl.parallel.prepare_devices`.
    """
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; expected one of {', '.join(DTYPES)}")
    place = select_device(device)
    mode = mode or ("xla" if "GPU" in place and devices == 1 else "function")
    check_precision(precision, spec, dtype=dtype, on_gpu="GPU" in place)
    _check_mode(mode, devices)
    check_replicas(spec, devices, batch_norm)
    if "GPU" in place:
        # A setting of the process: two states of different precisions cannot train side by side.
        tf.config.experimental.enable_tensor_float_32_execution(precision == "tf32")
    strategy = create_strategy(device, devices)
    with _placed(place, strategy):
        policy = "mixed_bfloat16" if precision == "bfloat16" else dtype
        generator, discriminator = create_models(spec, policy)
        state = TrainState(
            spec,
            place,
            DTYPES[dtype],
            generator,
            discriminator,
            Adam(spec.generator_optimizer, generator.trainable_variables),
            Adam(spec.discriminator_optimizer, discriminator.trainable_variables),
            precision=precision,
            mode=mode,
            devices=devices,
            batch_norm=batch_norm,
            strategy=strategy,
        )
    _set_batch_norm(state)
    import_state(state, initial_state(spec, seed))
    return state


def _check_mode(mode: str, devices: int) -> None:
    check_mode(mode, MODES)
    if mode == "xla" and devices > 1:
        raise ValueError(
            f"mode xla compiles for one device, received devices={devices}; expected mode function"
        )


def _set_batch_norm(state: TrainState) -> None:
    for layer in (*state.generator.layers, *state.discriminator.layers):
        if isinstance(layer, BatchNormalization):
            layer.is_per_replica = state.batch_norm == "per-replica"


def _placed(place: str, strategy: tf.distribute.Strategy | None) -> AbstractContextManager:
    return tf.device(place) if strategy is None else strategy.scope()


def batches_to_devices(
    state: TrainState, real_images: np.ndarray, latents: np.ndarray
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return a step's NumPy batches as `train_step` takes them, divided among the devices."""
    if state.strategy is None:
        return images_to_device(state, real_images), latents_to_device(state, latents)
    dtype = state.dtype.as_numpy_dtype
    images, rows = (array.astype(dtype, copy=False) for array in (real_images, latents))
    return (
        divided(state.strategy, images, state.spec.discriminator_steps),
        divided(state.strategy, rows, state.spec.latent_batches),
    )


def images_to_device(state: TrainState, images: np.ndarray) -> tf.Tensor:
    """Return NumPy images NHWC as `discriminate` takes them, whole on the first device."""
    return _to_device(state, images)


def latents_to_device(state: TrainState, latents: np.ndarray) -> tf.Tensor:
    """Return NumPy latents [batch, latent_dim] as `generate` takes them, on the first device."""
    return _to_device(state, latents)


def _to_device(state: TrainState, array: np.ndarray) -> tf.Tensor:
    with tf.device(state.device):
        return tf.constant(array.astype(state.dtype.as_numpy_dtype, copy=False))


def images_to_numpy(images: tf.Tensor) -> np.ndarray:
    """Return images as NumPy NHWC."""
    return images.numpy()


def synchronize(state: TrainState) -> float:
    """Wait for the device by reading back one number that depends on both updated networks."""
    networks = (state.generator, state.discriminator)
    return float(sum(tf.reduce_sum(n.trainable_variables[0].value) for n in networks))
