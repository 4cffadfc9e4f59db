"""The training state: both networks, both optimizers, and where they are."""

from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from shared.framework_adapter import ByNetwork
from shared.interface import Array
from shared.spec import NetworkName, SystemSpec
from shared.spec.compute import Compute, resolve, rows_of_replica, uses_gpu

from . import fast, parallel
from .cluster import process_number
from .layers import Layers, plain_layers

DTYPES = {"float32": torch.float32, "float64": torch.float64}
MODES = ("eager", "compile", "cudagraph")
"""compile: `torch.compile` of both networks. cudagraph: eager, recorded. On one GPU both record the
whole step once, a CUDA graph: launching its kernels one by one can take three times as long as
they do. Without a choice a GPU has cudagraph, everything else eager."""


@dataclass
class TrainState(ByNetwork):
    """Both networks and both optimizers of one system, whole on each of its devices.

    `replicated`: the networks whose backward pass averages the gradients of several devices.
    """

    spec: SystemSpec
    compute: Compute
    device: torch.device
    generator: nn.Module
    discriminator: nn.Module
    generator_optimizer: torch.optim.Adam
    discriminator_optimizer: torch.optim.Adam
    replicated: dict[NetworkName, nn.Module] = field(default_factory=dict)
    captured: fast.CapturedStep | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return DTYPES[self.compute.dtype]

    @property
    def is_recorded(self) -> bool:
        """Whether the step is recorded once and replayed."""
        on_one_gpu = self.compute.device == "gpu" and self.compute.devices == 1
        return on_one_gpu and self.compute.mode != "eager"


def select_device(name: str) -> torch.device:
    """Return the device for "cpu", "gpu" or "auto"; no GPU where one is asked for is an error."""
    use_gpu = uses_gpu(name, torch.cuda.is_available())
    if use_gpu and dist.is_initialized():
        torch.cuda.set_device(process_number() % torch.cuda.device_count())
    return torch.device("cuda" if use_gpu else "cpu")


def check_compute(spec: SystemSpec, compute: Compute) -> Compute:
    """Return `compute` with its device and mode; what cannot be had is a ValueError."""
    has_gpu = torch.cuda.is_available()
    compute = resolve(compute, spec, modes=MODES, has_gpu=has_gpu, gpu_mode="cudagraph")
    parallel.check_processes(compute.devices)
    if compute.mode == "cudagraph" and (compute.device == "cpu" or compute.devices > 1):
        raise ValueError("mode cudagraph needs one GPU; expected mode eager or compile")
    if compute.device == "gpu":
        set_tf32(compute.precision == "tf32")
        torch.backends.cudnn.benchmark = True  # tries the algorithms of a convolution at its start
    return compute


def set_tf32(allowed: bool) -> None:
    """Let float32 products on a GPU be TF32, or forbid it, in the whole process."""
    # So two states of different precisions cannot train beside each other.
    precision = "tf32" if allowed else "ieee"
    torch.backends.cuda.matmul.fp32_precision = precision
    torch.backends.cudnn.conv.fp32_precision = precision  # type: ignore[attr-defined]


def choose_layers(compute: Compute) -> Layers:
    """Return the layers that networks are made of."""
    dtype = DTYPES[compute.dtype]
    layers = fast.fast_layers(dtype) if compute.fast else plain_layers(dtype)
    if compute.devices > 1 and compute.batch_norm == "global":
        kind = fast.SyncBatchNorm if compute.device == "gpu" else fast.GlobalBatchNorm
        layers = layers._replace(batch_norm=partial(kind, dtype=dtype))
    return layers


def batches_to_devices(
    state: TrainState, real_images: Array, latents: Array
) -> tuple[Tensor, Tensor]:
    """Return a step's NumPy batches as `train_step` takes them, sharded among the devices."""
    spec, devices, replica = state.spec, state.compute.devices, process_number()
    images = rows_of_replica(real_images, spec.discriminator_steps, devices, replica)
    rows = rows_of_replica(latents, spec.latent_batches, devices, replica)
    return images_to_device(state, images), latents_to_device(state, rows)


def images_to_device(state: TrainState, images: Array) -> Tensor:
    """Return NumPy images NHWC as `discriminate` takes them, whole on the first device."""
    # A permuted view of NHWC memory is a channels_last NCHW tensor: nothing is moved.
    return _to_device(state, images).permute(0, 3, 1, 2)


def latents_to_device(state: TrainState, latents: Array) -> Tensor:
    """Return NumPy latents [batch, latent_dim] as `generate` takes them, on the first device."""
    return _to_device(state, latents)


def _to_device(state: TrainState, array: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(state.device, state.dtype)


def images_to_numpy(images: Tensor) -> Array:
    """Return images as NumPy NHWC."""
    return np.ascontiguousarray(images.permute(0, 2, 3, 1).cpu().numpy())


def synchronize(state: TrainState) -> float:
    """Wait for the device by reading back one number that depends on both updated networks."""
    with torch.no_grad():
        networks = (state.generator, state.discriminator)
        return float(sum(next(n.parameters()).sum() for n in networks))
