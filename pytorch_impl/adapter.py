"""PyTorch behind `shared.interface.Implementation`: NumPy in, NumPy out."""

import copy

import numpy as np
import torch
from torch import Tensor

from shared.framework_adapter import FrameworkAdapter
from shared.interface import Array, Arrays, LossValues, split_labels
from shared.spec import AdamSpec, check_loss

from . import activations, checkpoint, state, train
from .layers import create_adam
from .losses import LOSSES
from .state import TrainState, batches_to_devices
from .stock_losses import loss_formulas


class PyTorchImplementation(FrameworkAdapter):
    """The NumPy-in, NumPy-out interface of this package."""

    name = "pytorch"
    checkpoint, train, places, layers = checkpoint, train, state, activations
    loss_formulas = staticmethod(loss_formulas)

    def to_numpy(self, tensor: Tensor) -> Array:
        """Return a tensor as an array."""
        return tensor.cpu().numpy()

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

    def gradients(self, state: TrainState, real_images: Array, latents: Array) -> Arrays:
        """Return one step's gradients of both networks by parameter name; nothing changes."""
        scratch = copy.deepcopy(state)
        batches = batches_to_devices(scratch, real_images, latents)
        _, gradients = train.compute_step(scratch, *batches)
        return checkpoint.export_gradients(scratch, gradients)

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
