"""The training state: both networks, both optimizers, and where they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from pytorch_impl.checkpoint import import_state
from pytorch_impl.cluster import process_number
from pytorch_impl.layers import with_global_batch_norm
from pytorch_impl.models import create_models
from pytorch_impl.parallel import replicate
from shared.spec import AdamSpec, NetworkName, SystemSpec
from shared.spec.precision import PRECISIONS, check_mode, check_precision
from shared.spec.replicas import check_replicas, rows_of_replica
from shared.spec.streams import initial_state

__all__ = [
    "MODES",
    "PRECISIONS",
    "CapturedStep",
    "TrainState",
    "batches_to_devices",
    "create_adam",
    "create_train_state",
    "images_to_device",
    "images_to_numpy",
    "latents_to_device",
    "select_device",
    "synchronize",
]

DTYPES = {"float32": torch.float32, "float64": torch.float64}
MODES = ("eager", "compile", "cudagraph")
"""compile: `torch.compile` of both networks. cudagraph: the whole step recorded once, on a GPU."""


WARM_UP_STEPS = 3  # so that no library allocates or chooses an algorithm while it is recorded

Step = Callable[[Tensor, Tensor], dict[str, Tensor]]


class CapturedStep:
    """A whole training step as one CUDA graph: a launch per step instead of hundreds.

    Below a batch of some 256 images a large GPU waits for Python to launch kernels. The step is
    recorded once and replayed on inputs of the same shapes: PyTorch's notes on CUDA semantics,
    "CUDA Graphs". Not run on a GPU yet.

    `restore` puts the training state back to where it was before the warm-up, in place: the graph
    holds the addresses of its tensors.
    """

    def __init__(
        self, step: Step, real_images: Tensor, latents: Tensor, restore: Callable[[], None]
    ) -> None:
        self._real_images, self._latents = real_images.clone(), latents.clone()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_STEPS):
                step(self._real_images, self._latents)
        torch.cuda.current_stream().wait_stream(stream)
        restore()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._metrics = step(self._real_images, self._latents)

    def __call__(self, real_images: Tensor, latents: Tensor) -> dict[str, Tensor]:
        """Make the step; raises ValueError for inputs of other shapes."""
        if (real_images.shape, latents.shape) != (self._real_images.shape, self._latents.shape):
            raise ValueError(
                "mode cudagraph takes the shapes of its first step, "
                f"{tuple(self._real_images.shape)} and {tuple(self._latents.shape)}; received "
                f"{tuple(real_images.shape)} and {tuple(latents.shape)}"
            )
        self._real_images.copy_(real_images)
        self._latents.copy_(latents)
        self._graph.replay()
        return {name: value.clone() for name, value in self._metrics.items()}


@dataclass
class TrainState:
    """Both networks and both optimizers of one system, whole on each of its devices."""

    spec: SystemSpec
    device: torch.device
    dtype: torch.dtype
    generator: nn.Module
    discriminator: nn.Module
    generator_optimizer: torch.optim.Adam
    discriminator_optimizer: torch.optim.Adam
    precision: str = "float32"
    mode: str = "eager"
    captured: CapturedStep | None = None
    devices: int = 1
    batch_norm: str = "global"
    replicated: dict[NetworkName, nn.Module] = field(default_factory=dict)

    def network(self, name: NetworkName) -> nn.Module:
        """Return a network by its name."""
        return self.generator if name == "generator" else self.discriminator

    def learner(self, name: NetworkName) -> nn.Module:
        """Return a network whose backward pass averages the gradients of all devices."""
        return self.replicated.get(name, self.network(name))

    def optimizer(self, name: NetworkName) -> torch.optim.Adam:
        """Return a network's optimizer."""
        return self.generator_optimizer if name == "generator" else self.discriminator_optimizer


