"""PyTorch behind `shared.interface.Implementation`: NumPy in, NumPy out."""

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from shared.framework_adapter import FrameworkAdapter
from shared.interface import Array, Arrays
from shared.spec import AdamSpec, Pixels

from . import checkpoint, losses, state, train
from .layers import create_adam
from .state import TrainState, batches_to_devices


class PyTorchImplementation(FrameworkAdapter):
    """The NumPy-in, NumPy-out interface of this package."""

    name = "pytorch"
    checkpoint, losses, train, places = checkpoint, losses, train, state
    forward = staticmethod(train._forward)

    def to_numpy(self, tensor: Tensor) -> Array:
        """Return a tensor as an array; one of bfloat16 as ml_dtypes', bit by bit."""
        if tensor.dtype == torch.bfloat16:
            return tensor.view(torch.int16).numpy().view("bfloat16")
        return tensor.cpu().numpy()

    def value_and_gradients(self, loss: Callable, *scores: Array) -> tuple[Tensor, ...]:
        """Return a loss of scores, then its gradient by each of them."""
        tensors = [_to_tensor(array).requires_grad_() for array in scores]
        value = loss(*tensors)
        return value.detach(), *torch.autograd.grad(value, tensors)

    def output_to_numpy(self, output: Tensor, pixels: Pixels | None = None) -> Array:
        """Return a copy of NCHW as NHWC, of features in CHW order as HWC."""
        if output.ndim == 4:
            output = output.permute(0, 2, 3, 1)
        elif pixels:  # docs/porting.md#reshape-order
            height, width, channels = pixels[1]
            output = output.unflatten(1, (channels, height, width)).permute(0, 2, 3, 1).flatten(1)
        return self.to_numpy(output.clone())  # an activation may work in place

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
        return held[0].detach().numpy(), after["exp_avg"].numpy(), after["exp_avg_sq"].numpy()


def _to_tensor(array: Array) -> Tensor:
    """Copy an array; one of dtype bfloat16 (of ml_dtypes, which torch does not know) bit by bit."""
    if array.dtype.name == "bfloat16":
        return torch.tensor(array.view(np.int16)).view(torch.bfloat16)
    return torch.tensor(array)


implementation = PyTorchImplementation()
