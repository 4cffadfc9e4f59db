"""Training state ↔ arrays under canonical names (`shared.spec.state_shapes`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from shared.interface import check_arrays
from shared.spec import NETWORKS, optimizer_name, state_shapes

if TYPE_CHECKING:
    from pytorch_impl.state import TrainState

__all__ = ["export_gradients", "export_state", "import_state", "to_canonical", "to_native"]

_BATCH_NORM_NAMES = {"scale": "weight", "mean": "running_mean", "var": "running_var"}


def export_state(state: TrainState) -> dict[str, np.ndarray]:
    """Return weights, BN statistics, Adam moments and counters by canonical name."""
    arrays: dict[str, np.ndarray] = {}
    for network in NETWORKS:
        optimizer = state.optimizer(network)
        for name, parameter in state.spec.parameters(network).items():
            tensor = _tensor(state.network(network), name)
            arrays[name] = to_canonical(tensor)
            if parameter.trainable:
                moments = optimizer.state[tensor]
                for moment, key in (("m", "exp_avg"), ("v", "exp_avg_sq")):
                    arrays[optimizer_name(name, moment)] = to_canonical(moments[key])
                steps = moments["step"]
        arrays[f"{network}_optimizer/step"] = np.array(int(steps), np.int64)
    return {name: arrays[name] for name in state_shapes(state.spec)}


def import_state(state: TrainState, arrays: dict[str, np.ndarray]) -> None:
    """Replace the whole state; a missing, unexpected or misshapen array is a ValueError."""
    check_arrays(arrays, state_shapes(state.spec), "the state")
    for network in NETWORKS:
        optimizer = state.optimizer(network)
        steps = float(arrays[f"{network}_optimizer/step"])
        for name, parameter in state.spec.parameters(network).items():
            tensor = _tensor(state.network(network), name)
            _assign(tensor, arrays[name])
            if not parameter.trainable:
                continue
            moments = optimizer.state[tensor]
            for moment, key in (("m", "exp_avg"), ("v", "exp_avg_sq")):
                moments.setdefault(key, torch.zeros_like(tensor))
                _assign(moments[key], arrays[optimizer_name(name, moment)])
            # Like the fused optimizer: the counter is a float32 scalar beside the parameter.
            moments["step"] = torch.tensor(steps, dtype=torch.float32, device=tensor.device)


def export_gradients(state: TrainState) -> dict[str, np.ndarray]:
    """Return the gradients that the last step left on the parameters, by canonical name."""
    arrays: dict[str, np.ndarray] = {}
    for network in NETWORKS:
        for name in state.spec.parameters(network):
            gradient = _tensor(state.network(network), name).grad
            if gradient is not None:
                arrays[name] = to_canonical(gradient)
    return arrays


def to_canonical(tensor: Tensor) -> np.ndarray:
    """Return a tensor of a layer, or a moment of it, as an array in the canonical layout."""
    values = tensor.detach().cpu()
    if values.ndim == 4:
        # OIHW → HWIO and IOHW → HWOI alike: docs/porting.md#kernels-and-layouts.
        values = values.permute(2, 3, 1, 0)
    elif values.ndim == 2:
        # (out, in) → (in, out), with in-features from CHW to HWC order.
        values = values.reshape(len(values), -1, 4, 4).permute(2, 3, 1, 0).flatten(0, 2)
    return np.array(values.numpy(), order="C")


def to_native(array: np.ndarray) -> Tensor:
    """Return an array in the canonical layout as a tensor in PyTorch's; undoes `to_canonical`."""
    values = torch.from_numpy(np.array(array))
    if values.ndim == 4:
        values = values.permute(3, 2, 0, 1)
    elif values.ndim == 2:
        values = values.reshape(4, 4, -1, values.shape[1]).permute(3, 2, 0, 1).flatten(1)
    return values.contiguous()


def _tensor(module: nn.Module, name: str) -> Tensor:
    """Return a module's own tensor for a canonical name."""
    _, layer_name, parameter_name = name.split("/")
    layer = getattr(module, layer_name)
    if layer_name.startswith("batch_norm"):
        return getattr(layer, _BATCH_NORM_NAMES.get(parameter_name, parameter_name))
    return layer.weight if parameter_name == "kernel" else layer.bias


@torch.no_grad()
def _assign(tensor: Tensor, array: np.ndarray) -> None:
    tensor.copy_(to_native(array))
