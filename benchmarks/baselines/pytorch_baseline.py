"""The step of pytorch/examples' DCGAN: eager, NCHW, BCELoss on a sigmoid, two backward passes of D.

G's step forms the discriminator's weight gradients and throws them away, Adam is the default one,
and five numbers are read back from the device in every step.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pytorch_impl.checkpoint import import_state
from pytorch_impl.fast import fast_layers
from pytorch_impl.layers import plain_layers
from pytorch_impl.models import create_models
from pytorch_impl.state import TrainState, latents_to_device, select_device
from shared.interface import METRIC_NAMES, Array
from shared.spec import NETWORKS, AdamSpec, Conventions, SystemSpec
from shared.spec.compute import Compute
from shared.spec.streams import initial_state

CONVENTIONS = Conventions()
"""PyTorch's own layers, loss and Adam follow the spec."""
GENERATOR_BATCH = "same_images"
"""G learns from the images that D has seen."""


def create_train_state(spec: SystemSpec, compute: Compute, *, seed: int = 0) -> TrainState:
    """Return a fresh state."""
    place = select_device(compute.device)
    torch.backends.cudnn.benchmark = True  # as the example has it
    plain, fast = plain_layers(torch.float32), fast_layers(torch.float32)
    # The tutorial's activations are in place too.
    layers = plain._replace(relu=fast.relu, leaky_relu=fast.leaky_relu)
    networks: Any = [network.to(place) for network in create_models(spec, layers)]
    state = TrainState(
        spec, compute, place, *networks, *map(_adam, networks, map(spec.adam, NETWORKS))
    )
    import_state(state, initial_state(spec, seed))
    return state


def _adam(network: nn.Module, own: AdamSpec) -> torch.optim.Adam:
    betas = own.beta1, own.beta2
    return torch.optim.Adam(network.parameters(), own.learning_rate, betas, own.epsilon)


def batches_to_devices(
    state: TrainState, real_images: Array, latents: Array
) -> tuple[Tensor, Tensor]:
    """Return a step's NumPy batches as `train_step` takes them: images NCHW in memory too."""
    images = torch.from_numpy(np.ascontiguousarray(real_images.transpose(0, 3, 1, 2)))
    return images.to(state.device, torch.float32), latents_to_device(state, latents)


def train_step(state: TrainState, real_images: Tensor, latents: Tensor) -> dict[str, float]:
    """Make one training step; returns its losses."""
    state.discriminator.zero_grad()
    loss_real = _backward(state, real_images, 1.0)
    with _autocast(state):
        fake_images = state.generator(latents)
    loss_fake = _backward(state, fake_images.detach(), 0.0)
    state.discriminator_optimizer.step()
    state.generator.zero_grad()
    generator_loss = _backward(state, fake_images, 1.0)
    state.generator_optimizer.step()
    real, fake = loss_real.item(), loss_fake.item()
    losses = (real + fake, real, fake, generator_loss.item())
    return dict(zip(METRIC_NAMES, losses, strict=True))


def _backward(state: TrainState, images: Tensor, label: float) -> Tensor:
    """Form the gradients of the loss of images with a label; reads the mean probability back."""
    with _autocast(state):
        scores = state.discriminator(images)
    probabilities = torch.sigmoid(scores.float())
    loss = nn.BCELoss()(probabilities, torch.full_like(probabilities, label))
    loss.backward()
    probabilities.mean().item()
    return loss


def _autocast(state: TrainState) -> torch.autocast:
    enabled = state.compute.precision == "bfloat16"
    return torch.autocast(state.device.type, torch.bfloat16, enabled=enabled)