def select_device(name: str) -> torch.device:
    """Return the device for "cpu", "gpu" or "auto"; no GPU where one is asked for is an error."""
    if name not in ("auto", "cpu", "gpu"):
        raise ValueError(f"unknown device {name!r}; expected auto, cpu or gpu")
    if name == "gpu" and not torch.cuda.is_available():
        raise ValueError("device gpu was asked for, but PyTorch sees no GPU; use --device cpu")
    use_gpu = name == "gpu" or (name == "auto" and torch.cuda.is_available())
    if use_gpu and dist.is_initialized():
        torch.cuda.set_device(process_number() % torch.cuda.device_count())
    return torch.device("cuda" if use_gpu else "cpu")


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

    `precision`: one of `shared.spec.precision.PRECISIONS`. `mode`: one of MODES, None for eager.
    `devices`, `batch_norm`: see `shared.spec.replicas`; every process makes its own state.
    """
    _check_devices(spec, devices, batch_norm, mode)
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; expected one of {', '.join(DTYPES)}")
    place, mode = select_device(device), mode or "eager"
    check_precision(precision, spec, dtype=dtype, on_gpu=place.type == "cuda")
    check_mode(mode, MODES)
    if mode == "cudagraph" and place.type != "cuda":
        raise ValueError("mode cudagraph needs a GPU; expected mode eager or compile on a CPU")
    if place.type == "cuda":
        _set_tf32(precision == "tf32")
    generator, discriminator = create_models(spec)
    if devices > 1 and batch_norm == "global":
        generator = with_global_batch_norm(generator, place)
        discriminator = with_global_batch_norm(discriminator, place)
    for network in (generator, discriminator):
        network.to(place, DTYPES[dtype])
        # channels_last is NHWC in memory, the layout that convolutions run fastest in.
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if mode == "compile":
            network.compile(dynamic=False)
    state = TrainState(
        spec,
        place,
        DTYPES[dtype],
        generator,
        discriminator,
        create_adam(generator, spec.generator_optimizer, mode),
        create_adam(discriminator, spec.discriminator_optimizer, mode),
        precision,
        mode,
        devices=devices,
        batch_norm=batch_norm,
    )
    import_state(state, initial_state(spec, seed))
    if devices > 1:
        replicate(state)
    return state


def _check_devices(spec: SystemSpec, devices: int, batch_norm: str, mode: str | None) -> None:
    check_replicas(spec, devices, batch_norm)
    processes = dist.get_world_size() if dist.is_initialized() else 1
    if devices != processes:
        raise ValueError(
            f"{devices} devices need as many processes, but this run has {processes}; start it "
            f"with python -m pytorch_impl.train --devices {devices}, or give torchrun as many "
            "processes in all as --devices says"
        )
    if devices > 1 and mode == "cudagraph":
        raise ValueError("mode cudagraph trains on one device; expected mode eager or compile")


def _set_tf32(allowed: bool) -> None:
    # Settings of the process: two states of different precisions cannot train beside each other.
    precision = "tf32" if allowed else "ieee"
    torch.backends.cuda.matmul.fp32_precision = precision
    torch.backends.cudnn.conv.fp32_precision = precision  # type: ignore[attr-defined]


def create_adam(network: nn.Module, settings: AdamSpec, mode: str = "eager") -> torch.optim.Adam:
    """Return the optimizer of a network's parameters."""
    # torch.optim.Adam is Kingma & Ba's Algorithm 1: epsilon outside the bias-corrected root.
    return torch.optim.Adam(
        network.parameters(),
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        fused=True,
        capturable=mode == "cudagraph",
    )


def batches_to_devices(
    state: TrainState, real_images: np.ndarray, latents: np.ndarray
) -> tuple[Tensor, Tensor]:
    """Return this device's part of a step's NumPy batches as `train_step` takes them."""
    spec, replica = state.spec, process_number()
    images = rows_of_replica(real_images, spec.discriminator_steps, state.devices, replica)
    rows = rows_of_replica(latents, spec.latent_batches, state.devices, replica)
    return images_to_device(state, images), latents_to_device(state, rows)


def images_to_device(state: TrainState, images: np.ndarray) -> Tensor:
    """Return NumPy images NHWC as `train_step` takes them."""
    # A permuted view of NHWC memory is a channels_last NCHW tensor: nothing is moved.
    values = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    return values.to(state.device, state.dtype)


def latents_to_device(state: TrainState, latents: np.ndarray) -> Tensor:
    """Return NumPy latents [batch, latent_dim] as `train_step` takes them."""
    return torch.from_numpy(np.ascontiguousarray(latents)).to(state.device, state.dtype)


def images_to_numpy(images: Tensor) -> np.ndarray:
    """Return images as NumPy NHWC."""
    return np.ascontiguousarray(images.permute(0, 2, 3, 1).cpu().numpy())


def synchronize(state: TrainState) -> float:
    """Wait for the device by reading back one number that depends on both updated networks."""
    with torch.no_grad():
        total = sum(next(n.parameters()).sum() for n in (state.generator, state.discriminator))
    return float(total)
