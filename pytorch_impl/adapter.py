"""PyTorch behind `shared.interface.Implementation`: NumPy in, NumPy out."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shared.interface import Array, Arrays, LossValues, split_labels
from shared.spec import AdamSpec, NetworkName, SystemSpec, check_loss
from shared.spec.compute import Compute

from . import checkpoint, train
from .activations import activations
from .layers import create_adam
from .losses import LOSSES
from .state import (
    TrainState,
    batches_to_devices,
    images_to_device,
    images_to_numpy,
    latents_to_device,
    synchronize,
)
from .stock_losses import loss_formulas


class PyTorchImplementation:
    """The NumPy-in, NumPy-out interface of this package; the keywords are those of `Compute`.

    Batches are those of all devices together.
    """

    name = "pytorch"
    loss_formulas = staticmethod(loss_formulas)

    def __init__(self, device: str = "cpu", **compute: Any) -> None:
        self.compute = Compute(device=device, **compute)

    def loss(
        self, loss: str, real_scores: Array, fake_scores: Array, **labels: float
    ) -> LossValues:
        """Return the loss called `loss` and its gradients, in the inputs' dtype."""
        functions = LOSSES[check_loss(loss)]
        discriminator_labels, generator_labels = split_labels(labels)
        real = _to_tensor(real_scores).requires_grad_()
        fake = _to_tensor(fake_scores).requires_grad_()
        discriminator = functions.discriminator(real, fake, **discriminator_labels)
        real_gradient, fake_gradient = torch.autograd.grad(discriminator, (real, fake))
        generator = functions.generator(fake, **generator_labels)
        (generator_gradient,) = torch.autograd.grad(generator, fake)
        values = (discriminator, generator, real_gradient, fake_gradient, generator_gradient)
        return LossValues(*(_to_numpy(v.detach(), real_scores.dtype) for v in values))

    def create(self, spec: SystemSpec, *, seed: int = 0, dtype: str = "float32") -> TrainState:
        """Return a fresh training state with the weights that `seed` stands for."""
        return checkpoint.create_train_state(spec, replace(self.compute, dtype=dtype), seed=seed)

    def generate(self, state: TrainState, latents: Array, *, training: bool = False) -> Array:
        """Return images [batch, height, width, channels]; the state does not change."""
        images = train.generate(state, latents_to_device(state, latents), training=training)
        return images_to_numpy(images)

    def discriminate(self, state: TrainState, images: Array, *, training: bool = False) -> Array:
        """Return scores [batch]; the state does not change."""
        values = images_to_device(state, images)
        return train.discriminate(state, values, training=training).cpu().numpy()

    def activations(
        self, state: TrainState, network: NetworkName, inputs: Array, *, training: bool = False
    ) -> Arrays:
        """Return what each layer makes of the inputs, by its name; the state does not change."""
        to_device = latents_to_device if network == "generator" else images_to_device
        found = activations(state, network, to_device(state, inputs), training=training)
        return {name: x.cpu().numpy() for name, x in found.items()}

    def gradients(self, state: TrainState, real_images: Array, latents: Array) -> Arrays:
        """Return one step's gradients of both networks by parameter name; nothing changes."""
        scratch = copy.deepcopy(state)
        batches = batches_to_devices(scratch, real_images, latents)
        _, gradients = train.compute_step(scratch, *batches)
        return checkpoint.export_gradients(scratch, gradients)

    def train_step(self, state: TrainState, real_images: Array, latents: Array) -> dict[str, float]:
        """Make one training step and return its losses; the state moves."""
        batches = batches_to_devices(state, real_images, latents)
        metrics = train.train_step(state, *batches)
        return {name: float(value) for name, value in metrics.items()}

    def adam(
        self, parameter: Array, gradient: Array, m: Array, v: Array, step: int, settings: AdamSpec
    ) -> tuple[Array, Array, Array]:
        """Return the parameter and both moments after update number `step` (the first is 1)."""
        held = torch.nn.ParameterList([torch.nn.Parameter(_to_tensor(parameter))])
        optimizer = create_adam(held, settings)
        held[0].grad = _to_tensor(gradient)
        optimizer.state[held[0]] = {
            "step": torch.tensor(step - 1.0),
            "exp_avg": _to_tensor(m),
            "exp_avg_sq": _to_tensor(v),
        }
        optimizer.step()
        after = optimizer.state[held[0]]
        tensors = (held[0].detach(), after["exp_avg"], after["exp_avg_sq"])
        return tensors[0].numpy(), tensors[1].numpy(), tensors[2].numpy()

    def export_state(self, state: TrainState) -> Arrays:
        """Return weights, BN statistics, Adam moments and counters by canonical name."""
        return checkpoint.export_state(state)

    def import_state(self, state: TrainState, arrays: Arrays) -> None:
        """Replace the whole state; a missing, unexpected or misshapen array is a ValueError."""
        checkpoint.import_state(state, arrays)

    def synchronize(self, state: TrainState) -> None:
        """Return when all work on the state is done."""
        synchronize(state)


def _to_tensor(array: Array) -> Tensor:
    """Copy an array; one of dtype bfloat16 (of ml_dtypes, which torch does not know) bit by bit."""
    if array.dtype.name == "bfloat16":
        return torch.tensor(array.view(np.int16)).view(torch.bfloat16)
    return torch.tensor(array)


def _to_numpy(tensor: Tensor, dtype: np.dtype) -> Array:
    """Return a tensor as an array of its own dtype, which the caller gives as NumPy's."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(dtype)
    return tensor.numpy()


implementation = PyTorchImplementation()
