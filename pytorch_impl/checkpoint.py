"""Training state ↔ arrays under canonical names (`shared.spec.state_shapes`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from pytorch_impl.parallel import average_statistics
from shared.interface import check_arrays
from shared.spec import NETWORKS, Pixels, flattened_pixels, optimizer_name, state_shapes

if TYPE_CHECKING:
    from pytorch_impl.state import TrainState

__all__ = ["export_gradients", "export_state", "import_state", "to_canonical", "to_native"]

_BATCH_NORM_NAMES = {"scale": "weight", "mean": "running_mean", "var": "running_var"}


def export_state(state: TrainState) -> dict[str, np.ndarray]:
    """Return weights, BN statistics, Adam moments and counters by canonical name."""
    average_statistics(state)
    arrays: dict[str, np.ndarray] = {}
    pixels = flattened_pixels(state.spec)
    for network in NETWORKS:
        optimizer = state.optimizer(network)
        for name, parameter in state.spec.parameters(network).items():
            tensor = _tensor(state.network(network), name)
            arrays[name] = to_canonical(tensor, pixels.get(name))
            if parameter.trainable:
                moments = optimizer.state[tensor]
                for moment, key in (("m", "exp_avg"), ("v", "exp_avg_sq")):
                    value = to_canonical(moments[key], pixels.get(name))
                    arrays[optimizer_name(name, moment)] = value
                steps = moments["step"]
        arrays[f"{network}_optimizer/step"] = np.array(int(steps), np.int64)
    return {name: arrays[name] for name in state_shapes(state.spec)}


def import_state(state: TrainState, arrays: dict[str, np.ndarray]) -> None:
    """Replace the whole state; a missing, unexpected or misshapen array is a ValueError."""
    check_arrays(arrays, state_shapes(state.spec), "the state")
    pixels = flattened_pixels(state.spec)
    for network in NETWORKS:
        optimizer = state.optimizer(network)
        steps = float(arrays[f"{network}_optimizer/step"])
        for name, parameter in state.spec.parameters(network).items():
            tensor = _tensor(state.network(network), name)
            _assign(tensor, to_native(arrays[name], pixels.get(name)))
            if not parameter.trainable:
                continue
            moments = optimizer.state[tensor]
            for moment, key in (("m", "exp_avg"), ("v", "exp_avg_sq")):
                moments.setdefault(key, torch.zeros_like(tensor))
                value = to_native(arrays[optimizer_name(name, moment)], pixels.get(name))
                _assign(moments[key], value)
            # Like the fused optimizer: the counter is a float32 scalar beside the parameter.
            counter = torch.zeros((), dtype=torch.float32, device=tensor.device)
            moments.setdefault("step", counter).fill_(steps)


def export_gradients(state: TrainState) -> dict[str, np.ndarray]:
    """Return the gradients that the last step left on the parameters, by canonical name."""
    arrays: dict[str, np.ndarray] = {}
    pixels = flattened_pixels(state.spec)
    for network in NETWORKS:
        for name in state.spec.parameters(network):
            gradient = _tensor(state.network(network), name).grad
            if gradient is not None:
                arrays[name] = to_canonical(gradient, pixels.get(name))
    return arrays


def to_canonical(tensor: Tensor, pixels: Pixels | None = None) -> np.ndarray:
    """Return a tensor of a layer, or a moment of it, as an array in the canonical layout.

    `pixels`: what `flattened_pixels` says of the parameter.
    """
    values = tensor.detach().cpu()
    if values.ndim == 4:
        # OIHW → HWIO and IOHW → HWOI alike: docs/porting.md#kernels-and-layouts.
        values = values.permute(2, 3, 1, 0)
    elif values.ndim == 2:
        values = values.T  # (out, in) → (in, out)
    if pixels:
        axis, (height, width, channels) = pixels
        # Features of an NCHW image are in CHW order: docs/porting.md#flatten-order.
        image = values.unflatten(axis, (channels, height, width)).movedim(axis, axis + 2)
        values = image.flatten(axis, axis + 2)
    return np.array(values.numpy(), order="C")


def to_native(array: np.ndarray, pixels: Pixels | None = None) -> Tensor:
    """Return an array in the canonical layout as a tensor in PyTorch's; undoes `to_canonical`."""
    values = torch.from_numpy(np.array(array))
    if pixels:
        axis, shape = pixels
        values = values.unflatten(axis, shape).movedim(axis + 2, axis).flatten(axis, axis + 2)
    if values.ndim == 4:
        values = values.permute(3, 2, 0, 1)
    elif values.ndim == 2:
        values = values.T
    return values.contiguous()


def _tensor(module: nn.Module, name: str) -> Tensor:
    """Return a module's own tensor for a canonical name."""
    _, layer_name, parameter_name = name.split("/")
    layer = getattr(module, layer_name)
    if layer_name.startswith("batch_norm"):
        return getattr(layer, _BATCH_NORM_NAMES.get(parameter_name, parameter_name))
    return layer.weight if parameter_name == "kernel" else layer.bias


@torch.no_grad()
def _assign(tensor: Tensor, values: Tensor) -> None:
    tensor.copy_(values)
