"""The step of pytorch/examples' DCGAN: eager, NCHW, BCELoss on a sigmoid, two backward passes of D.

G's step forms the discriminator's weight gradients and throws them away, Adam is the default one,
and five numbers are read back from the device in every step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pytorch_impl import checkpoint
from pytorch_impl.fast import fast_layers
from pytorch_impl.layers import plain_layers
from pytorch_impl.models import create_models
from pytorch_impl.state import TrainState, select_device
from pytorch_impl.state import synchronize as synchronize_state
from shared.spec import AdamSpec, Conventions, SystemSpec
from shared.spec.compute import Compute
from shared.spec.streams import initial_state

__all__ = [
    "CONVENTIONS",
    "create",
    "export_state",
    "images_to_device",
    "import_state",
    "latents_to_device",
    "spec_of",
    "step",
    "synchronize",
]

CONVENTIONS = Conventions()
"""PyTorch's own layers, loss and Adam follow the spec."""


@dataclass
class BaselineState:
    """The networks and optimizers, and whether the forward passes run under autocast."""

    train_state: TrainState
    autocast: bool


def spec_of(spec: SystemSpec) -> SystemSpec:
    """Return the system that this step trains: G learns from the images that D has seen."""
    return spec


def create(
    spec: SystemSpec, seed: int, device: str, threads: int, precision: str = "float32"
) -> BaselineState:
    """Return a fresh state. Raises ValueError for another system than dcgan64 with loss bce."""
    if (spec.architecture, spec.loss) != ("dcgan64", "bce"):
        raise ValueError(f"the baseline trains dcgan64 with bce, received {spec.name}, {spec.loss}")
    torch.set_num_threads(threads)
    place = select_device(device)
    plain, fast = plain_layers(torch.float32), fast_layers(torch.float32)
    # The tutorial's activations are in place too.
    layers = plain._replace(relu=fast.relu, leaky_relu=fast.leaky_relu)
    generator, discriminator = (network.to(place) for network in create_models(spec, layers))
    state = TrainState(
        spec,
        Compute(device=device, precision=precision),
        place,
        generator,
        discriminator,
        _adam(generator, spec.generator_optimizer),
        _adam(discriminator, spec.discriminator_optimizer),
    )
    checkpoint.import_state(state, initial_state(spec, seed))
    return BaselineState(state, autocast=precision == "bfloat16")


def _adam(network: nn.Module, settings: AdamSpec) -> torch.optim.Adam:
    return torch.optim.Adam(
        network.parameters(),
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
    )


def images_to_device(state: BaselineState, images: np.ndarray) -> Tensor:
    """Return NumPy images NHWC as `step` takes them: NCHW in memory too."""
    values = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return values.to(state.train_state.device, torch.float32)


def latents_to_device(state: BaselineState, latents: np.ndarray) -> Tensor:
    """Return NumPy latents [batch, latent_dim] as `step` takes them."""
    return torch.from_numpy(latents).to(state.train_state.device, torch.float32)


def step(state: BaselineState, real_images: Tensor, latents: Tensor) -> dict[str, float]:
    """Make one training step; returns its losses."""
    networks, loss = state.train_state, nn.BCELoss()

    def probabilities(images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=state.autocast):
            scores = networks.discriminator(images)
        return torch.sigmoid(scores.float())

    def label(value: float) -> Tensor:
        return torch.full((len(real_images),), value, device=real_images.device)

    networks.discriminator.zero_grad()
    real = probabilities(real_images)
    loss_real = loss(real, label(1.0))
    loss_real.backward()
    real.mean().item()
    with torch.autocast(latents.device.type, torch.bfloat16, enabled=state.autocast):
        fake_images = networks.generator(latents)
    fake = probabilities(fake_images.detach())
    loss_fake = loss(fake, label(0.0))
    loss_fake.backward()
    fake.mean().item()
    networks.discriminator_optimizer.step()
    networks.generator.zero_grad()
    fooled = probabilities(fake_images)
    generator_loss = loss(fooled, label(1.0))
    generator_loss.backward()
    fooled.mean().item()
    networks.generator_optimizer.step()
    real_value, fake_value = loss_real.item(), loss_fake.item()
    return {
        "discriminator_loss": real_value + fake_value,
        "discriminator_loss_real": real_value,
        "discriminator_loss_fake": fake_value,
        "generator_loss": generator_loss.item(),
    }


def export_state(state: BaselineState) -> dict[str, np.ndarray]:
    """Return the arrays of the state by canonical name."""
    return checkpoint.export_state(state.train_state)


def import_state(state: BaselineState, arrays: dict[str, np.ndarray]) -> None:
    """Replace the arrays of the state."""
    checkpoint.import_state(state.train_state, arrays)


def synchronize(state: BaselineState) -> float:
    """Wait for the device by reading back a number that depends on both updated networks."""
    return synchronize_state(state.train_state)
