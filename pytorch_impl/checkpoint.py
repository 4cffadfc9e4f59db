"""Training state ↔ arrays under canonical names (`shared.spec.state_shapes`)."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from shared.framework_adapter import IN_PYTORCH, KEPT
from shared.interface import Array, Arrays, check_arrays
from shared.spec import (
    NETWORKS,
    NetworkName,
    Pixels,
    SystemSpec,
    flattened_pixels,
    optimizer_name,
    state_shapes,
)
from shared.spec.compute import Compute
from shared.spec.streams import initial_state

from .layers import create_adam
from .models import create_models
from .parallel import average_statistics, replicate
from .state import TrainState, check_compute, choose_layers, select_device


def create_train_state(
    spec: SystemSpec, compute: Compute | None = None, *, seed: int = 0, arrays: Arrays | None = None
) -> TrainState:
    """Return a state with these arrays, or a fresh one with the weights that `seed` stands for.

    The weights of a seed are the same in every framework. `compute.mode` is one of MODES, None
    for the device's usual one. Raises ValueError for a `compute` that cannot be had and for arrays
    that do not fit.
    """
    compute = check_compute(spec, compute or Compute())
    place = select_device(compute.device)
    networks = create_models(spec, choose_layers(compute))
    for network in networks:
        # channels_last is NHWC in memory, the layout that convolutions run fastest in.
        network.to(place).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if compute.mode == "compile":
            network.compile(dynamic=False)
    adams: dict[str, Any] = {
        f"{name}_optimizer": create_adam(network, spec.adam(name), capturable=place.type == "cuda")
        for name, network in zip(NETWORKS, networks, strict=True)
    }
    state = TrainState(spec, compute, place, *networks, **adams)
    import_state(state, initial_state(spec, seed) if arrays is None else arrays)
    if compute.devices > 1:
        state.replicated = {name: replicate(state.network(name)) for name in NETWORKS}
    return state


def export_state(state: TrainState) -> Arrays:
    """Return weights, BN statistics, Adam moments and counters by canonical name."""
    arrays: Arrays = {}
    pixels = flattened_pixels(state.spec)
    for network in NETWORKS:
        if state.compute.batch_norm == "per-replica" and state.compute.devices > 1:
            average_statistics(state.network(network))
        for name, parameter in state.spec.parameters(network).items():
            tensor = _tensor(state.network(network), name)
            arrays[name] = to_canonical(tensor, pixels.get(name))
            if parameter.trainable:
                moments = state.optimizer(network).state[tensor]
                for key in moments.keys() & KEPT.keys():
                    value = to_canonical(moments[key], pixels.get(name))
                    arrays[optimizer_name(name, KEPT[key])] = value
                steps = moments["step"]
        arrays[f"{network}_optimizer/step"] = np.array(int(steps), np.int64)
    return {name: arrays[name] for name in state_shapes(state.spec) if name in arrays}


@torch.no_grad()
def import_state(state: TrainState, arrays: Arrays) -> None:
    """Replace the whole state; a missing, unexpected or misshapen array is a ValueError."""
    check_arrays(arrays, state_shapes(state.spec), "the state")
    pixels = flattened_pixels(state.spec)
    for network in NETWORKS:
        optimizer = state.optimizer(network)
        steps = float(arrays[f"{network}_optimizer/step"])
        for name, parameter in state.spec.parameters(network).items():
            tensor = _tensor(state.network(network), name)
            tensor.copy_(to_native(arrays[name], pixels.get(name)))
            if not parameter.trainable:
                continue
            moments = optimizer.state[tensor]
            if not moments and "betas" in optimizer.defaults:  # Adam before its first update
                moments |= {key: torch.zeros_like(tensor) for key in ("exp_avg", "exp_avg_sq")}
            for key in moments.keys() & KEPT.keys():
                held = arrays[optimizer_name(name, KEPT[key])]
                moments[key].copy_(to_native(held, pixels.get(name)))
            moments.setdefault("step", _counter(optimizer, tensor)).fill_(steps)


def _counter(optimizer: torch.optim.Adam, parameter: Tensor) -> Tensor:
    """Return Adam's counter of a parameter, where its own first step would put it."""
    on_device = any(optimizer.defaults.get(name) for name in ("capturable", "fused"))
    place = parameter.device if on_device else torch.device("cpu")
    return torch.zeros((), dtype=torch.float32, device=place)


def export_gradients(state: TrainState, gradients: dict[NetworkName, list[Tensor]]) -> Arrays:
    """Return the gradients of each network's parameters, in their order, by canonical name."""
    arrays: Arrays = {}
    pixels = flattened_pixels(state.spec)
    for network in NETWORKS:
        trained = [n for n, p in state.spec.parameters(network).items() if p.trainable]
        found = zip(trained, gradients[network], strict=True)
        arrays |= {name: to_canonical(g, pixels.get(name)) for name, g in found}
    return arrays


def to_canonical(tensor: Tensor, pixels: Pixels | None = None) -> Array:
    """Return a tensor of a layer, or a moment of it, as an array in the canonical layout.

    `pixels`: what `flattened_pixels` has for the parameter.
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


def to_native(array: Array, pixels: Pixels | None = None) -> Tensor:
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
    _, layer, parameter = name.split("/")
    return getattr(getattr(module, layer), IN_PYTORCH[parameter])
