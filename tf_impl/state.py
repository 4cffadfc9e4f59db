"""The training state: both networks, both optimizers, and where they are."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import keras
import tensorflow as tf
from tensorflow import Tensor

from shared.framework_adapter import ByNetwork
from shared.interface import Array
from shared.spec import SystemSpec
from shared.spec.compute import Compute, resolve, uses_gpu

from . import fast, parallel
from .layers import Adam, Layers, plain_layers

DTYPES = {"float32": tf.float32, "float64": tf.float64}
MODES = ("function", "xla")
"""function: one `tf.function` for the whole step. xla: the same, compiled by XLA."""


@dataclass
class TrainState(ByNetwork):
    """Both networks and both optimizers of one system, whole on each of its devices.

    `device` is the first, which alone generates and discriminates; `strategy` is None for one.
    """

    spec: SystemSpec
    compute: Compute
    device: str
    generator: keras.Model
    discriminator: keras.Model
    generator_optimizer: Adam
    discriminator_optimizer: Adam
    strategy: tf.distribute.Strategy | None = None
    # A tf.function belongs to the variables that it was traced with, so to one state.
    functions: dict[str, Callable] = field(default_factory=dict)

    @property
    def dtype(self) -> tf.DType:
        """The dtype of the weights."""
        return DTYPES[self.compute.dtype]


def select_device(name: str) -> str:
    """Return the device for "cpu", "gpu" or "auto"; no GPU where one is asked for is an error."""
    return "/GPU:0" if uses_gpu(name, has_gpu()) else "/CPU:0"


def has_gpu() -> bool:
    """Whether TensorFlow sees a GPU."""
    return bool(tf.config.list_physical_devices("GPU"))


def check_compute(spec: SystemSpec, compute: Compute) -> Compute:
    """Return `compute` with its device and mode; what cannot be had is a ValueError."""
    # Not on a CPU, where XLA's convolutions are slower.
    compute = resolve(compute, spec, modes=MODES, has_gpu=has_gpu(), gpu_mode="xla")
    if compute.mode == "xla" and compute.devices > 1:
        raise ValueError("mode xla compiles for one device; expected mode function")
    if compute.device == "gpu":
        set_tf32(compute.precision == "tf32")
    return compute


def set_tf32(allowed: bool) -> None:
    """Let float32 products on a GPU be TF32, or forbid it, in the whole process."""
    # So two states of different precisions cannot train beside each other.
    tf.config.experimental.enable_tensor_float_32_execution(allowed)


def choose_layers(compute: Compute) -> Layers:
    """Return the layers that networks are made of."""
    dtype = "mixed_bfloat16" if compute.precision == "bfloat16" else compute.dtype
    layers = fast.fast_layers(dtype, compute) if compute.fast else plain_layers(dtype)
    if compute.devices > 1:
        is_global = compute.batch_norm == "global"
        kind = parallel.GlobalBatchNorm if is_global else parallel.PerReplicaBatchNorm
        layers = layers._replace(batch_norm=partial(kind, dtype=dtype))
    return layers


def batches_to_devices(
    state: TrainState, real_images: Array, latents: Array
) -> tuple[Tensor, Tensor]:
    """Return a step's NumPy batches as `train_step` takes them, sharded among the devices."""
    if state.strategy is None:
        return images_to_device(state, real_images), latents_to_device(state, latents)
    spec, dtype = state.spec, state.dtype.as_numpy_dtype
    images, rows = (array.astype(dtype, copy=False) for array in (real_images, latents))
    return (
        parallel.shard(state.strategy, images, spec.discriminator_steps),
        parallel.shard(state.strategy, rows, spec.latent_batches),
    )


def images_to_device(state: TrainState, images: Array) -> Tensor:
    """Return NumPy images NHWC as `discriminate` takes them, whole on the first device."""
    return _to_device(state, images)


def latents_to_device(state: TrainState, latents: Array) -> Tensor:
    """Return NumPy latents [batch, latent_dim] as `generate` takes them, on the first device."""
    return _to_device(state, latents)


def _to_device(state: TrainState, array: Array) -> Tensor:
    with tf.device(state.device):
        return tf.constant(array.astype(state.dtype.as_numpy_dtype, copy=False))


def images_to_numpy(images: Tensor) -> Array:
    """Return images as NumPy NHWC."""
    return images.numpy()


def synchronize(state: TrainState) -> float:
    """Wait for the device by reading back one number that depends on both updated networks."""
    networks = (state.generator, state.discriminator)
    return float(sum(tf.reduce_sum(n.trainable_variables[0].value) for n in networks))
